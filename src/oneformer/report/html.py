"""Scores, curves and example pictures -> one self-contained HTML page that works from disk.

Every text that comes from data (class names, file names, spec values) is escaped, and the page's own content security
policy forbids it to load anything and to run any script but the one it carries.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources

from PIL import Image

from oneformer.report.color import RGB, css
from oneformer.report.curves import Points, charts
from oneformer.report.tables import CLASS_COLUMNS, INSTANCE, PANOPTIC, Scores, class_rows, headlines, kind, number

PICTURE_BUDGET = 3_600_000  # bytes of JPEG in one page; base64 makes 4.8 MB of them
STEPS = ((720, 86), (560, 82), (420, 78), (300, 72), (200, 65))  # long side in pixels and JPEG quality, tried in turn


@dataclass(frozen=True)
class Case:
    """One image of the report as three pictures, and its score 0..100 (None: nothing to score)."""

    name: str
    score: float | None
    photo: Image.Image
    truth: Image.Image
    prediction: Image.Image


@dataclass(frozen=True)
class Page:
    """What the page shows, top to bottom; empty parts are left out.

    Args:
        title: what was evaluated, one line.
        facts: short name and value pairs under the title.
        scores: what metrics.json holds.
        classes: name -> (thing or stuff, colour), in the order of the label map.
        series: curves of the training run.
        score_name: how `Case.score` is computed, for the caption.
        spec: the resolved spec as YAML.
        versions: package names and versions.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    scores: Scores
    classes: Mapping[str, tuple[bool, RGB]]
    series: Mapping[str, Points] = field(default_factory=dict)
    best: Sequence[Case] = ()
    worst: Sequence[Case] = ()
    score_name: str = "PQ"
    spec: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


def render(page: Page) -> str:
    """The page as HTML text."""
    parts = (
        _header(page),
        _tiles(page.scores),
        _datasets(page.scores),
        _classes(page),
        _curves(page),
        _cases(page),
        _end(page),
    )
    return document(page.title, "".join(parts))


def document(title: str, body: str) -> str:
    """A whole self-contained page around a body that is HTML already."""
    style, script = _asset("page.css"), _asset("page.js")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n"
        f"<body><main>{body}</main><script>{script}</script></body></html>\n"
    )


def _asset(name: str) -> str:
    return resources.files("oneformer.report").joinpath(name).read_text(encoding="utf-8")


def _header(page: Page) -> str:
    return header("OneFormer evaluation", page.title, page.facts)


def header(over: str, title: str, facts: Sequence[tuple[str, str]]) -> str:
    """Title and facts at the top of a page."""
    told = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts)
    head = f'<p class="over">{escape(over)}</p><h1>{escape(title)}</h1>'
    return f'<header>{head}<dl class="facts">{told}</dl></header>\n'


def _tiles(scores: Scores) -> str:
    tiles = []
    if semantic := scores.get("semantic"):
        values = semantic.get("all", semantic)
        rows = [
            ("pixels right", values.get("pAcc")),
            ("mean class accuracy", values.get("mAcc")),
            ("frequency-weighted IoU", values.get("fwIoU")),
        ]
        tiles.append(_tile("Semantic", "mIoU", values.get("mIoU"), _rows(rows)))
    if panoptic := scores.get("panoptic"):
        head = "<thead><tr><th></th>" + "".join(f"<th>{c}</th>" for c in PANOPTIC) + "</tr></thead>"
        lines = "".join(
            f"<tr><th>{part}</th>" + "".join(f"<td>{number(panoptic[part].get(c), 1)}</td>" for c in PANOPTIC) + "</tr>"
            for part in ("things", "stuff")
            if panoptic.get(part)
        )
        tiles.append(_tile("Panoptic", "PQ", panoptic["all"].get("PQ"), f"<table>{head}<tbody>{lines}</tbody></table>"))
    if instance := scores.get("instance"):
        values = instance.get("all", instance)
        tiles.append(_tile("Instance", "mask AP", values.get("AP"), _ap_table(values)))
    return f'<section class="tiles">{"".join(tiles)}</section>\n' if tiles else ""


def _datasets(scores: Scores) -> str:
    """A row for each data set where several were scored."""
    apart = scores.get("datasets") or {}
    lines = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(f'<td>{number(value, 1)}</td>' for value in headlines(own))}</tr>"
        for name, own in apart.items()
    )
    head = "<thead><tr><th></th><th>mIoU</th><th>PQ</th><th>AP</th></tr></thead>"
    table = f"<table>{head}<tbody>{lines}</tbody></table>"
    return f"<section><h2>Data sets</h2>{table}</section>\n" if apart else ""


def _tile(task: str, name: str, value: float | None, rest: str) -> str:
    return (
        f'<div class="tile"><p>{task}<span class="big">{number(value, 1)}<small>{name}</small></span></p>{rest}</div>'
    )


def _rows(rows: Sequence[tuple[str, float | None]]) -> str:
    lines = "".join(f"<tr><th>{name}</th><td>{number(value, 1)}</td></tr>" for name, value in rows)
    return f"<table><tbody>{lines}</tbody></table>"


