"""The Markdown of a skill folder -> its faults: links, commands, keys and the defaults that tables tell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

from oneformer.actions.completion import options
from oneformer.actions.verbs import VERBS
from oneformer.errors import UserError
from oneformer.schema.inputs import ACTIONS
from oneformer.skill.fault import Fault, near, of_error
from oneformer.skill.markdown import Document, read
from oneformer.spec.flat import nearest
from oneformer.spec.load import load
from oneformer.spec.shorthand import NAMES
from oneformer.spec.tree import leaves, sections
from oneformer.spec.write import value_text

_KEY = re.compile(r"[a-z_]+(\.[a-z0-9_]+)+")
_FILE = re.compile(r"[\w-]+(/[\w.-]+)+|[\w.-]+\.(json|yaml|md|onnx|pth|engine|png|jpg|html|safetensors)")
_PLACEHOLDER = re.compile(r"[A-Z]{3,}|[<>{}…]|\.\.\.")
_FIRST = {verb.partition(" ")[0] for verb in VERBS}


def documents(folder: Path) -> Iterator[Fault]:
    """Faults of every Markdown file of the folder."""
    for path in sorted(folder.rglob("*.md")):
        where = path.relative_to(folder).as_posix()
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            yield Fault(where, f"the file cannot be read: {error}", "store it as UTF-8 text")
            continue
        found = read(text)
        if found.open_block:
            yield Fault(f"{where}:{found.open_block}", "the block that begins here does not end", "add a line of ```")
        yield from _links(found, path, folder, where)
        yield from _commands(found, where)
        yield from _keys(found, where)
        yield from _defaults(found, where)


def _links(found: Document, path: Path, folder: Path, where: str) -> Iterator[Fault]:
    for line, link in found.links:
        if urlparse(link).scheme:
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.is_relative_to(folder.resolve()):
            yield Fault(f"{where}:{line}", f"the link {link} leads out of the folder", "link to a file of the skill")
        elif not target.exists():
            there = [one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()]
            yield Fault(f"{where}:{line}", f"the link {link} leads nowhere", near(name, there, otherwise="remove it"))
        elif anchor and target.suffix == ".md" and anchor not in read(target.read_text(encoding="utf-8")).anchors:
            yield Fault(f"{where}:{line}", f"there is no heading #{anchor}", "name a heading that is there")


def _commands(found: Document, where: str) -> Iterator[Fault]:
    for line, text in found.commands:
        try:
            words = shlex.split(text, comments=True)
        except ValueError as error:
            yield Fault(f"{where}:{line}", f"the line is none of a shell: {error}", "close the quotes")
            continue
        if words[:1] == ["oneformer"]:
            yield from command(words[1:], f"{where}:{line}")
    for line, span in found.spans:
        words = span.split()
        if words[:1] == ["oneformer"] and len(words) > 1 and not _PLACEHOLDER.search(words[1]):
            yield from _verb(words[1:], f"{where}:{line}")[1]


def command(words: list[str], where: str) -> Iterator[Fault]:
    """Faults of one command: its name, its options, and the keys and values that it sets."""
    name, faults = _verb(words, where)
    yield from faults
    if not name:
        return
    known, rest = options(VERBS[name]), words[len(name.split()) :]
    for word in rest:
        if word.startswith("-") and word.partition("=")[0] not in known:
            yield Fault(where, f"oneformer {name} has no option {word}", near(word, known, otherwise="see its --help"))
    values = [w for w in rest if re.match(r"[+~]*[a-z_][\w.]*=", w) and not _PLACEHOLDER.search(w.partition("=")[2])]
    action = next((word for word in [name, *rest] if word in ACTIONS), name.partition(" ")[0])
    if values and (VERBS[name].takes_spec or name.startswith(("jobs", "default_specs"))):
        try:
            load(None, values, action=action)
        except UserError as error:
            for fault in of_error(error, where):
                yield Fault(where, fault.what, fault.mend)


def _verb(words: list[str], where: str) -> tuple[str, list[Fault]]:
    """The whole name of a command, or what is wrong with it."""
    first, second = words[0] if words else "", " ".join(words[:2])
    if second in VERBS or first in VERBS:
        return (second if second in VERBS else first), []
    if first.startswith("-"):
        return "", []
    if first in _FIRST and len(words) == 1:
        return "", []  # a group as a whole
    known = VERBS if first in _FIRST else _FIRST
    told = second if first in _FIRST else first
    return "", [Fault(where, f"there is no command {told}", near(told, known, otherwise="see oneformer --help"))]


def _keys(found: Document, where: str) -> Iterator[Fault]:
    roots = {key.partition(".")[0] for key in leaves() if "." in key}
    tables = tuple(f"{key}." for key, leaf in leaves().items() if isinstance(leaf.default, dict))
    for line, span in found.spans:
        key, equals, value = span.partition("=")
        key = key.strip()
        if not _KEY.fullmatch(key) or key.split(".")[0] not in roots or _FILE.fullmatch(key):
            continue
        if key not in leaves() and key not in sections() and not key.startswith(tables):
            mend = f"did you mean {nearest(key)[0]}?" if nearest(key) else "see oneformer explain"
            yield Fault(f"{where}:{line}", f"there is no key {key}", mend)
        elif equals and key in leaves() and not _PLACEHOLDER.search(value):
            try:
                load(None, [f"{key}={value}"], action="train")
            except UserError as error:
                yield from (Fault(f"{where}:{line}", one.what, one.mend) for one in of_error(error, where))


def _defaults(found: Document, where: str) -> Iterator[Fault]:
    """Tables with the columns `key` and `default` tell defaults; those with `name` and `key` short names."""
    for row in found.rows:
        key, name = row.cells.get("key", "").strip("`"), row.cells.get("name", "").strip("`")
        if key in leaves() and "default" in row.cells:
            told, right = row.cells["default"].strip("`"), value_text(leaves()[key].default)
            if told != right:
                yield Fault(f"{where}:{row.line}", f"the default of {key} is not {told or 'empty'}", f"write {right}")
        if name and "key" in row.cells and set(row.cells) == {"name", "key"}:
            if name not in NAMES:
                mend = near(name, NAMES, otherwise="remove the row")
                yield Fault(f"{where}:{row.line}", f"there is no short name {name}", mend)
            elif NAMES[name] != key:
                yield Fault(f"{where}:{row.line}", f"{name} does not stand for {key}", f"write {NAMES[name]}")
