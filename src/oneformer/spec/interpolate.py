"""`${a.b}` in the values of a spec -> the values they point at."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from oneformer.errors import SpecError
from oneformer.spec.flat import nearest
from oneformer.spec.node import Node, plain_node
from oneformer.spec.tree import leaves, sections

_REFERENCE = re.compile(r"\$\{([^{}]*)\}")


def interpolate(root: Node) -> tuple[Node, list[SpecError]]:
    """A merged table -> the same without references, and an error for each reference that leads nowhere.

    A value that is one reference takes the value it points at with its type; inside longer text the value is written
    out. Nothing else is evaluated: no environment, no code.
    """
    return _Resolver(root).run()


class _Resolver:
    """Walks a tree; `trail` holds the keys that are being looked up, so that a circle is found."""

    def __init__(self, root: Node) -> None:
        self.root = root
        self.errors: list[SpecError] = []
        self.reported: set[str] = set()

    def run(self) -> tuple[Node, list[SpecError]]:
        return self.resolved(self.root) or replace(self.root, value={}), self.errors

    def resolved(self, node: Node) -> Node | None:
        """The node without references; None when one of them fails, so that nothing is said about its value."""
        value = node.value
        if isinstance(value, dict):
            found = {k: self.resolved(v) for k, v in value.items()}
            return replace(node, value={k: v for k, v in found.items() if v is not None})
        if isinstance(value, list):
            items = [self.resolved(v) for v in value]
            return None if None in items else replace(node, value=items)
        if not (isinstance(value, str) and "${" in value):
            return node
        try:
            return self.text(node, ())
        except SpecError as error:
            if error.message not in self.reported:
                self.reported.add(error.message)
                self.errors.append(error)
            return None

    def text(self, node: Node, trail: tuple[str, ...]) -> Node:
        whole = _REFERENCE.fullmatch(node.value)
        if whole:
            target = self.target(whole[1], node, trail)
            return replace(target, mark=node.mark, key_mark=node.key_mark)

        def written(match: re.Match[str]) -> str:
            target = self.target(match[1], node, trail)
            if isinstance(target.value, dict | list):
                raise SpecError(
                    f"${{{match[1]}}} is no single value, so it cannot stand inside text", where=str(node.mark)
                )
            return target.text

        said = _REFERENCE.sub(written, node.value)
        if "${" in said:
            raise SpecError(
                f"{node.value!r} holds an unfinished reference", where=str(node.mark), hint="write ${section.key}"
            )
        return replace(node, value=said, text=said, quoted=True)

    def target(self, key: str, node: Node, trail: tuple[str, ...]) -> Node:
        place = str(node.mark)
        if key in trail:
            circle = " -> ".join([*trail[trail.index(key) :], key])
            raise SpecError(f"these references run in a circle: {circle}", where=place)
        if ":" in key:
            hint = "pass the value on the command line: section.key=value"
            raise SpecError(
                f"${{{key}}} is no key: a spec reads neither the environment nor code", where=place, hint=hint
            )
        if key in sections():
            hint = "refer to its keys one by one, or use a YAML anchor (&name, then *name)"
            raise SpecError(f"${{{key}}} points at a whole section", where=place, hint=hint)
        found = self.lookup(key, node)
        if found is None:
            near = nearest(key)
            hint = f"did you mean {' or '.join(near)}?" if near else "write ${section.key}"
            raise SpecError(f"${{{key}}} points at a key that does not exist", where=place, hint=hint)
        return self.strictly(found, (*trail, key))

    def strictly(self, node: Node, trail: tuple[str, ...]) -> Node:
        """Like `resolved`, but an error goes up to the reference that led here."""
        if isinstance(node.value, dict):
            return replace(node, value={k: self.strictly(v, trail) for k, v in node.value.items()})
        if isinstance(node.value, list):
            return replace(node, value=[self.strictly(v, trail) for v in node.value])
        return self.text(node, trail) if isinstance(node.value, str) and "${" in node.value else node

    def lookup(self, key: str, node: Node) -> Node | None:
        """What the user wrote for a key, or its default; entries of table values count too."""
        at: Any = self.root
        for name in key.split("."):
            at = at.value.get(name) if at is not None and isinstance(at.value, dict) else None
        return plain_node(leaves()[key].default, node.mark) if at is None and key in leaves() else at
