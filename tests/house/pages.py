"""The documents of the project -> what can be checked in them: blocks, commands, names in backticks, links."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    language: str
    text: str


@dataclass(frozen=True)
class Page:
    """One document."""

    path: Path

    @property
    def name(self) -> str:
        """Its path in the project."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text(encoding="utf-8")

    @property
    def blocks(self) -> list[Block]:
        """Its fenced blocks in order."""
        return [Block(*found) for found in FENCE.findall(self.text)]

    @property
    def prose(self) -> str:
        """The text without its blocks."""
        return FENCE.sub("", self.text)

    @property
    def spans(self) -> list[str]:
        """What stands in backticks within the prose."""
        return SPAN.findall(self.prose)

    @property
    def links(self) -> list[str]:
        """Targets of links and pictures."""
        return [link or picture for link, picture in LINK.findall(self.prose)]

    @property
    def anchors(self) -> set[str]:
        """Names of its headings as links spell them."""
        return {
            re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in HEADING.findall(self.text)
        }

    def commands(self) -> list[list[str]]:
        """The commands of its bash blocks, as words, each with its program first."""
        lines = [line for block in self.blocks if block.language in ("bash", "sh", "shell") for line in lines_of(block)]
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def lines_of(block: Block) -> list[str]:
    """Lines of a shell block, continued ones joined, prompts and redirections taken away."""
    joined = block.text.replace("\\\n", " ")
    return [line.removeprefix("$ ").partition(" > ")[0].partition(" | ")[0] for line in joined.splitlines()]


def pages() -> list[Page]:
    """Every document that users read."""
    single = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "samples/README.md")]
    folders = [ROOT / "docs", ROOT / "skills"]
    return [Page(path) for path in (*single, *(path for folder in folders for path in sorted(folder.rglob("*.md"))))]
