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


def decided_case(kept: int, *, sizes: str, queries: int = 60, classes: int = 80):
    """`kept` confident queries; the others are nearly sure of "no object"."""
    case = random_case(8, sizes=sizes, queries=queries, classes=classes)
    case.class_logits[:, -1] += 8
    case.class_logits[:kept, -1] -= 10
    case.class_logits[range(kept), torch.randint(0, classes, (kept,))] += 9
    return case


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("contenders", [1, 5, 24, 80])
def test_a_decided_network_gets_the_same_map_by_bounds(
    sizes: str, contenders: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = decided_case(9, sizes=sizes)
    monkeypatch.setattr(semantic, "CONTENDERS", contenders)
    monkeypatch.setattr(semantic, "WORTHWHILE_SHARE", 1.0)  # every open pixel is scored
    monkeypatch.setattr(semantic, "CHUNK_VALUES", 5000)
    monkeypatch.setattr(semantic, "_in_full", None)
    assert_argmax(torch.from_numpy(semantic_map(*case, **case.sizes)), plain_semantic(case))


def test_an_undecided_network_is_scored_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(9, queries=40, classes=20)
    case.class_logits *= 0.2
    seen = []
    monkeypatch.setattr(semantic, "_in_full", lambda *given, known=semantic._in_full: seen.append(1) or known(*given))
    assert_argmax(torch.from_numpy(semantic_map(*case, **case.sizes)), plain_semantic(case))
    assert seen


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
