"""What the progress line knows of waiting for batches."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest

from oneformer.data.loader import TrainSamples
from oneformer.train import progress
from oneformer.train.progress import STEPS_TO_JUDGE, Waiting
from train.small import small_data, train_small


def run(waiting: Waiting, *, wait: float, work: float, steps: int) -> list[int]:
    """The steps at which it had to be told."""
    now, told = 0.0, []
    for step in range(steps):
        waiting.begin(now := now + wait)
        if waiting.end(now := now + work):
            told.append(step)
    return told


def test_waiting_longer_than_working_is_told_once_after_some_steps() -> None:
    waiting = Waiting()
    assert run(waiting, wait=3.0, work=1.0, steps=100) == [STEPS_TO_JUDGE]  # the first step does not count
    assert waiting.share == pytest.approx(0.75)
    assert waiting.advice(2).startswith("training waits for its images 75 % of the time: more than 2 loader processes")


def test_working_longer_than_waiting_is_not_told() -> None:
    assert run(Waiting(), wait=1.0, work=3.0, steps=100) == []


def test_pauses_and_the_first_batch_after_them_do_not_count() -> None:
    waiting = Waiting()
    for _ in range(3):
        waiting.pause()
        run(waiting, wait=0.0, work=1.0, steps=STEPS_TO_JUDGE)
        waiting.begin(1e6)  # what is behind the last step is a pause too
        waiting.pause()
    assert waiting.worked > 0
    fresh = Waiting()
    fresh.begin(100.0)
    assert not fresh.end(101.0) and fresh.waited == 0.0


def test_a_training_on_slow_files_says_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    quick = TrainSamples.__getitem__

    def slow(self: TrainSamples, key: Any) -> Any:
        time.sleep(0.5)
        return quick(self, key)

    monkeypatch.setattr(TrainSamples, "__getitem__", slow)
    monkeypatch.setattr(progress, "STEPS_TO_JUDGE", 2)
    with caplog.at_level(logging.WARNING):
        train_small(small_data(tmp_path), tmp_path, "train.num_epochs=1", "dataset.val.annotations=''")
    said = [record.message for record in caplog.records if "waits for its images" in record.message]
    assert len(said) == 1 and "more than 0 loader processes" in said[0] and "dataset.train.num_workers" in said[0]
