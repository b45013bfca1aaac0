"""Matching: costs as defined, the cheapest pairs of all, and nothing that makes it fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from loss.batches import CLASSES, random_decoded, random_target, some_points
from loss.reference import best_pairs, cost_matrix
from oneformer.data.sample import Target
from oneformer.loss.match import CostWeights, Matches, _logits, _softplus_sum, match, pair_costs
from oneformer.loss.points import Stencil, read_target
from oneformer.model.decoder import Decoded

WEIGHTS = CostWeights(2, 5, 5)
SIZE = (8, 10)


def match_batch(decoded: Decoded, targets: list[Target]) -> Matches:
    truth = [read_target(t, some_points(t), size=SIZE) for t in targets]
    return match(*stacked(decoded), truth, weights=WEIGHTS)


def stacked(decoded: Decoded) -> tuple[Tensor, Tensor, Tensor]:
    """Class logits (L, B, Q, K+1) and the factors of the masks (L, B, Q, C'), (B, C', h, w)."""
    layers = [decoded.last, *decoded.early]
    classes, embed = (torch.stack(part).detach() for part in zip(*layers, strict=True))
    return classes, embed, decoded.mask_features.detach()


@pytest.mark.parametrize("void", [False, True])
def test_costs_and_pairs_equal_those_found_one_by_one(void: bool) -> None:
    torch.manual_seed(0)
    target, decoded = random_target(3, void=void), random_decoded(1, queries=5, layers=2)
    points = some_points(target)
    truth = read_target(target, points, size=SIZE)
    classes, embed, features = stacked(decoded)
    masks = [decoded.mask_logits.detach(), decoded.auxiliary[0][1].detach()]
    costs = pair_costs(classes[:, 0].softmax(-1), (embed[:, 0], features[0]), truth, weights=WEIGHTS)
    found = match(classes, embed, features, [truth], weights=WEIGHTS).images[0]
    for layer in range(2):
        expected = cost_matrix(
            classes[layer, 0].double().numpy(),
            masks[layer][0].double().numpy(),
            target.labels.tolist(),
            target.masks.double().numpy(),
            target.void.double().numpy(),
            points.match.double().numpy(),
        )
        np.testing.assert_allclose(costs[layer].numpy(), expected, rtol=1e-4, atol=1e-4)
        pairs = set(zip(found.queries[layer].tolist(), found.targets[layer].tolist(), strict=True))
        assert pairs == best_pairs(expected)


def test_an_image_without_objects_has_no_pairs() -> None:
    matches = match_batch(random_decoded(2), [random_target(0), random_target(2)])
    assert matches.images[0].queries.shape == (3, 0)
    assert matches.images[1].queries.shape == (3, 2)


def test_no_query_and_no_object_is_matched_twice_when_objects_outnumber_queries() -> None:
    found = match_batch(random_decoded(1, queries=4), [random_target(9)]).images[0]
    assert found.queries.shape == (3, 4)
    for queries, objects in zip(found.queries, found.targets, strict=True):
        assert sorted(queries.tolist()) == [0, 1, 2, 3]
        assert len(set(objects.tolist())) == 4


def test_costs_leave_the_device_in_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = []
    original = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: copies.append(self.shape) or original(self))
    match_batch(random_decoded(2), [random_target(3), random_target(5)])
    assert copies == [torch.Size([3 * 7 * (3 + 5)])]


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_costs_that_are_no_numbers_are_reported_by_layer_and_do_not_crash(poison: float) -> None:
    torch.manual_seed(0)
    decoded = random_decoded(2)
    with torch.no_grad():
        decoded.early[0].mask_embed[1, 3] = poison
    matches = match_batch(decoded, [random_target(2), random_target(3)])
    assert matches.finite == (True, False, True)
    assert 3 not in matches.images[1].queries[1].tolist()


def test_a_batch_full_of_nan_still_gets_pairs() -> None:
    decoded = random_decoded(1)
    with torch.no_grad():
        decoded.last.mask_embed.fill_(float("nan"))
    matches = match_batch(decoded, [random_target(3)])
    assert len(set(matches.images[0].queries[0].tolist())) == 3
    assert not matches.finite[0]


@pytest.mark.parametrize("points", [1, 7, 64, 98, 640])
def test_the_folded_sum_equals_softplus_even_for_huge_logits(points: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(points, 6) * torch.tensor([0.1, 1, 10, 100, 1000, 0])
    expected = F.softplus(x.double()).sum(0)
    torch.testing.assert_close(_softplus_sum(x.clone(), x.sigmoid()).double(), expected, rtol=1e-5, atol=1e-4)


def test_what_a_query_says_about_void_does_not_matter() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([1])
    masks, void = torch.zeros(1, 32, 40, dtype=torch.bool), torch.zeros(32, 40, dtype=torch.bool)
    masks[0, :16], void[16:] = True, True
    truth = read_target(Target(labels, masks, void), some_points(Target(labels, masks, void)), size=SIZE)
    maps = torch.randn(1, 2, *SIZE)
    maps[0, 1] = maps[0, 0]
    maps[0, 1, 5:] = -maps[0, 0, 5:]  # one map row beyond the border, for its neighbour reaches over
    costs = pair_costs(torch.full((1, 2, CLASSES + 1), 0.1), (torch.eye(2)[None], maps[0]), truth, weights=WEIGHTS)
    torch.testing.assert_close(costs[0, 0], costs[0, 1])


@pytest.mark.parametrize("pixels_per_point", [0.2, 5.0])
def test_logits_between_pixels_are_the_same_whichever_product_comes_first(pixels_per_point: float) -> None:
    """Fewer pixels than places: masks first. More: the features are read first."""
    torch.manual_seed(0)
    embed, features = torch.randn(6, 256), torch.randn(256, 20, 25)
    places = torch.rand(int(500 / pixels_per_point), 2)
    stencil = Stencil.at(places, (20, 25))
    maps = (embed @ features.flatten(1)).unflatten(1, (20, 25))
    want = F.grid_sample(maps[None], 2 * places[None, None] - 1, align_corners=False)[0, :, 0].t()
    parts = list(_logits(embed, features, stencil, step=64))
    assert [start for start, _ in parts] == list(range(0, len(places), 64))
    torch.testing.assert_close(torch.cat([x for _, x in parts]), want, rtol=1e-4, atol=1e-4)
