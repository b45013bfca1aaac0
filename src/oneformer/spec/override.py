"""`a.b=value` words of the command line -> a tree of nodes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from oneformer.errors import SpecError
from oneformer.spec.check import shown
from oneformer.spec.flat import is_table, merge, unknown_key
from oneformer.spec.node import Mark, Node, parse_yaml, plain_node
from oneformer.spec.shorthand import expanded, targets
from oneformer.spec.tao import at, without
from oneformer.spec.tree import leaves, sections

SOURCE = "command line"
# `{semantic:0.5}` is a table for Hydra; YAML wants a space behind the colon.
_TIGHT = re.compile(r"([{,]\s*\w+):(?=[^\s/])")


def apply_overrides(root: Node, overrides: Sequence[str], *, action: str = "") -> tuple[Node, list[SpecError]]:
    """Lay overrides over a table, the later ones winning; words that are no override are errors.

    Beside `key=value` the signs of Hydra, which TAO's commands take, are read: `+key=value` and `++key=value` set a key
    too, `~key` takes what the file says about it away. Short names of `spec/shorthand.py` stand for their keys.
    """
    errors: list[SpecError] = []
    for word in overrides:
        try:
            if word.startswith("~"):
                root = _taken_away(root, word, action)
                continue
            key, value = _read(word)
        except SpecError as error:
            errors.append(error)
            continue
        for name, node in expanded(key, value, action):
            root = merge(root, _table(root, name, node))
    return root, errors


def _taken_away(root: Node, word: str, action: str) -> Node:
    """The table without the key of `~key`; `~key=value` first makes sure that the value is the one that is there."""
    key, equals, text = word[1:].partition("=")
    names = targets(key, action) or (key,)
    for name in names:
        if name not in leaves() and name not in sections():
            raise unknown_key(name, Node(None, Mark(f"{SOURCE}, {word}")))
        if equals:
            there, said = at(root, name), _parsed(text, Mark(f"{SOURCE}, {key}")).plain()
            if there is None or there.plain() != said:
                have = "not set" if there is None else shown(there)
                raise SpecError(f"{name} is {have}, so {word!r} takes nothing away", where=SOURCE)
        root = without(root, name)
    return root


def _read(word: str) -> tuple[str, Node]:
    key, equals, text = word.partition("=")
    key = key.strip()
    if not equals:
        is_file = word.endswith((".yaml", ".yml"))
        hint = f"a spec file is given with -e {word}" if is_file else "overrides look like train.optim.lr=1e-4"
        raise SpecError(f"{word!r} is no override", where=SOURCE, hint=hint)
    key = key.removeprefix("+").removeprefix("+")
    mark = Mark(f"{SOURCE}, {key}")
    return key, _placed(_parsed(text, mark), mark)


def _parsed(text: str, mark: Mark) -> Node:
    if text.startswith(("{", "[")):
        text = _TIGHT.sub(r"\1: ", text)
    try:
        return parse_yaml(text, mark.source)
    except SpecError as error:
        key = mark.source.removeprefix(f"{SOURCE}, ")
        hint = f"put it in quotes: \"{key}='{text}'\""
        raise SpecError(f"the value {text!r} is not valid YAML", where=mark.source, hint=hint) from error


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
    depth = next((n for n in range(len(names) - 1, 0, -1) if is_table(".".join(names[:n]))), 0)
    if depth:
        parent, inner = ".".join(names[:depth]), ".".join(names[depth:])
        there = at(root, parent) or plain_node(leaves()[parent].default, value.mark)
        names = names[:depth]
        # Within a table a key of the spec is one name, as in `automl.ranges.train.optim.lr`.
        below = [inner] if inner in leaves() else inner.split(".")
        for name in reversed(below[1:]):
            value = Node({name: value}, value.mark, key_mark=value.mark)
        entry = Node({below[0]: value}, value.mark, key_mark=value.mark)
        if isinstance(there.value, dict) and len(below) > 1:
            value = merge(there, entry)
        else:
            value = replace(entry, value={**(there.value if isinstance(there.value, dict) else {}), **entry.value})
    for name in reversed(names):
        value = Node({name: value}, value.mark, key_mark=value.mark)
    return value
