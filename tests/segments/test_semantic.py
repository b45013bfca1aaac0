"""The semantic map is the argmax of class x mask probability at the photo's size."""

from __future__ import annotations

import pytest
import torch

from oneformer.segments import resize, semantic, semantic_map
from segments.plain import SIZES, plain_semantic, random_case


def assert_argmax(found: torch.Tensor, scores: torch.Tensor) -> None:
    """Equal to the argmax wherever the two best scores differ by more than float32 rounding."""
    chosen = scores.gather(0, found[None].long())[0]
    assert (scores.max(0).values - chosen).max() < 1e-5
    sure = scores.shape[0] == 1 or (scores.topk(2, dim=0).values.diff(dim=0)[0].abs() > 1e-4).float().mean() > 0.95
    assert sure


@pytest.mark.parametrize("sizes", SIZES)
def test_the_map_is_the_argmax_of_the_plain_definition(sizes: str) -> None:
    case = random_case(4, sizes=sizes)
    found = semantic_map(*case, **case.sizes)
    assert found.shape == case.sizes["original_size"]
    assert_argmax(torch.from_numpy(found), plain_semantic(case))


@pytest.mark.parametrize("strength", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("contenders", [1, 5, 24])
def test_trying_few_classes_first_changes_nothing(
    strength: float, contenders: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = random_case(5, queries=40, classes=80)
    case.class_logits *= strength  # 0: all classes alike; 3: decided
    monkeypatch.setattr(semantic, "CONTENDERS", contenders)
    monkeypatch.setitem(resize.BAND_VALUES, "cpu", 40_000)
    found = torch.from_numpy(semantic_map(*case, **case.sizes))
    scores = plain_semantic(case)
    chosen = scores.gather(0, found[None].long())[0]
    assert (scores.max(0).values - chosen).max() < 1e-5


def test_a_few_undecided_pixels_are_scored_for_all_classes() -> None:
    torch.manual_seed(0)
    weights, inside = torch.rand(60, 10), torch.rand(4, 10, 50)
    best = (weights @ inside).max(1)
    ceilings = torch.full((60,), best.values.quantile(0.1).item())  # one pixel in ten cannot be sure
    ceilings[best.indices.unique()] = 100.0
    assert len(best.indices.unique()) < semantic.CONTENDERS
    assert torch.equal(semantic._best_of_few(weights, inside, ceilings), best.indices.int())
    assert semantic._best_of_few(weights, inside, ceilings * 1000) is None, "where nothing is sure it does not pay"


def test_one_class_fills_the_map() -> None:
    case = random_case(6, classes=1)
    assert (semantic_map(*case, **case.sizes) == 0).all()


def test_equal_scores_go_to_the_first_class() -> None:
    found = semantic_map(
        torch.zeros(3, 61), torch.zeros(3, 8, 8), input_size=(32, 32), size=(32, 32), original_size=(20, 30)
    )
    assert (found == 0).all()


def test_half_precision_logits_are_accepted() -> None:
    case = random_case(7)
    found = semantic_map(case.class_logits.bfloat16(), case.mask_logits.bfloat16(), **case.sizes)
    assert (found == semantic_map(*case, **case.sizes)).mean() > 0.9
