"""Augmentation: photo and ids stay together, sizes follow the published rules, chance comes from one generator."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from oneformer.data.augment import (
    Augment,
    Window,
    cut_ids,
    cut_photo,
    jitter_colors,
    jittered_size,
    random_window,
    shortest_edge_size,
)
from oneformer.spec.data import DatasetSpec


def quarters(height: int = 80, width: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """A photo of four plain quarters and its id map: colour and id say the same, so a mismatch shows."""
    ids = np.zeros((height, width), np.int32)
    ids[: height // 2, width // 2 :] = 1
    ids[height // 2 :, : width // 2] = 2
    ids[height // 2 :, width // 2 :] = 3
    return np.repeat((ids * 80)[..., None], 3, axis=-1).astype(np.uint8), ids


def section(**changes: object) -> DatasetSpec:
    dataset = DatasetSpec()
    quiet = {"train_crop_size": [64, 64], "flip_prob": 0.0, "color_jitter_prob": 0.0}
    for key, value in {**quiet, **changes}.items():
        setattr(dataset if hasattr(dataset, key) else dataset.augmentation, key, value)
    return dataset


CLASSES = np.array([0, 1, 2, 3])


@pytest.mark.parametrize(
    "changes",
    [
        {"flip_prob": 1.0},
        {"vertical_flip_prob": 1.0},
        {"rotate90_prob": 1.0},
        {"rotate90_prob": 1.0, "train_crop_size": [48, 64]},
        {"min_scale": 0.1, "max_scale": 2.0},
        {"train_resize": "shortest_edge", "train_min_size": [40, 90], "train_max_size": 500},
    ],
)
def test_photo_and_ids_change_together(changes: dict[str, object]) -> None:
    augment = Augment(section(**changes))
    photo, ids = quarters()
    for seed in range(20):
        out, out_ids = augment(photo, ids, classes=CLASSES, rng=np.random.default_rng(seed))
        assert out.shape == (*out_ids.shape, 3)
        assert out.shape[0] <= augment.crop[0] and out.shape[1] <= augment.crop[1]
        differ = np.abs(out[..., 0].astype(int) - out_ids * 80) > 40
        # Bilinear and nearest only disagree in the pixels at the borders of the quarters.
        assert differ.sum() <= out.shape[0] + out.shape[1]


def test_flips_and_turns_really_happen() -> None:
    photo, ids = quarters(64, 64)
    calm = {"min_scale": 1.0, "max_scale": 1.0}
    rng = np.random.default_rng(0)
    still = Augment(section(**calm))(photo, ids, classes=CLASSES, rng=rng)[1]
    assert np.array_equal(still, ids)
    flipped = Augment(section(**calm, flip_prob=1.0))(photo, ids, classes=CLASSES, rng=rng)[1]
    assert np.array_equal(flipped, ids[:, ::-1])
    upside = Augment(section(**calm, vertical_flip_prob=1.0))(photo, ids, classes=CLASSES, rng=rng)[1]
    assert np.array_equal(upside, ids[::-1])
    turned = {
        Augment(section(**calm, rotate90_prob=1.0))(photo, ids, classes=CLASSES, rng=rng)[1][0, 0] for _ in range(40)
    }
    assert turned == {1, 2, 3}, "each of the three turns occurs"


def test_the_same_generator_gives_the_same_sample_and_another_does_not() -> None:
    augment = Augment(section(color_jitter_prob=0.5, flip_prob=0.5, min_scale=0.5))
    photo, ids = quarters()
    photo = photo + np.arange(120, dtype=np.uint8)[None, :, None]
    first, second, other = (augment(photo, ids, classes=CLASSES, rng=np.random.default_rng(s))[0] for s in (3, 3, 4))
    assert np.array_equal(first, second)
    assert first.shape != other.shape or not np.array_equal(first, other)


@given(st.integers(20, 900), st.integers(20, 900), st.floats(0.1, 2.0))
@settings(max_examples=50, deadline=None)
def test_large_scale_jitter_fits_the_scaled_crop(height: int, width: int, scale: float) -> None:
    out = jittered_size((height, width), (512, 640), scale=scale)
    assert out[0] <= round(512 * scale) + 1 and out[1] <= round(640 * scale) + 1
    assert abs(out[0] - 512 * scale) <= 1 or abs(out[1] - 640 * scale) <= 1, "one side fills it"


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        ((480, 640), (800, 1333), (800, 1067)),
        ((640, 480), (800, 1333), (1067, 800)),
        ((427, 640), (800, 1333), (800, 1199)),
        ((200, 640), (800, 1333), (417, 1333)),
        ((1, 5000), (800, 1333), (1, 1333)),
        ((512, 683), (512, 2048), (512, 683)),
    ],
)
def test_the_shorter_side_is_set_and_the_longer_capped(
    size: tuple[int, int], limits: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert shortest_edge_size(size, min_size=limits[0], max_size=limits[1]) == expected


def test_windows_reach_every_place() -> None:
    rng = np.random.default_rng(0)
    windows = {(w.top, w.left) for w in (random_window((10, 12), (8, 8), rng) for _ in range(500))}
    assert windows == {(top, left) for top in range(3) for left in range(5)}
    small = random_window((5, 30), (8, 8), rng)
    assert (small.height, small.width, small.top) == (5, 8, 0)


def test_a_window_is_the_crop_of_the_whole_scaled_photo() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (90, 130, 3)).astype(np.uint8)
    ids = rng.integers(0, 50, (90, 130)).astype(np.int32)
    whole = np.asarray(Image.fromarray(pixels).resize((200, 150), Image.Resampling.BILINEAR)).astype(int)
    window = Window((150, 200), 31, 47, 64, 80)
    part = np.asarray(cut_photo(Image.fromarray(pixels), window)).astype(int)
    inner = (slice(2, -2), slice(2, -2))  # at the window's edge the filter sees no neighbours
    assert np.abs(part - whole[31:95, 47:127])[inner].max() <= 1
    near = np.asarray(Image.fromarray(ids).resize((200, 150), Image.Resampling.NEAREST))
    assert np.array_equal(cut_ids(ids, window), near[31:95, 47:127])


def test_a_crop_of_nearly_one_class_is_drawn_again() -> None:
    ids = np.zeros((64, 640), np.int32)
    ids[:, :60] = 1
    photo = np.zeros((64, 640, 3), np.uint8)
    options = {"train_resize": "shortest_edge", "train_min_size": [64], "train_max_size": 640}

    def share_of_mixed(limit: float) -> float:
        augment = Augment(section(**options, crop_max_class_frac=limit))
        crops = [augment(photo, ids, classes=np.array([0, 1]), rng=np.random.default_rng(s))[1] for s in range(80)]
        return float(np.mean([len(np.unique(c)) > 1 for c in crops]))

    assert share_of_mixed(0.9) > 2 * share_of_mixed(1.0)


def test_void_does_not_count_as_a_class_in_crops() -> None:
    ids = np.zeros((64, 128), np.int32)
    ids[:, ::2] = 1
    augment = Augment(section(train_resize="shortest_edge", train_min_size=[64], crop_max_class_frac=0.6))
    out = augment(np.zeros((64, 128, 3), np.uint8), ids, classes=np.array([-1, 4]), rng=np.random.default_rng(0))
    assert out[1].shape == (64, 64), "a crop is returned although every one has a single class"


def test_colour_jitter_stays_within_ssds_ranges() -> None:
    grey = Image.new("RGB", (4, 4), (100, 100, 100))
    values = [np.asarray(jitter_colors(grey, 1.0, np.random.default_rng(s)))[0, 0, 0] for s in range(300)]
    assert min(values) >= int((100 - 32) * 0.5) - 1 and max(values) <= int((100 + 32) * 1.5) + 1
    assert min(values) < 50 and max(values) > 170, "the range is used"


def test_hue_and_saturation_move_as_far_as_they_may() -> None:
    photo = Image.new("RGB", (2, 2), (120, 70, 70))
    hues, saturations = [], []
    for seed in range(300):
        r, g, b = (int(v) for v in np.asarray(jitter_colors(photo, 1.0, np.random.default_rng(seed)))[0, 0])
        hue, saturation, _ = colorsys.rgb_to_hsv(r / 255, g / 255, b / 255)
        hues.append((hue + 0.5) % 1 - 0.5)
        saturations.append(saturation)
    assert -0.13 < min(hues) < -0.08 and 0.08 < max(hues) < 0.13
    assert min(saturations) < 0.25 and max(saturations) > 0.65


def test_without_probability_colours_stay() -> None:
    photo, _ = quarters()
    assert np.array_equal(np.asarray(jitter_colors(Image.fromarray(photo), 0.0, np.random.default_rng(0))), photo)
