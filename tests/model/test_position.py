"""The sine encoding against its formula."""

from __future__ import annotations

import math

import pytest
import torch

from oneformer.model.position import sine_position

CPU = torch.device("cpu")


def test_every_value_follows_the_formula() -> None:
    height, width, channels = 3, 5, 16
    got = sine_position(height, width, channels, device=CPU).view(height, width, channels)
    half = channels // 2
    for y in range(height):
        for x in range(width):
            for i in range(channels):
                at = (y + 1) / height if i < half else (x + 1) / width
                j = i % half
                angle = 2 * math.pi * at / 10_000 ** (2 * (j // 2) / half)
                want = math.sin(angle) if j % 2 == 0 else math.cos(angle)
                assert got[y, x, i] == pytest.approx(want, abs=1e-5)


def test_it_stays_float32_under_autocast_so_that_neighbours_differ() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        got = sine_position(1, 512, 256, device=CPU)
    assert got.dtype == torch.float32
    assert (got[1:] - got[:-1]).abs().amax(1).min() > 0


def test_a_width_without_sine_and_cosine_of_two_axes_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="multiple of 4"):
        sine_position(2, 2, 6, device=CPU)
