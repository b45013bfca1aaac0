"""The `metrics.csv` of a training run -> inline SVG line charts (losses, learning rate, speed, validation scores).

The SVG carries no colours of its own: the page's style sheet names them (`.s0` .. `.s7`), so that one drawing serves
light and dark.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

Points = list[tuple[float, float]]

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 12, 34
MAX_POINTS = 240  # a line of 500 pixels shows no more; further rows are averaged in equal groups
MAX_SERIES = 8  # more lines than colours cannot be told apart

# Columns of metrics.csv that belong in one picture.
GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Training loss", ("loss", "train_loss")),
    ("Loss parts", ("loss_ce", "loss_mask", "loss_dice", "loss_contrastive")),
    ("Validation scores", ("mIoU", "PQ", "PQ_things", "PQ_stuff", "AP", "AP50", "ACC_all")),
    ("Learning rate", ("lr", "lr_backbone")),
    ("Gradient norm", ("grad_norm",)),
    ("Images per second", ("images_per_s",)),
    ("Memory (MiB)", ("memory_mib",)),
)
STEP_NAMES = ("step", "global_step", "iteration")


@dataclass(frozen=True)
class Chart:
    """A title and its drawing, ready to stand in a page."""

    title: str
    svg: str


def read_series(path: Path) -> dict[str, Points]:
    """Columns of a metrics file as (step, value) points; empty, unreadable and non-finite cells are left out."""
    series: dict[str, Points] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file)):
            step = next((s for name in STEP_NAMES if (s := _number(row.get(name))) is not None), float(number))
            for name, text in row.items():
                value = _number(text)
                if name and name not in STEP_NAMES and value is not None:
                    series.setdefault(name, []).append((step, value))
    return series


def charts(series: Mapping[str, Points]) -> list[Chart]:
    """One chart per group that has at least one line of two points."""
    made = []
    for title, names in GROUPS:
        lines = {name: series[name] for name in names if len(series.get(name, ())) > 1}
        if lines:
            made.append(Chart(title, line_chart(lines, label=title)))
    return made


def line_chart(lines: Mapping[str, Points], *, label: str, x_label: str = "step") -> str:
    """Lines over a shared x axis as one SVG element with grid, ticks, a legend and a hover text at each point."""
    shown = {name: _thin(sorted(points)) for name, points in list(lines.items())[:MAX_SERIES]}
    xs = [x for points in shown.values() for x, _ in points]
    ys = [y for points in shown.values() for _, y in points]
    x_ticks, y_ticks = ticks(min(xs), max(xs)), ticks(min(ys), max(ys))
    box = _Box(min(xs), max(xs), min(y_ticks[0], *ys), max(y_ticks[-1], *ys))
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}" class="chart">']
    parts += [_grid_y(box, y, y_ticks) for y in y_ticks]
    parts += [_tick_x(box, x, x_ticks) for x in x_ticks]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle:.0f}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>')
    for number, (name, points) in enumerate(shown.items()):
        path = " ".join(f"{box.x(x):.1f},{box.y(y):.1f}" for x, y in points)
        parts.append(f'<polyline class="line s{number}" points="{path}"/>')
        parts += [_dot(box, name, number, point) for point in points]
    parts.append("</svg>")
    return "".join(parts) + _keys(shown)


def ticks(low: float, high: float, *, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) from at most `low` to at least `high`."""
    if not high > low:
        pad = abs(low) * 0.5 or 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 5) if m * power >= raw * 0.999), 10 * power)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def number_text(value: float, spread: float) -> str:
    """A number with as many digits as the spread of its axis needs; very large and very small ones in powers of ten."""
    if value == 0:
        return "0"
    if abs(value) >= 1e5 or abs(value) < 1e-3:
        return f"{value:.2g}".replace("e-0", "e-").replace("e+0", "e+")
    digits = max(0, min(6, 1 - math.floor(math.log10(abs(spread) or 1))))
    return f"{value:.{digits}f}"


@dataclass(frozen=True)
class _Box:
    """The data's rectangle and its place in the drawing."""

    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.x0) / ((self.x1 - self.x0) or 1.0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y0) / ((self.y1 - self.y0) or 1.0) * (HEIGHT - TOP - BOTTOM)


def _grid_y(box: _Box, value: float, all_ticks: Sequence[float]) -> str:
    y = box.y(value)
    text = number_text(value, all_ticks[-1] - all_ticks[0])
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="axis" x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>'
    )


def _tick_x(box: _Box, value: float, all_ticks: Sequence[float]) -> str:
    if not box.x0 <= value <= box.x1:
        return ""
    text = f"{value:.0f}" if all(float(t).is_integer() for t in all_ticks) else f"{value:g}"
    return f'<text class="axis" x="{box.x(value):.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{text}</text>'


def _dot(box: _Box, name: str, number: int, point: tuple[float, float]) -> str:
    x, y = point
    title = escape(f"{name} {y:.5g} at step {x:.0f}")
    return (
        f'<circle class="dot s{number}" cx="{box.x(x):.1f}" cy="{box.y(y):.1f}" r="4"><title>{title}</title></circle>'
    )


def _keys(lines: Mapping[str, Points]) -> str:
    items = (
        f'<span class="key"><i class="s{i}"></i>{escape(name)} <b>{points[-1][1]:.4g}</b></span>'
        for i, (name, points) in enumerate(lines.items())
    )
    return f'<p class="keys">{"".join(items)}</p>'


def _thin(points: Points) -> Points:
    """At most MAX_POINTS points: neighbours averaged in equal groups, so a spike still lifts its group."""
    if len(points) <= MAX_POINTS:
        return points
    size = math.ceil(len(points) / MAX_POINTS)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _number(text: object) -> float | None:
    if not isinstance(text, str) or not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
