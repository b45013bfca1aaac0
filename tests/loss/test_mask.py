"""Mask losses: those of the reference, with void that neither adds nor thins, and right gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from loss.batches import random_target, some_points
from loss.reference import kept_places, mask_terms
from oneformer.data.sample import Target
from oneformer.loss.mask import image_mask_losses, point_losses
from oneformer.loss.match import Match
from oneformer.loss.points import Points, read_target

SIZE = (8, 10)
UNCERTAIN = 36  # of 48 points


def losses(maps: Tensor, target: Target, points: Points, match: Match) -> tuple[Tensor, Tensor]:
    return image_mask_losses(factors(maps), read_target(target, points, size=SIZE), match, uncertain=UNCERTAIN)


def factors(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (L, n, h, w) as a product, each being a channel that one query picks."""
    features = maps.flatten(0, 1)
    return torch.eye(len(features), dtype=maps.dtype).unflatten(0, maps.shape[:2]), features


@pytest.mark.parametrize("void", [False, True])
def test_losses_equal_those_of_one_mask_and_point_at_a_time(void: bool) -> None:
    torch.manual_seed(0)
    target = random_target(3, void=void)
    points = some_points(target)
    maps = torch.randn(2, 2, *SIZE) * 3
    match = Match(torch.zeros(2, 2, dtype=torch.long), torch.tensor([[2, 0], [1, 2]]))
    bce, dice = losses(maps, target, points, match)
    truth = target.void.double().numpy()
    for layer in range(2):
        terms = []
        for map_, owner in zip(maps[layer].double().numpy(), match.targets[layer], strict=True):
            places = kept_places(map_, truth, points.candidates.numpy(), points.uniform.numpy(), UNCERTAIN)
            terms.append(mask_terms(map_, target.masks[owner].double().numpy(), truth, places))
        expected = np.sum(terms, axis=0)
        np.testing.assert_allclose([bce[layer], dice[layer]], expected, rtol=1e-4)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    target = random_target(3)
    points, maps = some_points(target), torch.randn(5, 3, *SIZE)
    match = Match(torch.zeros(5, 3, dtype=torch.long), torch.tensor([[2, 0, 1]] * 5))
    whole = losses(maps, target, points, match)
    monkeypatch.setattr("oneformer.loss.points.CHUNK_CPU", 1000)
    torch.testing.assert_close(losses(maps, target, points, match), whole)


def test_weights_of_one_give_the_published_losses() -> None:
    torch.manual_seed(0)
    logits, values = torch.randn(4, 50) * 5, torch.rand(4, 50)
    torch.testing.assert_close(point_losses(logits, values, torch.ones(4, 50)), point_losses(logits, values, None))


def test_a_mask_of_which_nothing_is_known_has_no_loss_and_no_gradient() -> None:
    logits = torch.randn(2, 50, requires_grad=True)
    bce, dice = point_losses(logits, torch.zeros(2, 50), torch.zeros(2, 50))
    assert bce.tolist() == dice.tolist() == [0, 0]
    (grad,) = torch.autograd.grad((bce + dice).sum(), logits)
    assert not grad.any()


def test_points_of_unknown_value_change_nothing_but_the_count() -> None:
    torch.manual_seed(0)
    logits, values = torch.randn(3, 40), torch.rand(3, 40)
    padded_logits = torch.cat((logits, torch.randn(3, 40) * 9), 1)
    padded_values, known = (
        torch.cat((values, torch.zeros(3, 40)), 1),
        torch.cat((torch.ones(3, 40), torch.zeros(3, 40)), 1),
    )
    bce, dice = point_losses(padded_logits, padded_values, known)
    torch.testing.assert_close(bce, point_losses(logits, values, None)[0])
    # The smoothing by 1 is counted on a full set: twice as many points, all with the known ones' mean.
    doubled = point_losses(logits.repeat(1, 2), values.repeat(1, 2), None)[1]
    torch.testing.assert_close(dice, doubled)


def test_predictions_inside_void_get_no_gradient() -> None:
    torch.manual_seed(0)
    masks, void = torch.zeros(1, 32, 40, dtype=torch.bool), torch.zeros(32, 40, dtype=torch.bool)
    masks[0, :16, :20], void[16:] = True, True
    target = Target(torch.tensor([0]), masks, void)
    maps = torch.randn(1, 1, *SIZE, requires_grad=True)
    one = torch.zeros(1, 1, dtype=torch.long)
    bce, dice = losses(maps, target, some_points(target), Match(one, one))
    (grad,) = torch.autograd.grad((bce + dice).sum(), maps)
    assert not grad[0, 0, 5:].any()  # row 4 is the first void one; places above it reach into it
    assert grad[0, 0, :4].any()


@pytest.mark.parametrize("void", [False, True])
def test_gradients_equal_finite_differences(void: bool) -> None:
    torch.manual_seed(0)
    target = random_target(2, void=void)
    points = some_points(target, 8)
    truth = read_target(target, points, size=(4, 5))
    match = Match(torch.zeros(1, 2, dtype=torch.long), torch.tensor([[1, 0]]))
    maps = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    # All candidates are kept: the choice of places has jumps, which no finite difference can cross.
    count = truth.num_candidates
    assert torch.autograd.gradcheck(lambda m: image_mask_losses(factors(m), truth, match, uncertain=count), (maps,))
    embed = torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True)
    features = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *masks: image_mask_losses(masks, truth, match, uncertain=count), (embed, features)
    )
