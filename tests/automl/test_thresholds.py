"""Thresholds that suit a network better: never worse on the images they are chosen by, refused where they do not hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from oneformer.automl import thresholds
from oneformer.automl.thresholds import CHOSEN, TOLD, TRIED, tuned
from oneformer.spec.model import TestSpec

BOTH = ("panoptic", "instance")


def scores(test: TestSpec, tasks: tuple[str, ...], half: int, *, fair: bool = True) -> dict[str, float]:
    """Best at 0.6, 0.7 and masks from 0.4 on; on the other half only if that is `fair`."""
    sign = 1.0 if half == CHOSEN or fair else -1.0
    apart = abs(test.object_mask_threshold - 0.6) + abs(test.overlap_threshold - 0.7)
    mask = abs(test.mask_threshold - 0.4)
    found = {
        "panoptic": 50 - sign * 10 * (apart + mask),
        "instance": 30 - sign * (mask - test.test_topk_per_image / 1e4),
    }
    return {task: found[task] for task in tasks}


def test_the_best_thresholds_are_found_one_after_the_other() -> None:
    found = tuned(TestSpec(), BOTH, scores)
    assert found.changed == {
        "model.test.object_mask_threshold": 0.6, "model.test.overlap_threshold": 0.7,
        "model.test.mask_threshold": 0.4, "model.test.test_topk_per_image": 250,
    }  # fmt: skip
    assert found.kept and found.after[CHOSEN]["panoptic"] == pytest.approx(50)
    assert found.tried < 100, "seconds of post-processing, not a search of its own"


def test_nothing_gets_worse_and_what_is_best_already_stays() -> None:
    best = TestSpec(0.6, 0.7, 250, 0.4)
    found = tuned(best, BOTH, scores)
    assert found.changed == {} and not found.kept and found.after == found.before

    def torn(test: TestSpec, tasks: tuple[str, ...], half: int) -> dict[str, float]:
        both = {"panoptic": test.mask_threshold, "instance": -test.mask_threshold}
        return {task: both[task] for task in tasks}

    assert tuned(TestSpec(), BOTH, torn).changed == {}, "one score may not pay for another"
    assert tuned(TestSpec(), ("panoptic",), torn).changed == {"model.test.mask_threshold": 0.7}


def test_only_thresholds_of_the_tasks_that_are_there_are_tried() -> None:
    asked: set[tuple[str, ...]] = set()

    def score(test: TestSpec, tasks: tuple[str, ...], half: int) -> dict[str, float]:
        asked.add(tasks)
        return scores(test, tasks, half)

    assert set(tuned(TestSpec(), ("instance",), score).changed) == {
        "model.test.mask_threshold", "model.test.test_topk_per_image",
    }  # fmt: skip
    assert asked == {("instance",)}


def test_what_does_not_hold_on_other_images_is_told_and_not_handed_over(tmp_path: Path) -> None:
    def unfair(test: TestSpec, tasks: tuple[str, ...], half: int) -> dict[str, float]:
        return scores(test, tasks, half, fair=False)

    found = tuned(TestSpec(), BOTH, unfair)
    assert found.changed and not found.kept and found.after[TOLD]["panoptic"] < found.before[TOLD]["panoptic"]
    told = thresholds.write(tmp_path, found, {"digest": "abc"})
    assert not told["handed_over"] and thresholds.thresholds_of(tmp_path, "abc") == {}
    thresholds.write(tmp_path, tuned(TestSpec(), BOTH, scores), {"digest": "abc"})
    assert thresholds.thresholds_of(tmp_path, "abc")["model.test.mask_threshold"] == 0.4
    assert thresholds.thresholds_of(tmp_path, "of another checkpoint") == {}
    assert thresholds.thresholds_of(tmp_path / "none", "abc") == {}


def test_what_is_tried_may_be_set() -> None:
    from oneformer.spec.load import load_spec

    for name, (_, values) in TRIED.items():
        for value in (values[0], values[-1]):
            load_spec(None, [f"model.test.{name}={value}"], action="train")
