"""Mask AP on things: crowd excuses, stuff is left out, empty sets have defined scores."""

from __future__ import annotations

import numpy as np

from oneformer.metrics.ap import KEYS, MaskAP
from oneformer.metrics.pq import MapSegments
from oneformer.segments.rle import encode
from oneformer.segments.types import EncodedInstances


def found(*items: tuple[np.ndarray, int, float]) -> EncodedInstances:
    return EncodedInstances(
        tuple(encode(mask) for mask, _, _ in items),
        np.array([c for _, c, _ in items], dtype=np.int64),
        np.array([s for _, _, s in items], dtype=np.float32),
        np.zeros((len(items), 4), dtype=np.float32),
    )


TRUTH = np.zeros((40, 40), dtype=np.int32)
TRUTH[:10, :10] = 1
TRUTH[20:, :] = 2
TRUTH[:10, 20:] = 3
SEGMENTS = MapSegments.of([1, 2, 3], [0, 1, 0], [False, False, True])  # thing, stuff, crowd of the thing


def test_a_perfect_instance_scores_100_and_stuff_is_not_asked_for() -> None:
    metric = MaskAP((True, False))
    metric.update("x", found((TRUTH == 1, 0, 0.9)), truth=TRUTH, truth_segments=SEGMENTS)
    scores = metric.compute(("thing", "stuff"))
    assert scores["AP"] == scores["AP50"] == scores["AP75"] == scores["APs"] == 100.0
    assert scores["APm"] is None
    assert scores["APl"] is None
    assert list(scores["per_class"]) == ["thing"]
    assert scores["per_class"]["thing"]["n"] == 1


def test_a_detection_on_crowd_is_no_false_alarm_and_one_elsewhere_is() -> None:
    crowd, elsewhere = TRUTH == 3, TRUTH == 2
    for mask, expected in ((crowd, 100.0), (elsewhere, 50.0)):
        metric = MaskAP((True, False))
        metric.update("x", found((mask, 0, 0.95), (TRUTH == 1, 0, 0.9)), truth=TRUTH, truth_segments=SEGMENTS)
        assert metric.compute(("thing", "stuff"))["AP50"] == expected


def test_no_detection_scores_0() -> None:
    metric = MaskAP((True, False))
    metric.update("x", found(), truth=TRUTH, truth_segments=SEGMENTS)
    assert metric.compute(("thing", "stuff"))["AP"] == 0.0


def test_without_truth_there_is_no_score() -> None:
    for is_thing in ((True, False), (False, False)):
        metric = MaskAP(is_thing)
        assert [metric.compute(("thing", "stuff"))[key] for key in KEYS] == [None] * 6
        metric.update(
            "x", found((TRUTH == 1, 0, 0.9)), truth=np.zeros_like(TRUTH), truth_segments=MapSegments.of([], [])
        )
        assert [metric.compute(("thing", "stuff"))[key] for key in KEYS] == [None] * 6


def test_an_image_given_twice_counts_once() -> None:
    metric = MaskAP((True, False))
    for _ in range(2):
        metric.update("x", found((TRUTH == 1, 0, 0.9)), truth=TRUTH, truth_segments=SEGMENTS)
    assert metric.compute(("thing", "stuff"))["per_class"]["thing"]["n"] == 1
