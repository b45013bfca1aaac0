"""Sampling: equal to torch's grid_sample, and void leaves no trace."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from loss.batches import as_masks, random_target, some_points
from oneformer.loss.points import Stencil, draw_points, most_uncertain, read_target


def by_grid_sample(maps: Tensor, places: Tensor) -> Tensor:
    grid = (2 * places - 1)[None, :, None].expand(len(maps), -1, 1, 2)
    return F.grid_sample(maps[:, None], grid, align_corners=False)[:, 0, :, 0]


def places_with_borders(count: int = 200) -> Tensor:
    corners = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.5, 0.0], [1.0, 0.5]])
    return torch.cat((torch.rand(count, 2), corners))


@pytest.mark.parametrize("size", [(8, 10), (1, 7), (5, 1)])
def test_sampling_equals_grid_sample_in_value_and_gradient(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    maps, places = torch.randn(3, *size, requires_grad=True), places_with_borders()
    ours = Stencil.at(places, size).sample(maps)
    weights = torch.randn_like(ours)
    (grad,) = torch.autograd.grad((ours * weights).sum(), maps)
    theirs = by_grid_sample(maps, places)
    (expected,) = torch.autograd.grad((theirs * weights).sum(), maps)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grad, expected, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_sampling_equals_finite_differences() -> None:
    torch.manual_seed(0)
    stencil = Stencil.at(torch.rand(9, 2), (4, 3))
    maps = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(stencil.sample, (maps,))


def test_a_map_of_objects_samples_like_its_masks() -> None:
    torch.manual_seed(0)
    target = random_target(4, void=True)
    stencil = Stencil.at(places_with_borders(), (32, 40))
    shares = stencil.sample_map(target.object_map + 2, 6)
    torch.testing.assert_close(shares[:1], stencil.sample_masks(target.void[None]))
    torch.testing.assert_close(shares[2:], stencil.sample_masks(target.masks))


def test_masks_sample_like_their_float_maps() -> None:
    torch.manual_seed(0)
    masks, places = random_target(4).masks, places_with_borders()
    values = Stencil.at(places, (32, 40)).sample_masks(masks)
    torch.testing.assert_close(values, by_grid_sample(masks.float(), places), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("void", [False, True])
def test_truth_read_from_a_map_equals_truth_read_from_masks(void: bool) -> None:
    torch.manual_seed(0)
    target = random_target(4, void=void)
    points = some_points(target)
    first, second = (read_target(t, points, size=(8, 10)) for t in (target, as_masks(target)))
    torch.testing.assert_close(first.values, second.values)
    assert (first.known is None) == (second.known is None) == (not void)
    if void:
        torch.testing.assert_close(first.known, second.known)


def test_without_void_the_points_are_those_of_the_generator() -> None:
    torch.manual_seed(3)
    points = draw_points(torch.zeros(16, 24, dtype=torch.bool), count=20, oversample=3.0, importance=0.75)
    torch.manual_seed(3)
    for drawn, count in zip(points, (20, 60, 5), strict=True):
        assert torch.equal(drawn, torch.rand(count, 2))


def test_points_are_drawn_inside_the_box_of_known_pixels() -> None:
    void = torch.ones(16, 20, dtype=torch.bool)
    void[4:12, 5:10] = False
    void[6:8, 6:8] = True
    points = torch.cat(draw_points(void, count=500, oversample=3.0, importance=0.75))
    assert points[:, 0].min() >= 5 / 20
    assert points[:, 0].max() <= 10 / 20
    assert points[:, 1].min() >= 4 / 16
    assert points[:, 1].max() <= 12 / 16
    assert points[:, 0].max() - points[:, 0].min() > 0.2
    assert points[:, 1].max() - points[:, 1].min() > 0.4


def test_an_image_that_is_all_void_still_gets_points() -> None:
    points = torch.cat(draw_points(torch.ones(4, 4, dtype=torch.bool), count=50, oversample=3.0, importance=0.75))
    assert bool(((points >= 0) & (points <= 1)).all())


def test_void_pixels_are_neither_inside_nor_outside() -> None:
    torch.manual_seed(0)
    target = random_target(3, void=True)
    truth = read_target(target, some_points(target, 400), size=(8, 10))
    assert truth.known is not None
    assert bool((truth.values <= truth.known).all())
    assert bool((truth.known == 0).any())
    assert bool((truth.known == 1).any())
    assert bool(((truth.known > 0) & (truth.known < 1)).any())


@pytest.mark.parametrize("count", [0, 1, 17, 30])
def test_the_most_uncertain_places_are_those_nearest_to_zero(count: int) -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 30)
    chosen = most_uncertain(logits, count, None)
    for row, picked in zip(logits.abs(), chosen, strict=True):
        expected = row.sort().values[:count]
        assert torch.equal(row[picked].sort().values, expected)


def test_unknown_places_are_taken_last() -> None:
    logits = torch.tensor([[0.0, 3.0, 0.1, 2.0]])
    known = torch.tensor([0.0, 1.0, 0.0, 0.4])
    assert set(most_uncertain(logits, 2, known)[0].tolist()) == {1, 3}
    assert len(set(most_uncertain(logits, 3, known)[0].tolist())) == 3
