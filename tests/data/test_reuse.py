"""Memory of batches: used again once nobody holds it, never before, and never more of it than a few blocks."""

from __future__ import annotations

import torch

from oneformer.data.reuse import KEPT, Pool


def test_memory_is_used_again_once_nobody_holds_it() -> None:
    pool = Pool()
    first = pool.empty((3, 5), torch.float32)
    first.fill_(7)
    where = first.data_ptr()
    del first
    again = pool.empty((2, 7), torch.float32)
    assert again.data_ptr() == where and again.shape == (2, 7) and again.is_contiguous()


def test_what_a_view_or_an_array_still_shows_is_left_alone() -> None:
    pool = Pool()
    for hold in (lambda t: t[1], lambda t: t.numpy()[:1], lambda t: t.view(-1).detach()):
        first = pool.empty((2, 4), torch.int16)
        first.fill_(3)
        kept = hold(first)
        del first
        pool.empty((2, 4), torch.int16).fill_(9)
        assert (kept == 3).all()


def test_a_graph_of_gradients_holds_its_memory_too() -> None:
    pool = Pool()
    weight = torch.ones(4, requires_grad=True)
    x = pool.empty((4,), torch.float32)
    x.copy_(torch.arange(4.0))
    loss = (weight * x).sum()
    del x
    pool.empty((4,), torch.float32).fill_(100)
    loss.backward()
    assert torch.equal(weight.grad, torch.arange(4.0))


def test_a_larger_shape_gets_new_memory_and_the_outgrown_is_given_back() -> None:
    pool = Pool()
    for side in (2, 4, 8, 16):
        assert pool.empty((side, side), torch.float32).shape == (side, side)
        assert pool.held_bytes == 4 * side * side, "what is too small and free is of no use"
    assert pool.empty((2, 2), torch.float32).shape == (2, 2)
    assert pool.held_bytes <= 4 * 16 * 16


def test_batches_that_are_all_kept_are_not_kept_by_the_pool_as_well() -> None:
    pool = Pool()
    batches = [pool.empty((1024,), torch.float32) for _ in range(10)]
    assert len({b.data_ptr() for b in batches}) == 10
    assert pool.held_bytes == KEPT * 4096


def test_nothing_is_needed_for_an_empty_shape() -> None:
    assert Pool().empty((0, 3), torch.float32).shape == (0, 3)


def test_images_and_maps_do_not_take_each_others_memory() -> None:
    pool = Pool()
    places = set()
    for _ in range(6):
        images, maps = pool.empty((100,), torch.float32), pool.empty((100,), torch.int16)
        places |= {images.data_ptr(), maps.data_ptr()}
    assert len(places) <= 4 and pool.held_bytes <= 2 * 400 + 2 * 200, "two of each at most, the last and the next"
