"""Rows of a benchmark -> a printed table, a section of docs/benchmarks.md, and the comparison with stored ratios."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from _measure import Spread

WORSE = 1.15  # a ratio this much above the stored one counts as a regression


@dataclass(frozen=True)
class Row:
    """One piece of work, ours and a peer's, measured in one run.

    Attributes:
        work: what was done; with the benchmark's name it identifies the row.
        ours: median, least and greatest, in `unit`.
        peer: the same of `peer_name`, or None.
        floor: the time of the arithmetic alone at the speed of a large matrix product of this run.
        note: what else was observed.
    """

    work: str
    ours: Spread
    peer: Spread | None = None
    peer_name: str = "transformers"
    unit: str = "ms"
    floor: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours / peer; below 1 is better."""
        return self.ours.median / self.peer.median if self.peer else None

    @staticmethod
    def load(values: dict) -> Row:
        """From `asdict` after a way through JSON."""
        peer = Spread(*values["peer"]) if values["peer"] else None
        return Row(**{**values, "ours": Spread(*values["ours"]), "peer": peer})


def cells(row: Row) -> list[str]:
    """A row as text: work, ours, peer, ratio, share of the arithmetic floor, note."""
    share = f"{row.floor / row.ours.median:.0%} of {row.floor:.0f} ms" if row.floor else ""
    peer = f"{row.peer_name} {shown(row.peer, row.unit)}" if row.peer else ""
    ratio = f"{row.ratio:.2f}" if row.ratio else ""
    return [row.work, shown(row.ours, row.unit), peer, ratio, share, row.note]


def shown(spread: Spread, unit: str) -> str:
    """Median and, where there are several values, least and greatest."""
    digits = 0 if spread.median >= 20 else 1
    number = f"{spread.median:.{digits}f} {unit}"
    return number if spread.low == spread.high else f"{number} ({spread.low:.{digits}f}-{spread.high:.{digits}f})"


HEAD = ["work", "ours", "peer", "ours / peer", "floor reached", "note"]


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of a Markdown table, its columns aligned; empty columns are left out."""
    body = [HEAD, *(cells(row) for row in rows)]
    kept = [i for i in range(len(HEAD)) if any(line[i] for line in body[1:])]
    body = [[line[i] for i in kept] for line in body]
    widths = [max(len(line[i]) for line in body) for i in range(len(kept))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in body]
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]


def write_section(path: Path, name: str, lines: Iterable[str], *, by: str = "run.py") -> None:
    """Put `lines` between the marks of `name` in a Markdown file; marks that are missing are added at its end."""
    begin, end = f"<!-- {name}: written by benchmarks/{by} -->", f"<!-- end of {name} -->"
    block = "\n".join([begin, *lines, end])
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    new, found = pattern.subn(lambda _: block, text)
    path.write_text(new if found else f"{text.rstrip()}\n\n{block}\n".lstrip(), encoding="utf-8")


class Stored:
    """Ratios of earlier runs by hardware, benchmark and work, in a JSON file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.all: dict[str, dict] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def ratios(self, hardware: str, benchmark: str) -> dict[str, float]:
        """Ratio by work; empty when this hardware has never been stored."""
        found: dict[str, float] = self.all.get(hardware, {}).get("ratios", {}).get(benchmark, {})
        return found

    def regressions(self, hardware: str, benchmark: str, rows: Sequence[Row]) -> list[str]:
        """One line for each row that is more than 15 % worse than stored."""
        stored = self.ratios(hardware, benchmark)
        return [
            f"{benchmark}, {row.work}: {row.ratio:.2f} of {row.peer_name}, stored is {stored[row.work]:.2f}"
            for row in rows
            if row.ratio and row.work in stored and row.ratio > WORSE * stored[row.work]
        ]

    def update(self, hardware: str, rows: Mapping[str, Sequence[Row]], about: Mapping[str, str]) -> None:
        """Store the ratios of these benchmarks; those of others stay."""
        entry = self.all.setdefault(hardware, {"ratios": {}})
        entry.update(about)
        for benchmark, part in rows.items():
            if ratios := {row.work: round(row.ratio, 3) for row in part if row.ratio}:
                entry["ratios"][benchmark] = ratios
        self.path.write_text(json.dumps(self.all, indent=2) + "\n", encoding="utf-8")


def better(first: Sequence[Row], second: Sequence[Row]) -> list[Row]:
    """Of two runs of the same benchmark, for each row the one with the smaller ratio."""
    other = {row.work: row for row in second}
    return [min(row, other.get(row.work, row), key=lambda r: r.ratio or 0.0) for row in first]


def save(path: Path, rows: Sequence[Row]) -> None:
    """Rows -> JSON file."""
    path.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")


def load(path: Path) -> list[Row]:
    """JSON file -> rows."""
    return [Row.load(values) for values in json.loads(path.read_text(encoding="utf-8"))]