def _ap_table(values: Mapping[str, float | None]) -> str:
    names = {"AP50": "IoU 0.50", "AP75": "IoU 0.75", "APs": "small", "APm": "medium", "APl": "large"}
    return _rows([(names[key], values.get(key)) for key in INSTANCE if key in names])


def _classes(page: Page) -> str:
    rows = class_rows(page.scores, is_thing={name: thing for name, (thing, _) in page.classes.items()})
    columns = [c for c in CLASS_COLUMNS if any(row.values.get(c) is not None for row in rows)]
    if not rows or not columns:
        return ""
    head = "".join(
        f'<th scope="col" data-kind="{"text" if i < 2 else "number"}"><button type="button">{title}</button></th>'
        for i, title in enumerate(("class", "kind", *columns))
    )
    lines = []
    for row in rows:
        color = css(page.classes[row.name][1]) if row.name in page.classes else "transparent"
        name = escape(row.name)
        first = f'<td title="{name}"><span class="swatch" style="background:{color}"></span>{name}</td>'
        cells = "".join(_score_cell(row.values.get(c)) for c in columns)
        lines.append(f'<tr>{first}<td class="kind">{kind(row.isthing)}</td>{cells}</tr>')
    table = f'<table class="classes"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    note = (
        '<p class="note">A dash means there was nothing to score: the class is neither in the truth nor predicted.</p>'
    )
    return f'<section><h2>Per class</h2>{note}<div class="scroll">{table}</div></section>\n'


def _score_cell(value: float | None) -> str:
    if value is None:
        return '<td data-value="">-</td>'
    return f'<td class="n" style="--v:{max(0.0, min(100.0, value)):.1f}" data-value="{value:.6f}">{value:.1f}</td>'


def _curves(page: Page) -> str:
    drawn = charts(page.series)
    if not drawn:
        return ""
    figures = "".join(f"<figure><figcaption>{escape(c.title)}</figcaption>{c.svg}</figure>" for c in drawn)
    return f'<section><h2>Training</h2><div class="charts">{figures}</div></section>\n'


def _cases(page: Page) -> str:
    if not page.best and not page.worst:
        return ""
    shown, uris = _encode([*page.worst, *page.best])
    left_out = len(page.best) + len(page.worst) - shown
    parts = [
        "<section><h2>Images</h2>",
        f'<p class="note">Score of an image: {escape(page.score_name)} of that image alone. A click enlarges.</p>',
    ]
    split = len(page.worst)
    for title, cases, pictures in (("Worst", page.worst, uris[:split]), ("Best", page.best, uris[split:])):
        if pictures:
            parts.append(f"<h3>{title}</h3>")
            parts += [_figure(case, trio) for case, trio in zip(cases, pictures, strict=False)]
    if left_out:
        parts.append(f'<p class="note">{left_out} more images were left out to keep the page small.</p>')
    return "".join(parts) + "</section>\n"


def _figure(case: Case, trio: Sequence[str]) -> str:
    score = "not scored" if case.score is None else f"{case.score:.1f}"
    cells = "".join(
        f'<div><img src="{uri}" alt="{what} of {escape(case.name)}" loading="lazy"><p>{what}</p></div>'
        for uri, what in zip(trio, ("photo", "truth", "prediction"), strict=True)
    )
    caption = f"<figcaption><span>{escape(case.name)}</span><b>{score}</b></figcaption>"
    return f'<figure class="case">{caption}<div class="trio">{cells}</div></figure>'


def _encode(cases: Sequence[Case]) -> tuple[int, list[list[str]]]:
    return encode([(c.photo, c.truth, c.prediction) for c in cases])


def encode(rows: Sequence[Sequence[Image.Image]]) -> tuple[int, list[list[str]]]:
    """Rows of pictures as data URIs, at the largest size of STEPS that fits the budget; what fits at none is left out.

    Returns how many rows were kept, and their pictures.
    """
    encoded: list[list[bytes]] = []
    for side, quality in STEPS:
        encoded = [[_jpeg(p, side, quality) for p in row] for row in rows]
        if sum(len(data) for trio in encoded for data in trio) <= PICTURE_BUDGET:
            break
    total, kept = 0, []
    for trio in encoded:
        total += sum(map(len, trio))
        if total > PICTURE_BUDGET:
            break
        kept.append(["data:image/jpeg;base64," + base64.b64encode(data).decode() for data in trio])
    return len(kept), kept


def _jpeg(picture: Image.Image, side: int, quality: int) -> bytes:
    picture = picture.convert("RGB")
    if max(picture.size) > side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, optimize=True, subsampling=0 if max(picture.size) < 400 else 2)
    return buffer.getvalue()


def _end(page: Page) -> str:
    parts = []
    if page.spec:
        parts.append(f"<details><summary>Spec</summary><pre>{escape(page.spec)}</pre></details>")
    if page.versions:
        text = "\n".join(f"{name} {version}" for name, version in page.versions.items())
        parts.append(f"<details><summary>Versions</summary><pre>{escape(text)}</pre></details>")
    return f"<section><h2>How it was made</h2>{''.join(parts)}</section>" if parts else ""
