"""Claims about the charts drawn from metrics.csv."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest

from oneformer.report.curves import MAX_POINTS, charts, line_chart, number_text, read_series, ticks


def test_a_metrics_file_becomes_points_and_gaps_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(
        "epoch,step,train_loss,PQ\n0,10,5.5,\n0,20,nan,12\n1,30,4.5,broken\n1,40,4.0,20\n", encoding="utf-8"
    )
    series = read_series(path)
    assert series["train_loss"] == [(10, 5.5), (30, 4.5), (40, 4.0)]
    assert series["PQ"] == [(20, 12), (40, 20)]


def test_each_known_group_gets_a_chart_that_is_well_formed() -> None:
    series = {
        "train_loss": [(1, 5.0), (2, 4.0)],
        "lr": [(1, 1e-4), (2, 5e-5)],
        "mIoU": [(1, 10.0), (2, 20.0)],
        "alone": [(1, 1.0)],
    }
    made = charts(series)
    assert [c.title for c in made] == ["Training loss", "Validation scores", "Learning rate"]
    for chart in made:
        svg = ET.fromstring(chart.svg[: chart.svg.index("</svg>") + 6])
        assert len(svg.findall("polyline")) == 1
        assert all(c.findtext("title") for c in svg.findall("circle"))


def test_names_are_escaped() -> None:
    svg = line_chart({'<u>"': [(0, 1.0), (1, 2.0)]}, label="<s>")
    assert "<u>" not in svg and "<s>" not in svg


def test_long_runs_are_thinned_without_losing_their_ends() -> None:
    points = [(float(i), float(i)) for i in range(10_000)]
    svg = line_chart({"x": points}, label="x")
    assert svg.count("<circle") <= MAX_POINTS
    assert svg.count("<circle") > MAX_POINTS / 2


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-3.2, 7.9), (5.0, 5.0), (0.0, 0.0), (1e-6, 3e-6), (12_345.0, 98_765.0)]
)
def test_ticks_are_round_and_cover_the_data(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found[0] <= low and found[-1] >= high
    assert 2 <= len(found) <= 12
    steps = {round((b - a) / (found[1] - found[0]), 6) for a, b in pairwise(found)}
    assert steps == {1.0}


@pytest.mark.parametrize(
    ("value", "spread", "text"),
    [(0, 1, "0"), (12.5, 100, "12"), (0.25, 1, "0.2"), (2e-5, 1e-4, "2e-5"), (0.004, 0.01, "0.004")],
)
def test_axis_numbers_carry_the_digits_they_need(value: float, spread: float, text: str) -> None:
    assert number_text(value, spread) == text
