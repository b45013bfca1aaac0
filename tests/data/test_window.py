"""Windows: Pillow's pixels, labels at the centres, and maps that are kept as lists of rows and columns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from oneformer.data.window import Picked, Window


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def planar(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def test_windows_reach_every_place() -> None:
    rng = np.random.default_rng(0)
    windows = {(w.top, w.left) for w in (Window.draw((10, 12), (10, 12), (8, 8), rng=rng) for _ in range(500))}
    assert windows == {(top, left) for top in range(3) for left in range(5)}
    enlarged = {Window.draw((5, 6), (20, 24), (8, 8), rng=rng).top for _ in range(300)}
    assert enlarged == {0, 1, 2, 3}, "every row that a window can begin at and end inside"
    small = Window.draw((5, 30), (5, 30), (8, 8), rng=rng)
    assert (small.height, small.width, small.top) == (5, 8, 0)


@given(
    st.integers(1, 60), st.integers(1, 60), st.integers(1, 130), st.integers(1, 130), st.sampled_from([1, 2, 4, 8]),
    st.integers(0, 10**6),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_a_window_always_has_its_size_and_stays_inside(
    height: int, width: int, to_height: int, to_width: int, grid: int, seed: int
) -> None:
    photo = (height * grid - seed % grid, width * grid - seed // 8 % grid)
    window = Window.draw(photo, (to_height, to_width), (64, 48), rng=np.random.default_rng(seed), grid=grid)
    assert (window.height, window.width) == (min(to_height, 64), min(to_width, 48))
    assert window.top % grid == 0 and window.top + window.height * window.step[0] <= photo[0] + 1e-6
    assert window.left % grid == 0 and window.left + window.width * window.step[1] <= photo[1] + 1e-6
    region = window.region(noise(height, width), grid=grid)
    assert window.scaled(planar(region), grid=grid).shape == (3, window.height, window.width)
    ids = np.arange(photo[0] * photo[1]).reshape(photo)
    assert window.labels(ids).map().shape == (window.height, window.width)


@pytest.mark.parametrize("size", [(150, 200), (45, 65), (90, 130)])
def test_a_window_is_the_crop_of_the_whole_scaled_photo(size: tuple[int, int]) -> None:
    pixels, ids = noise(90, 130), np.arange(90 * 130, dtype=np.int32).reshape(90, 130)
    whole = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
    near = np.asarray(Image.fromarray(ids).resize(size[::-1], Image.Resampling.NEAREST))
    # Windows begin at whole pixels of the photo: here those that are whole pixels of the scaled one as well.
    top, left = (30, 40) if size[0] > 90 else (15, 20)
    step = (90 / size[0], 130 / size[1])
    window = Window(round(top * step[0]), round(left * step[1]), step, 30, 40)
    if window.top != top * step[0] or window.left != left * step[1]:
        pytest.fail("the case is no crop of whole pixels")
    part = window.scaled(planar(window.region(pixels))).permute(1, 2, 0).numpy().astype(int)
    inner = (slice(2, None), slice(2, None))  # at its first row and column the filter sees no neighbours
    assert np.abs(part - whole[top : top + 30, left : left + 40])[inner].max() <= 2
    assert np.array_equal(window.labels(ids).map(), near[top : top + 30, left : left + 40])


@pytest.mark.parametrize("size", [(200, 300), (31, 47), (64, 96)])
def test_a_whole_photo_is_scaled_as_pillow_does(size: tuple[int, int]) -> None:
    pixels = noise(64, 96)
    window = Window.draw((64, 96), size, size, rng=np.random.default_rng(0))
    own = window.scaled(planar(window.region(pixels))).permute(1, 2, 0).numpy()
    pillow = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))
    difference = np.abs(own.astype(int) - pillow)
    assert difference.max() <= 2 and difference.mean() < 0.1


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 20), st.integers(1, 20),
    st.booleans(), st.booleans(), st.sampled_from([0, 1, 2, 3]),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_lists_give_what_arrays_give(
    height: int, width: int, to_height: int, to_width: int, mirror: bool, upend: bool, quarters: int
) -> None:
    ids = np.arange(height * width).reshape(height, width)
    rows, columns = np.arange(to_height) * height // to_height, np.arange(to_width) * width // to_width
    plain, picked = ids[rows][:, columns], Picked.of(ids, rows, columns)
    if mirror:
        plain, picked = plain[:, ::-1], picked.mirrored()
    if upend:
        plain, picked = plain[::-1], picked.upended()
    if quarters:
        plain, picked = np.rot90(plain, quarters), picked.turned(quarters)
    assert np.array_equal(picked.map(), plain) and picked.shape == plain.shape
    assert picked.map().flags.c_contiguous
    assert set(np.unique(picked.seen)) == set(np.unique(plain)), "what is seen is what is in the map, no more"
    assert np.array_equal(Picked.whole(plain).map(), plain)
