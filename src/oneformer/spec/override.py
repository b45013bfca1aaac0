"""`a.b=value` words of the command line -> a tree of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from oneformer.errors import SpecError
from oneformer.spec.flat import is_table, merge
from oneformer.spec.node import Mark, Node, parse_yaml, plain_node
from oneformer.spec.tree import leaves

SOURCE = "command line"


def apply_overrides(root: Node, overrides: Sequence[str]) -> tuple[Node, list[SpecError]]:
    """Lay overrides over a table, the later ones winning; words that are no override are errors."""
    errors: list[SpecError] = []
    for word in overrides:
        try:
            key, value = _read(word)
        except SpecError as error:
            errors.append(error)
            continue
        root = merge(root, _table(root, key, value))
    return root, errors


def _read(word: str) -> tuple[str, Node]:
    key, equals, text = word.partition("=")
    key = key.strip()
    if not equals:
        is_file = word.endswith((".yaml", ".yml"))
        hint = f"a spec file is given with -e {word}" if is_file else "overrides look like train.optim.lr=1e-4"
        raise SpecError(f"{word!r} is no override", where=SOURCE, hint=hint)
    if key[:1] in ("+", "~", "-"):
        raise SpecError(
            f"{word!r} starts with a sign that has no meaning here",
            where=SOURCE,
            hint=f"write {key.lstrip('+~-')}={text or 'null'}",
        )
    mark = Mark(f"{SOURCE}, {key}")
    try:
        node = parse_yaml(text, mark.source)
    except SpecError as error:
        raise SpecError(
            f"the value {text!r} is not valid YAML", where=mark.source, hint=f"put it in quotes: \"{key}='{text}'\""
        ) from error
    return key, _placed(node, mark)


def _placed(node: Node, mark: Mark) -> Node:
    """The node with the command line as its place: a column inside one word helps nobody."""
    value = node.value
    if isinstance(value, dict):
        value = {k: _placed(v, mark) for k, v in value.items()}
    elif isinstance(value, list):
        value = [_placed(v, mark) for v in value]
    return replace(node, value=value, mark=mark, key_mark=mark)


def _table(root: Node, key: str, value: Node) -> Node:
    """The nested table that says `key: value`; an entry of a table value brings the other entries along."""
    names = key.split(".")
    parent = ".".join(names[:-1])
    if is_table(parent):
        at: Node | None = root
        for name in names[:-1]:
            at = at.value.get(name) if at is not None and isinstance(at.value, dict) else None
        there = at or plain_node(leaves()[parent].default, value.mark)
        if isinstance(there.value, dict):
            value = replace(value, value={**there.value, names[-1]: value}, text="")
            names = names[:-1]
    for name in reversed(names):
        value = Node({name: value}, value.mark, key_mark=value.mark)
    return value
