"""Claims about the progress line."""

from __future__ import annotations

import logging

import pytest

from oneformer.predict.progress import Progress


def test_the_line_tells_place_speed_and_time_left() -> None:
    now = [0.0]
    progress = Progress("evaluate", 40, clock=lambda: now[0])
    now[0] = 5.0
    progress.add(10)
    assert progress.text() == "evaluate 10/40 images  2.00 images/s  eta 0:00:15"
    assert progress.seconds == 5.0


def test_elsewhere_than_on_a_terminal_it_is_a_log_line_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    with (
        caplog.at_level(logging.INFO, logger="oneformer"),
        Progress("inference", 100, clock=lambda: now[0]) as progress,
    ):
        for _ in range(100):
            now[0] += 1.0
            progress.add(1)
    assert len(caplog.records) == 10
    assert "100/100" in caplog.records[-1].message


def test_before_the_first_image_nothing_is_promised() -> None:
    assert Progress("x", 5).eta_s == 0.0
