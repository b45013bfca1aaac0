"""YAML text -> a tree of nodes that remember where in the file each of them stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from oneformer.errors import SpecError

_CORE = "tag:yaml.org,2002:"
# A spec of thousands of values is a mistake or an attack by nested aliases ("billion laughs").
_MOST_NODES = 200_000


@dataclass(frozen=True, slots=True)
class Mark:
    """A place: a file with line and column (counted from 1), or a name such as `command line`."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Node:
    """One YAML value: a scalar, a list of nodes or a table of nodes."""

    value: Any
    """str, int, float, bool, None, list[Node] or dict[str, Node]."""
    mark: Mark
    """Where the value stands."""
    text: str = ""
    """A scalar as it was written, without quotes."""
    quoted: bool = False
    """The scalar stood in quotes, so it is text."""
    key_mark: Mark | None = None
    """Where the key of this value stands."""
    size: int = field(default=1, compare=False)
    """Number of nodes below and including this one, aliases counted each time."""

    def plain(self) -> Any:
        """The value without marks."""
        if isinstance(self.value, dict):
            return {k: v.plain() for k, v in self.value.items()}
        if isinstance(self.value, list):
            return [v.plain() for v in self.value]
        return self.value

    def children(self) -> Iterator[Node]:
        """The nodes directly below this one."""
        if isinstance(self.value, dict):
            yield from self.value.values()
        elif isinstance(self.value, list):
            yield from self.value


def plain_node(value: Any, mark: Mark) -> Node:
    """Plain values -> nodes that all stand at `mark`."""
    if isinstance(value, dict):
        return Node({str(k): plain_node(v, mark) for k, v in value.items()}, mark)
    if isinstance(value, list | tuple):
        return Node([plain_node(v, mark) for v in value], mark)
    text = (
        {None: "null", True: "true", False: "false"}[value]
        if value is None or value is True or value is False
        else str(value)
    )
    return Node(value, mark, text=text, quoted=isinstance(value, str))


def read_yaml(path: Path) -> Node:
    """A spec file -> its root table.

    Raises:
        SpecError: not a file, not UTF-8, not YAML 1.2, a tag, a duplicate key, or no table at the root.
    """
    if not path.is_file():
        raise missing_file(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError("the file is not UTF-8 text, so it is no YAML", where=str(path)) from error
    except OSError as error:
        raise SpecError(f"the file cannot be read: {error.strerror}", where=str(path)) from error
    node = parse_yaml(text, str(path))
    if node.value is None:
        return Node({}, node.mark)
    if not isinstance(node.value, dict):
        raise SpecError("a spec is a table of `key: value` lines", where=str(node.mark))
    return node


def parse_yaml(text: str, source: str) -> Node:
    """YAML text -> its root node; an empty text is null."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    yaml = YAML(typ="safe", pure=True)
    try:
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        mark = Mark(source, at.line + 1, at.column + 1) if at else Mark(source)
        said = " ".join(str(part) for part in (error.context, error.problem) if part)
        raise SpecError(f"this is not valid YAML: {said}", where=str(mark)) from error
    except YAMLError as error:
        position = getattr(error, "position", 0)
        mark = Mark(source, text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position))
        raise SpecError(f"this is not valid YAML: {str(error).splitlines()[0]}", where=str(mark)) from error
    if root is None:
        return Node(None, Mark(source))
    return _Reader(source).read(root)


class _Reader:
    """ruamel nodes -> ours, each shared node once."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.done: dict[int, Node] = {}
        self.open: set[int] = set()

    def at(self, raw: Any) -> Mark:
        return Mark(self.source, raw.start_mark.line + 1, raw.start_mark.column + 1)

    def read(self, raw: Any) -> Node:
        if id(raw) in self.done:
            return self.done[id(raw)]
        if id(raw) in self.open:
            raise SpecError("this alias contains itself", where=str(self.at(raw)))
        self.open.add(id(raw))
        kind = type(raw).__name__
        if kind == "MappingNode":
            node = self.table(raw)
        elif kind == "SequenceNode":
            self.expect(raw, "seq")
            node = Node([self.read(item) for item in raw.value], self.at(raw))
        else:
            node = self.scalar(raw)
        size = 1 + sum(child.size for child in node.children())
        if size > _MOST_NODES:
            raise SpecError(f"more than {_MOST_NODES} values", where=str(self.at(raw)))
        node = replace(node, size=size)
        self.open.discard(id(raw))
        self.done[id(raw)] = node
        return node

    def expect(self, raw: Any, kind: str) -> None:
        if str(raw.tag) != _CORE + kind:
            tag = str(raw.tag).replace(_CORE, "!!")
            raise SpecError(f"the tag {tag} is not allowed: a spec holds plain values only", where=str(self.at(raw)))

    def table(self, raw: Any) -> Node:
        self.expect(raw, "map")
        found: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in raw.value:
            if str(key.tag) == _CORE + "merge":
                merged |= self.merged(value)
                continue
            if type(key).__name__ != "ScalarNode":
                raise SpecError("a key has to be a word", where=str(self.at(key)))
            if key.value in found:
                first = found[key.value].key_mark
                raise SpecError(
                    f"the key {key.value} stands here a second time",
                    where=str(self.at(key)),
                    hint=f"the first one is at {first}; keep one of them",
                )
            found[key.value] = replace(self.read(value), key_mark=self.at(key))
        return Node(merged | found, self.at(raw))

    def merged(self, raw: Any) -> dict[str, Node]:
        """The keys that `<<: *alias` or `<<: [*a, *b]` brings in; earlier ones win."""
        node = self.read(raw)
        parts = node.value if isinstance(node.value, list) else [node]
        found: dict[str, Node] = {}
        for part in parts:
            if not isinstance(part.value, dict):
                raise SpecError("`<<` takes a table or a list of tables", where=str(part.mark))
            found = part.value | found
        return found

    def scalar(self, raw: Any) -> Node:
        tag, text = str(raw.tag).removeprefix(_CORE), str(raw.value)
        quoted = raw.style is not None
        value: Any
        try:
            if tag in ("str", "timestamp"):  # a date is not a value of any key: it is text
                value = text
            elif tag == "null":
                value = None
            elif tag == "bool":
                value = {"true": True, "false": False}[text.lower()]
            elif tag == "int":
                value = _integer(text)
            elif tag == "float":
                value = float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
            else:
                self.expect(raw, "str")
        except (ValueError, KeyError) as error:
            raise SpecError(f"{text!r} is not of the kind its tag says", where=str(self.at(raw))) from error
        return Node(value, self.at(raw), text=text, quoted=quoted)


def _integer(text: str) -> int:
    """YAML 1.2: 0x and 0o are hexadecimal and octal, a leading 0 alone means nothing."""
    digits = text.replace("_", "").lower()
    return int(digits, 0 if digits.lstrip("+-")[:2] in ("0x", "0o", "0b") else 10)


def missing_file(path: Path) -> SpecError:
    """The error for a spec that is not there: names the nearest folder that is, and the specs in it."""
    if path.is_dir():
        folder, what = path, "this is a folder, not a spec file"
    else:
        folder, what = next(p for p in path.absolute().parents if p.is_dir()), "there is no such file"
    try:
        names = sorted(p.name for p in folder.iterdir() if p.suffix in (".yaml", ".yml"))
    except OSError:
        names = []
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    hint = f"{folder} holds {shown}" if names else f"the nearest folder, {folder}, holds no .yaml file"
    return SpecError(what, where=str(path), hint=hint)
