"""A Markdown text -> what can be checked in it, each with its line: blocks, spans, links, headings, rows of tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_FENCE = re.compile(r"^```(\w*)\s*$")
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$")
_CELL = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table."""

    line: int
    cells: dict[str, str]
    """Head of the column -> text."""


@dataclass(slots=True)
class Document:
    """What a text holds; all lines are counted from 1."""

    commands: list[tuple[int, str]] = field(default_factory=list)
    """Lines of the blocks marked as of a shell, continued ones joined."""
    spans: list[tuple[int, str]] = field(default_factory=list)
    links: list[tuple[int, str]] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    rows: list[Row] = field(default_factory=list)
    open_block: int = 0
    """Line of a block that does not end; 0 when all do."""


def read(text: str) -> Document:
    """Take a text apart."""
    found = Document()
    head: list[str] = []
    for number, line, language in _lines(text, found):
        if language is not None:
            if language in ("bash", "sh", "shell"):
                found.commands.append((number, line))
            continue
        found.spans += [(number, span) for span in _SPAN.findall(line)]
        found.links += [(number, target) for target in _LINK.findall(_SPAN.sub("", line))]
        if heading := _HEADING.match(line):
            found.anchors.add(_anchor(heading[1]))
        head = _row(found, number, line, head)
    _join(found)
    return found


def _lines(text: str, found: Document) -> Iterator[tuple[int, str, str | None]]:
    """Number, text and the language of the block that the line is in; None outside of blocks."""
    language: str | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        fence = _FENCE.match(line.strip())
        if fence and language is None:
            language, found.open_block = fence[1], number
        elif line.strip() == "```":
            language, found.open_block = None, 0
        else:
            yield number, line, language


def _row(found: Document, number: int, line: str, head: list[str]) -> list[str]:
    """Note a row, and give the head of the table that the next line belongs to."""
    if not line.startswith("|"):
        return []
    cells = [cell.strip().replace("\\|", "|") for cell in _CELL.split(line.strip())[1:-1]]
    if not head:
        return cells
    if set("".join(cells)) - set(":- "):
        found.rows.append(Row(number, dict(zip(head, cells, strict=False))))
    return head


def _join(found: Document) -> None:
    """Put continued command lines together; comments and what follows a pipe go."""
    joined: list[tuple[int, str]] = []
    for number, line in found.commands:
        if joined and joined[-1][1].endswith("\\"):
            joined[-1] = (joined[-1][0], joined[-1][1][:-1] + line)
        else:
            joined.append((number, line))
    found.commands = [(number, line.partition(" | ")[0].partition(" > ")[0]) for number, line in joined]


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
