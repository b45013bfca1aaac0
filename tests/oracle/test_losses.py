"""Same predictions, truth and points into Hugging Face transformers' OneFormer loss and ours -> the same numbers.

Where the two differ on purpose, a test is named after the difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from loss.batches import CLASSES, leaf, leaves, random_decoded, random_target, small_spec, some_points
from oneformer.data.sample import Target
from oneformer.errors import WorkError
from oneformer.loss.total import Criterion
from oneformer.model.decoder import Decoded
from oracle.same_points import SamePoints

hf = pytest.importorskip("transformers.models.oneformer.modeling_oneformer")
THEIR_NAMES = {"loss_ce": "loss_cross_entropy", "loss_mask": "loss_mask", "loss_dice": "loss_dice"}


def their_criterion(points: int = 48) -> torch.nn.Module:
    return hf.OneFormerLoss(
        num_classes=CLASSES,
        matcher=hf.OneFormerHungarianMatcher(2.0, 5.0, 5.0, num_points=points),
        weight_dict={},
        eos_coef=0.1,
        num_points=points,
        oversample_ratio=3.0,
        importance_sample_ratio=0.75,
        contrastive_temperature=0.07,
    )


def their_losses(criterion: torch.nn.Module, decoded: Decoded, targets: Sequence[Target], texts: Tensor) -> dict:
    auxiliary = [{"class_queries_logits": c, "masks_queries_logits": m} for c, m in decoded.auxiliary]
    return criterion(
        decoded.mask_logits,
        decoded.class_logits,
        decoded.queries,
        [t.masks.float() for t in targets],
        [t.labels for t in targets],
        texts,
        auxiliary,
    )


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], *, layers: int) -> None:
    for suffix in ["", *(f"_{n}" for n in range(layers - 1))]:
        for name, their_name in THEIR_NAMES.items():
            message = f"{name}{suffix}"
            expected = theirs[their_name + suffix].reshape(())
            torch.testing.assert_close(
                ours[message], expected, rtol=1e-4, atol=1e-6, msg=lambda m, n=message: f"{n}: {m}"
            )
    torch.testing.assert_close(ours["loss_contrastive"], theirs["loss_contrastive"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("counts", [(3, 2), (1, 6), (9, 4), (0, 3), (0, 0)])
def test_losses_and_gradients_equal_theirs_at_the_same_points(
    counts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    targets = [random_target(n) for n in counts]
    decoded, texts = random_decoded(len(counts)), leaf(len(counts), 7, 16)
    points = [some_points(t) for t in targets]
    ours = Criterion(small_spec())(decoded, targets, texts, points=points)
    monkeypatch.setattr(hf, "torch", SamePoints(points, [min(7, n) for n in counts]))
    theirs = their_losses(their_criterion(), decoded, targets, texts)
    assert_same(ours, theirs, layers=3)
    inputs = [*leaves(decoded), texts]
    found = torch.autograd.grad(sum(v for name, v in ours.items() if name != "loss"), inputs)
    expected = torch.autograd.grad(sum(theirs.values()), inputs)
    for ours_grad, theirs_grad in zip(found, expected, strict=True):
        torch.testing.assert_close(ours_grad, theirs_grad, rtol=1e-3, atol=1e-6)


def test_losses_equal_theirs_with_the_published_number_of_points(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    targets = [random_target(5, (128, 160)), random_target(12, (128, 160))]
    decoded, texts = random_decoded(2, queries=20, layers=2, size=(32, 40)), leaf(2, 20, 16)
    points = [some_points(t, 12544) for t in targets]
    ours = Criterion(small_spec(12544))(decoded, targets, texts, points=points)
    monkeypatch.setattr(hf, "torch", SamePoints(points, [5, 12]))
    assert_same(ours, their_losses(their_criterion(12544), decoded, targets, texts), layers=2)


def test_with_one_layer_image_and_object_the_same_seed_gives_their_losses() -> None:
    targets, decoded, texts = [random_target(1)], random_decoded(1, layers=1), leaf(1, 7, 16)
    torch.manual_seed(11)
    ours = Criterion(small_spec())(decoded, targets, texts)
    torch.manual_seed(11)
    assert_same(ours, their_losses(their_criterion(), decoded, targets, texts), layers=1)


def test_the_learned_scale_starts_and_learns_as_theirs() -> None:
    torch.manual_seed(0)
    targets, decoded, texts = [random_target(1), random_target(1)], random_decoded(2), leaf(2, 7, 16)
    sides = Criterion(small_spec()), their_criterion()
    losses = sides[0](decoded, targets, texts), their_losses(sides[1], decoded, targets, texts)
    ours, theirs = (
        torch.autograd.grad(loss["loss_contrastive"], side.logit_scale)[0]
        for side, loss in zip(sides, losses, strict=True)
    )
    torch.testing.assert_close(sides[0].logit_scale, sides[1].logit_scale.float())
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-6)


def test_difference_points_are_shared_by_the_masks_of_an_image_and_by_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """They draw anew for each mask and layer. The mean over many draws is the same."""
    torch.manual_seed(0)
    targets, decoded, texts = [random_target(3)], random_decoded(1, layers=2), leaf(1, 7, 16)
    criterion, theirs = Criterion(small_spec(points=400)), their_criterion(400)
    totals: list[dict[str, float]] = []
    with torch.no_grad():
        for side in (lambda: criterion(decoded, targets, texts), lambda: their_losses(theirs, decoded, targets, texts)):
            losses = [side() for _ in range(40)]
            totals.append({k: sum(float(x[k]) for x in losses) / 40 for k in ("loss_mask", "loss_dice", "loss_mask_0")})
    assert totals[0] == pytest.approx(totals[1], rel=0.02)


def test_difference_a_nan_in_an_unmatched_query_goes_unseen_with_them_and_stops_us() -> None:
    torch.manual_seed(0)
    targets, decoded, texts = [random_target(2)], random_decoded(1, layers=1), leaf(1, 7, 16)
    with torch.no_grad():
        decoded.last.mask_embed[0, 3] = math.nan
    assert all(v.isfinite() for v in their_losses(their_criterion(), decoded, targets, texts).values())
    criterion = Criterion(small_spec())
    with pytest.raises(WorkError):
        criterion.raise_if_not_finite(criterion(decoded, targets, texts), ["street.jpg"])


def test_difference_they_divide_the_number_of_masks_by_the_ranks_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """accelerate's `reduce` already forms the mean over ranks. Ours over two ranks is tests/loss/test_ranks.py."""
    state = type("PartialState", (), {"_shared_state": {"on": True}, "num_processes": 2})
    monkeypatch.setattr(hf, "is_accelerate_available", lambda: True)
    monkeypatch.setattr(hf, "PartialState", state, raising=False)
    monkeypatch.setattr(hf, "reduce", lambda tensor: tensor, raising=False)  # the mean of two ranks with 6 masks each
    theirs = their_criterion().get_num_masks([torch.zeros(6)], torch.device("cpu"))
    assert theirs.item() == 3
