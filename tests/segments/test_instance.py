"""Instances equal the published rule with stuff left out before the choice of the best."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oneformer.segments import Rules, encoded_instances, instance, instances, resize
from oneformer.segments.rle import decode
from segments.plain import SIZES, plain_instances, random_case, rules_for


@pytest.mark.parametrize("sizes", [s for s in SIZES if s != "one pixel"])
@pytest.mark.parametrize("topk", [1, 10, 1000])
def test_instances_equal_the_plain_definition(sizes: str, topk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(resize.BAND_VALUES, "cpu", 5_000)
    case, rules = random_case(8, sizes=sizes), rules_for(7, topk=topk)
    expected = plain_instances(case, rules)
    found = instances(*case, **case.sizes, rules=rules)
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.scores, [score for _, score, _ in expected], rtol=2e-5)
    assert found.class_ids.tolist() == [class_id for class_id, _, _ in expected]
    for mask, (_, _, inside) in zip(found.masks, expected, strict=True):
        assert (mask != inside.numpy()).mean() < 1e-4


def test_stuff_takes_no_place_among_the_best() -> None:
    case = random_case(9)
    case.class_logits[:, 1] += 20  # class 1 is stuff and beats everything
    found = instances(*case, **case.sizes, rules=rules_for(7, topk=10))
    assert len(found) == 10
    assert set(found.class_ids.tolist()) <= {0, 2, 4, 6}


def test_boxes_are_tight_and_half_open() -> None:
    case = random_case(10)
    found = instances(*case, **case.sizes, rules=rules_for(7))
    for mask, (x0, y0, x1, y1) in zip(found.masks, found.boxes.astype(int), strict=True):
        rows, columns = np.nonzero(mask)
        assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_encoded_instances_are_the_same_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    case, rules = random_case(11), rules_for(7, topk=50)
    plain = instances(*case, **case.sizes, rules=rules)
    for budget in (1, 10**5, 2**26):
        monkeypatch.setattr(instance, "CHUNK_PIXELS", budget)
        found = encoded_instances(*case, **case.sizes, rules=rules)
        assert np.array_equal(np.stack([decode(rle) for rle in found.rles]), plain.masks)
        assert np.array_equal(found.class_ids, plain.class_ids)
        np.testing.assert_allclose(found.scores, plain.scores, rtol=1e-6)
        assert np.array_equal(found.boxes, plain.boxes)


def test_a_query_may_appear_under_several_classes() -> None:
    found = instances(
        torch.tensor([[3.0, 2.0, -5.0]]),
        torch.full((1, 4, 4), 5.0),
        **dict.fromkeys(SAME, (4, 4)),
        rules=Rules((True, True)),
    )
    assert found.class_ids.tolist() == [0, 1]
    assert (found.masks[0] == found.masks[1]).all()


SAME = ("input_size", "size", "original_size")


@pytest.mark.parametrize("is_thing", [(False, False), (True, True)])
def test_no_things_or_no_pixels_give_an_empty_result_of_the_right_shape(is_thing: tuple[bool, bool]) -> None:
    for function in (instances, encoded_instances):
        found = function(
            torch.zeros(2, 3), torch.full((2, 4, 4), -5.0), **dict.fromkeys(SAME, (4, 4)), rules=Rules(is_thing)
        )
        assert len(found) == 0
        assert found.boxes.shape == (0, 4)
    assert instances(
        torch.zeros(2, 3), torch.full((2, 4, 4), -5.0), **dict.fromkeys(SAME, (4, 4)), rules=Rules(is_thing)
    ).masks.shape == (0, 4, 4)
