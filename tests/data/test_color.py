"""Colours: every step does what the HSV model says, ranges are SSD's, and what is off changes nothing."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from oneformer.data.color import BRIGHTNESS, SEXTANTS, Colors, blurred

NOTHING = Colors(None, None, None, None, True)


def grey(value: int = 100) -> torch.Tensor:
    return torch.full((3, 4, 4), value, dtype=torch.uint8)


def drawn(prob: float, seed: int) -> Colors:
    return Colors.draw(prob, np.random.default_rng(seed))


@given(
    st.tuples(*[st.integers(0, 255)] * 3),
    st.one_of(st.none(), st.floats(0.5, 1.5)),
    st.one_of(st.none(), st.floats(-0.6, 0.6)),
)
@settings(max_examples=300, deadline=None)
def test_hue_and_saturation_are_those_of_the_hsv_model(
    color: tuple[int, int, int], saturation: float | None, hue: float | None
) -> None:
    pixel = torch.tensor(color, dtype=torch.uint8)[:, None, None]
    h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in color))
    expected = colorsys.hsv_to_rgb((h + (hue or 0) / SEXTANTS) % 1, min(1, s * (saturation or 1)), v)
    out = Colors(None, None, saturation, hue, True)(pixel)[:, 0, 0]
    assert np.abs(out.numpy() - np.array(expected) * 255).max() <= 0.51


def test_contrast_comes_before_or_after_saturation() -> None:
    pixel = torch.tensor([200, 100, 60], dtype=torch.uint8)[:, None, None]
    before, after = (Colors(20.0, 1.5, 0.5, None, first)(pixel)[:, 0, 0].tolist() for first in (True, False))
    # 220, 120, 80 -> 255, 180, 120 -> half the distance to the largest; or that first, and then times 1.5, cut at 255.
    assert before == [255, 218, 188] and after == [255, 255, 225]


def test_brightness_and_contrast_are_cut_at_both_ends() -> None:
    assert Colors(-32.0, None, None, None, True)(grey(10)).eq(0).all()
    assert Colors(None, 1.5, None, None, False)(grey(250)).eq(255).all()


def test_the_ranges_are_ssds_and_are_used() -> None:
    values = [int(drawn(1.0, s)(grey())[0, 0, 0]) for s in range(300)]
    assert min(values) >= int((100 - BRIGHTNESS) * 0.5) - 1 and max(values) <= int((100 + BRIGHTNESS) * 1.5) + 1
    assert min(values) < 50 and max(values) > 170
    draws = [drawn(1.0, s) for s in range(300)]
    hues, saturations = ([getattr(d, name) for d in draws] for name in ("hue", "saturation"))
    assert -0.6 <= min(hues) < -0.55 and 0.55 < max(hues) <= 0.6, "18 of OpenCV's 180 steps are a tenth of the circle"
    assert 0.5 <= min(saturations) < 0.55 and 1.45 < max(saturations) <= 1.5


def test_each_change_has_the_probability() -> None:
    draws = [drawn(0.25, s) for s in range(2000)]
    for name in ("brightness", "contrast", "saturation", "hue"):
        assert 0.2 < np.mean([getattr(d, name) is not None for d in draws]) < 0.3
    assert drawn(0.0, 0) == Colors(None, None, None, None, drawn(0.0, 0).contrast_first)


def test_without_a_change_the_pixels_are_the_same_ones() -> None:
    pixels = grey()
    assert NOTHING(pixels) is pixels


def test_large_photos_change_as_their_parts_do() -> None:
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (3, 700, 301)).astype(np.uint8))
    change = drawn(1.0, 1)
    assert torch.equal(change(pixels)[:, 333:334], change(pixels[:, 333:334]))
    strided = pixels.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert torch.equal(change(strided), change(pixels)), "the order in memory does not matter"


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur_is_pillows_up_to_its_approximation(sigma: float) -> None:
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(0, 256, (12, 15, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    own = blurred(torch.from_numpy(pixels).permute(2, 0, 1), sigma).permute(1, 2, 0).numpy()
    pillow = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))
    assert np.abs(own.astype(int) - pillow).mean() < 1.5
    assert sigma > 0.2 or np.array_equal(own, pixels)


def test_blur_keeps_a_plain_picture_and_its_brightness() -> None:
    assert blurred(grey(77), 2.0).eq(77).all()
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 40, 40)).astype(np.uint8))
    assert abs(blurred(pixels, 2.0).float().mean() - pixels.float().mean()) < 2
    assert blurred(torch.zeros(3, 1, 1, dtype=torch.uint8), 2.0).shape == (3, 1, 1)
