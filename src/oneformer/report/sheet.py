"""Facts, tables and rows of pictures -> one self-contained HTML page that works from disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from PIL import Image

from oneformer.report.color import RGB, css
from oneformer.report.html import document, encode, header

Cell = str | int | float | None
LONG = 30  # letters of a text above which its column is broken into lines


@dataclass(frozen=True)
class Table:
    """A table that can be sorted by each column; numbers stand to the right.

    `colors` gives the first cell of each row a swatch.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    colors: Sequence[RGB] = ()


@dataclass(frozen=True)
class Pictures:
    """Pictures that belong together, each with a word below it, under a caption."""

    caption: str
    mark: str
    pictures: Sequence[tuple[str, Image.Image]]
    note: str = ""


@dataclass(frozen=True)
class Sheet:
    """What the page shows, top to bottom; empty parts are left out."""

    over: str
    title: str
    facts: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()
    heading: str = "Images"
    note: str = ""
    pictures: Sequence[Pictures] = field(default_factory=list)


def render(sheet: Sheet) -> str:
    """The page as HTML text; everything that comes from data is escaped."""
    tables = "".join(_table(table) for table in sheet.tables)
    body = header(sheet.over, sheet.title, sheet.facts) + tables + _pictures(sheet)
    return document(sheet.title, body)


def _table(table: Table) -> str:
    if not table.rows:
        return ""
    number = [any(isinstance(row[i], int | float) for row in table.rows) for i in range(len(table.columns))]
    kinds = ["number" if numeric else "text" for numeric in number]
    long = [not numeric and any(len(str(row[i])) > LONG for row in table.rows) for i, numeric in enumerate(number)]
    shapes = ["" if numeric else "text long" if wraps else "text" for numeric, wraps in zip(number, long, strict=True)]
    head = "".join(
        f'<th scope="col" data-kind="{kind}"><button type="button">{escape(title)}</button></th>'
        for kind, title in zip(kinds, table.columns, strict=True)
    )
    lines = []
    for place, row in enumerate(table.rows):
        cells = [_cell(value, shape) for value, shape in zip(row, shapes, strict=True)]
        if table.colors:
            swatch = f'<span class="swatch" style="background:{css(table.colors[place])}"></span>'
            cells[0] = cells[0].replace(">", f">{swatch}", 1)
        lines.append(f"<tr>{''.join(cells)}</tr>")
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    kind_of = "classes told" if any(long) else "classes"
    body = f'<table class="{kind_of}"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return f'<section><h2>{escape(table.title)}</h2>{note}<div class="scroll">{body}</div></section>\n'


def _cell(value: Cell, shape: str) -> str:
    if isinstance(value, int | float):
        text = f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
        return f'<td data-value="{value}">{text}</td>'
    mark = f' class="{shape}"' if shape else ""
    return f"<td{mark}>{escape(value or '-')}</td>"


def _pictures(sheet: Sheet) -> str:
    if not sheet.pictures:
        return ""
    kept, encoded = encode([[picture for _, picture in row.pictures] for row in sheet.pictures])
    parts = [f"<section><h2>{escape(sheet.heading)}</h2>"]
    if sheet.note:
        parts.append(f'<p class="note">{escape(sheet.note)}</p>')
    for row, uris in zip(sheet.pictures, encoded, strict=False):
        words = [(escape(what), escape(f"{what} of {row.caption}")) for what, _ in row.pictures]
        cells = "".join(
            f'<div><img src="{uri}" alt="{whole}" loading="lazy"><p>{what}</p></div>'
            for uri, (what, whole) in zip(uris, words, strict=True)
        )
        note = f'<p class="note">{escape(row.note)}</p>' if row.note else ""
        caption = f"<figcaption><span>{escape(row.caption)}</span><b>{escape(row.mark)}</b></figcaption>"
        parts.append(f'<figure class="case">{caption}{note}<div class="trio">{cells}</div></figure>')
    if kept < len(sheet.pictures):
        left = len(sheet.pictures) - kept
        parts.append(f'<p class="note">{left} more images were left out to keep the page small.</p>')
    return "".join(parts) + "</section>\n"
