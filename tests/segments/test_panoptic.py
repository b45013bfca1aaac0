"""Panoptic results equal the published rule, written as a loop over queries in plain.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oneformer.segments import Rules, panoptic, resize
from segments.plain import SIZES, plain_panoptic, random_case, rules_for


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
def test_map_and_segments_equal_the_loop_over_queries(
    sizes: str, overlap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(resize.BAND_VALUES, "cpu", 5_000)
    some = 0
    for seed in range(6):
        case = random_case(seed, sizes=sizes, queries=(4, 30)[seed % 2])
        rules = rules_for(7, object_mask_threshold=0.4, overlap_threshold=overlap)
        ids, segments = plain_panoptic(case, rules)
        result = panoptic(*case, **case.sizes, rules=rules)
        assert result.map.dtype == np.int32
        # A pixel may change hands where two queries are equal up to float32 rounding; none does with these seeds.
        assert np.array_equal(result.map, ids.numpy())
        assert [{"id": s.id, "class_id": s.class_id, "isthing": s.isthing} for s in result.segments] == segments
        assert [s.area for s in result.segments] == [int((ids == s.id).sum()) for s in result.segments]
        some += len(segments)
    assert some > 0 or sizes == "one pixel"


def square_case(
    *boxes: tuple[int, int, int, int], classes: list[int], num_classes: int = 3
) -> tuple[torch.Tensor, torch.Tensor]:
    """Confident queries with rectangular masks y0 y1 x0 x1 on a 20 x 20 photo without any resizing."""
    masks = torch.full((len(boxes), 20, 20), -10.0)
    logits = torch.full((len(boxes), num_classes + 1), -10.0)
    for i, (y0, y1, x0, x1) in enumerate(boxes):
        masks[i, y0:y1, x0:x1] = 10.0 - i  # the first query wins where two overlap
        logits[i, classes[i]] = 10.0
    return logits, masks


SAME = {"input_size": (20, 20), "size": (20, 20), "original_size": (20, 20)}


def test_stuff_of_one_class_is_one_segment_and_things_stay_apart() -> None:
    logits, masks = square_case((0, 5, 0, 5), (0, 5, 10, 15), (10, 15, 0, 5), (10, 15, 10, 15), classes=[1, 1, 0, 0])
    result = panoptic(logits, masks, **SAME, rules=Rules((True, False, True)))
    assert [(s.id, s.class_id, s.area) for s in result.segments] == [(1, 1, 50), (2, 0, 25), (3, 0, 25)]
    assert result.map[2, 2] == result.map[2, 12] == 1
    assert result.map[12, 2] == 2
    assert result.map[7, 7] == 0


def test_a_segment_that_keeps_exactly_the_threshold_share_stays() -> None:
    logits, masks = square_case((0, 2, 0, 10), (0, 10, 0, 10), classes=[0, 2])  # the second keeps 80 of 100 pixels
    kept = panoptic(logits, masks, **SAME, rules=Rules((True,) * 3, overlap_threshold=0.8))
    assert [s.class_id for s in kept.segments] == [0, 2]
    dropped = panoptic(logits, masks, **SAME, rules=Rules((True,) * 3, overlap_threshold=0.81))
    assert [s.class_id for s in dropped.segments] == [0]
    assert dropped.map[5, 5] == 0, "pixels of a dropped query are void, they do not fall to the next one"


def test_no_object_queries_and_weak_ones_make_no_segment() -> None:
    logits, masks = square_case((0, 5, 0, 5), (10, 15, 0, 5), classes=[3, 0])
    logits[1] = torch.tensor([0.5, 0.0, 0.0, 0.0])  # best class, but far below the threshold
    result = panoptic(logits, masks, **SAME, rules=Rules((True,) * 3))
    assert result.segments == ()
    assert not result.map.any()


def test_a_query_with_its_best_column_no_object_is_dropped_however_good_its_best_class() -> None:
    logits, masks = square_case((0, 5, 0, 5), classes=[0])
    logits[0] = torch.tensor([2.0, -9.0, -9.0, 2.3])
    result = panoptic(logits, masks, **SAME, rules=Rules((True,) * 3, object_mask_threshold=0.1))
    assert result.segments == ()


def test_an_empty_mask_makes_no_segment() -> None:
    logits, masks = square_case((0, 0, 0, 0), classes=[0])
    result = panoptic(logits, masks, **SAME, rules=Rules((True,) * 3))
    assert result.segments == ()


def test_the_score_of_merged_stuff_is_its_best_query() -> None:
    logits, masks = square_case((0, 5, 0, 5), (0, 5, 10, 15), classes=[1, 1])
    logits[0, 1] = -7.5
    result = panoptic(logits, masks, **SAME, rules=Rules((True, False, True)))
    assert len(result.segments) == 1
    assert result.segments[0].score == pytest.approx(1.0, abs=1e-4)
