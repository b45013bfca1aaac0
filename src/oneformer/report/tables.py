"""Scores -> aligned plain-text tables for a terminal or a log file, readable without colour."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NAME_WIDTH = 28  # terminal columns a class name may take; longer ones end in an ellipsis
CLASS_COLUMNS = ("IoU", "PQ", "SQ", "RQ", "AP")
SEMANTIC = ("mIoU", "fwIoU", "mAcc", "pAcc")
PANOPTIC = ("PQ", "SQ", "RQ")
INSTANCE = ("AP", "AP50", "AP75", "APs", "APm", "APl")

Scores = Mapping[str, Any]
"""What `metrics.json` holds: per task numbers, with `all`, `things`, `stuff` and `per_class` where they apply."""


@dataclass(frozen=True)
class ClassRow:
    """One class with its scores; None where a task was not scored or the class never occurred."""

    name: str
    isthing: bool | None
    values: Mapping[str, float | None]


def number(value: float | None, digits: int = 2) -> str:
    """A score as text; None (nothing to score) as a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def align(header: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 1) -> str:
    """Rows under a header, the first `text_columns` columns to the left and the others, numbers, to the right."""
    table = [list(header), *[list(row) for row in rows]]
    widths = [max(width(row[i]) for row in table) for i in range(len(header))]
    lines = []
    for row in table:
        cells = [
            cell + " " * (wide - width(cell)) if i < text_columns else " " * (wide - width(cell)) + cell
            for i, (cell, wide) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * wide for wide in widths))
    return "\n".join(lines)


def width(text: str) -> int:
    """Terminal columns a text takes: two for East Asian wide characters, none for combining marks."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def shorten(text: str, limit: int = NAME_WIDTH) -> str:
    """The text in at most `limit` columns, control characters made visible, an ellipsis where something was cut."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    if width(text) <= limit:
        return text
    while text and width(text) > limit - 1:
        text = text[:-1]
    return text + "…"


def summary(scores: Scores) -> str:
    """The headline numbers of each task that was scored, one small table per task."""
    blocks = []
    semantic, panoptic, instance = (scores.get(task) for task in ("semantic", "panoptic", "instance"))
    if semantic:
        blocks.append(align(("semantic", *SEMANTIC), [("all", *_cells(semantic.get("all", semantic), SEMANTIC))]))
    if panoptic:
        rows = [(part, *_cells(panoptic[part], PANOPTIC)) for part in ("all", "things", "stuff") if panoptic.get(part)]
        blocks.append(align(("panoptic", *PANOPTIC), rows))
    if instance:
        blocks.append(align(("instance", *INSTANCE), [("things", *_cells(instance.get("all", instance), INSTANCE))]))
    return "\n\n".join(blocks)


def by_dataset(scores: Scores) -> str:
    """One line per data set where several were scored, and one for all of them; nothing for a single one."""
    apart: Mapping[str, Scores] = scores.get("datasets") or {}
    if not apart:
        return ""
    rows = [(shorten(name), *map(number, headlines(own))) for name, own in [*apart.items(), ("all", scores)]]
    return align(("data set", "mIoU", "PQ", "AP"), rows)


def headlines(scores: Scores) -> tuple[float | None, float | None, float | None]:
    """mIoU, PQ and AP; None where there is none."""
    semantic, panoptic, instance = (scores.get(task) or {} for task in ("semantic", "panoptic", "instance"))
    return semantic.get("mIoU"), (panoptic.get("all") or {}).get("PQ"), instance.get("AP")


def per_class(scores: Scores, *, is_thing: Mapping[str, bool] | None = None) -> str:
    """One line per class with the columns that have a value anywhere."""
    rows = class_rows(scores, is_thing=is_thing)
    columns = [c for c in CLASS_COLUMNS if any(row.values.get(c) is not None for row in rows)]
    if not rows or not columns:
        return ""
    lines = [(shorten(row.name), kind(row.isthing), *_cells(row.values, columns)) for row in rows]
    return align(("class", "kind", *columns), lines, text_columns=2)


def kind(isthing: bool | None) -> str:
    """`thing`, `stuff`, or a dash when it is not known."""
    return {True: "thing", False: "stuff", None: "-"}[isthing]


def class_rows(scores: Scores, *, is_thing: Mapping[str, bool] | None = None) -> list[ClassRow]:
    """The per-class scores of all tasks joined by class name, in the order of the label map."""
    joined: dict[str, dict[str, float | None]] = {}
    for task in ("semantic", "panoptic", "instance"):
        for name, values in ((scores.get(task) or {}).get("per_class") or {}).items():
            mine = joined.setdefault(name, {})
            mine.update({c: values.get(c) for c in CLASS_COLUMNS if c in values})
    return [ClassRow(name, (is_thing or {}).get(name), values) for name, values in joined.items()]


def _cells(values: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    return [number(values.get(column)) for column in columns]
