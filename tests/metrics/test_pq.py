"""Panoptic quality by hand: matches, void, crowd, and what is empty."""

from __future__ import annotations

import numpy as np
import pytest

from metrics.scenes import IS_THING, NAMES, random_scene
from oneformer.metrics.pq import MapSegments, PanopticQuality


def strips(*parts: tuple[int, int]) -> np.ndarray:
    """Ids of a one-row map: (id, pixels) from left to right."""
    return np.concatenate([np.full(pixels, segment_id, dtype=np.int32) for segment_id, pixels in parts])[None]


def score(truth: np.ndarray, segments: MapSegments, predicted: np.ndarray, found: MapSegments) -> list[int]:
    quality = PanopticQuality((True, False))
    quality.update(predicted, found, truth=truth, truth_segments=segments)
    return quality.compute(("a", "b"))["per_class"]["a"]


def test_a_match_counts_its_iou() -> None:
    found = score(strips((1, 10)), MapSegments.of([1], [0]), strips((5, 8), (0, 2)), MapSegments.of([5], [0]))
    assert (found["tp"], found["fp"], found["fn"]) == (1, 0, 0)
    assert found["PQ"] == pytest.approx(80)


def test_half_overlap_is_no_match() -> None:
    found = score(strips((1, 10)), MapSegments.of([1], [0]), strips((5, 5), (0, 5)), MapSegments.of([5], [0]))
    assert (found["tp"], found["fp"], found["fn"]) == (0, 1, 1)
    assert (found["PQ"], found["SQ"], found["RQ"]) == (0.0, 0.0, 0.0)


def test_void_pixels_do_not_count_in_the_union() -> None:
    found = score(strips((1, 10), (0, 9)), MapSegments.of([1], [0]), strips((5, 19)), MapSegments.of([5], [0]))
    assert found["PQ"] == pytest.approx(100)


def test_another_class_is_a_miss_and_a_false_alarm() -> None:
    quality = PanopticQuality((True, False))
    image = quality.update(
        strips((5, 10)), MapSegments.of([5], [1]), truth=strips((1, 10)), truth_segments=MapSegments.of([1], [0])
    )
    scores = quality.compute(("a", "b"))
    assert image == 0.0
    assert (scores["per_class"]["a"]["fn"], scores["per_class"]["b"]["fp"]) == (1, 1)
    assert scores["all"] == {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0, "n": 2}


@pytest.mark.parametrize(("on_void", "alarms"), [(5, 1), (6, 0)])
def test_a_prediction_mostly_on_void_is_no_false_alarm(on_void: int, alarms: int) -> None:
    truth, segments = strips((0, on_void), (1, 110 - on_void)), MapSegments.of([1], [0])
    predicted = strips((5, 10), (6, 100))
    found = score(truth, segments, predicted, MapSegments.of([5, 6], [0, 0]))
    assert (found["tp"], found["fp"], found["fn"]) == (1, alarms, 0)


def test_crowd_of_the_class_excuses_a_prediction_and_is_never_missed() -> None:
    truth, segments = strips((1, 10), (2, 10)), MapSegments.of([1, 2], [0, 0], [True, False])
    predicted = strips((5, 10), (6, 10))
    found = score(truth, segments, predicted, MapSegments.of([5, 6], [0, 0]))
    assert (found["tp"], found["fp"], found["fn"]) == (1, 0, 0)
    other = score(truth, segments, predicted, MapSegments.of([5, 6], [1, 0]))
    assert (other["tp"], other["fp"], other["fn"]) == (1, 0, 0)


def test_all_crowd_segments_of_a_class_count_not_only_the_last() -> None:
    truth = strips((1, 4), (2, 4), (3, 12))
    segments = MapSegments.of([1, 2, 3], [0, 0, 0], [True, True, False])
    predicted, found = strips((5, 10), (6, 10)), MapSegments.of([5, 6], [0, 0])
    # 8 of 10 pixels of segment 5 lie on two crowds of 4 each; one of them alone would not excuse it.
    assert score(truth, segments, predicted, found)["fp"] == 0
    one = MapSegments.of([1, 2, 3], [0, 1, 0], [True, True, False])
    assert score(truth, one, predicted, found)["fp"] == 1


def test_a_perfect_prediction_scores_100() -> None:
    scene = random_scene(3, crowds=False)
    segments = MapSegments.of([s.segment_id for s in scene.truth_segments], [s.class_id for s in scene.truth_segments])
    quality = PanopticQuality(IS_THING)
    assert quality.update(scene.truth, segments, truth=scene.truth, truth_segments=segments) == 100.0
    scores = quality.compute(NAMES)
    assert scores["all"]["PQ"] == scores["all"]["SQ"] == scores["all"]["RQ"] == 100.0
    assert scores["per_class"]["never seen"]["PQ"] is None


def test_nothing_in_truth_or_prediction_gives_no_score() -> None:
    nothing, empty = np.zeros((3, 4), dtype=np.int32), MapSegments.of([], [])
    quality = PanopticQuality(IS_THING)
    assert quality.update(nothing, empty, truth=nothing, truth_segments=empty) is None
    scores = quality.compute(NAMES)
    assert scores["all"] == scores["things"] == scores["stuff"] == {"PQ": None, "SQ": None, "RQ": None, "n": 0}


def test_no_prediction_misses_everything_but_crowd() -> None:
    truth, segments = strips((1, 5), (2, 5)), MapSegments.of([1, 2], [0, 0], [False, True])
    found = score(truth, segments, np.zeros((1, 10), np.int32), MapSegments.of([], []))
    assert (found["tp"], found["fp"], found["fn"]) == (0, 0, 1)


def test_a_prediction_on_an_image_of_void_is_not_scored() -> None:
    found = score(np.zeros((1, 10), np.int32), MapSegments.of([], []), strips((5, 10)), MapSegments.of([5], [0]))
    assert (found["tp"], found["fp"], found["fn"], found["PQ"]) == (0, 0, 0, None)


def test_a_listed_segment_without_pixels_is_ignored() -> None:
    found = score(strips((1, 10)), MapSegments.of([1, 9], [0, 0]), strips((5, 10)), MapSegments.of([5, 8], [0, 0]))
    assert (found["tp"], found["fp"], found["fn"]) == (1, 0, 0)
