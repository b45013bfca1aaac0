"""Augmentation: photo and ids stay together, sizes follow the published rules, chance comes from one generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from oneformer.data.augment import Augment, erased_box, frame_of, jittered_size, reduction, shortest_edge_size
from oneformer.data.decode import Photo, open_photo
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


EVERYTHING = {
    "flip_prob": 0.5, "vertical_flip_prob": 0.5, "rotate90_prob": 0.5, "rotation_prob": 0.5, "rotation_degrees": 40.0,
    "blur_prob": 0.3, "blur_sigma": 0.8, "erase_prob": 0.5, "crop_max_class_frac": 0.9,
}  # fmt: skip


def augmented(
    augment: Augment, photo: np.ndarray | Photo, ids: np.ndarray, *, classes: np.ndarray = CLASSES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (h, w, 3) and ids (h, w)."""
    out = augment(photo, ids, classes=classes, rng=np.random.default_rng(seed))
    return out.pixels.permute(1, 2, 0).numpy(), out.ids.map()


@pytest.mark.parametrize(
    "changes",
    [
        {"flip_prob": 1.0},
        {"vertical_flip_prob": 1.0},
        {"rotate90_prob": 1.0},
        {"rotate90_prob": 1.0, "train_crop_size": [48, 64]},
        {"min_scale": 0.1, "max_scale": 2.0},
        {"train_resize": "shortest_edge", "train_min_size": [40, 90], "train_max_size": 500},
        {"rotation_prob": 1.0},
        {"rotation_prob": 1.0, "rotation_degrees": 180.0, "rotate90_prob": 1.0, "flip_prob": 1.0},
        {"erase_prob": 1.0},
        {"blur_prob": 1.0, "blur_sigma": 0.5},
        {"image_size": [96, 80]},
        EVERYTHING,
    ],
)
def test_photo_and_ids_change_together(changes: dict[str, object]) -> None:
    augment = Augment(section(**changes))
    photo, ids = quarters()
    for seed in range(20):
        out, out_ids = augmented(augment, photo, ids, seed=seed)
        assert out.shape == (*out_ids.shape, 3)
        assert out.shape[0] <= augment.crop[0] and out.shape[1] <= augment.crop[1]
        shown = out_ids < len(CLASSES)
        differ = shown & (np.abs(out[..., 0].astype(int) - out_ids * 80) > 40)
        # Bilinear and nearest only disagree in the pixels at the borders of the quarters, two of them where turned.
        assert differ.sum() <= 2 * (out.shape[0] + out.shape[1])
        assert not (out_ids > len(CLASSES)).any()


@given(st.integers(50, 130), st.integers(50, 130), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_every_pixel_keeps_the_object_it_shows(height: int, width: int, seed: int) -> None:
    """Each object has a colour of its own: whatever happens, the id under a pixel is that of its colour."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 6, (1 + height // 20, 1 + width // 20))
    ids = np.kron(coarse, np.ones((20, 20), int))[:height, :width].astype(np.int16)
    photo = np.stack([ids * 50, 250 - ids * 50, ids % 2 * 200], axis=-1).astype(np.uint8)
    calm = {**EVERYTHING, "blur_prob": 0.0, "crop_max_class_frac": 1.0}
    out, out_ids = augmented(
        Augment(section(**calm, min_scale=0.5, max_scale=1.2)), photo, ids, classes=np.arange(6), seed=seed
    )
    plain = out.astype(int)
    for number in np.unique(out_ids[out_ids < 6]).tolist():
        assert number in ids
    inner = np.ones(out_ids.shape, bool)  # pixels whose neighbours are all of their id
    for shift in (-3, -2, -1, 1, 2, 3):
        for axis in (0, 1):
            inner &= np.roll(out_ids, shift, axis) == out_ids
    inner[:3], inner[-3:], inner[:, :3], inner[:, -3:] = False, False, False, False
    inner &= out_ids < 6
    expected = np.stack([out_ids * 50, 250 - out_ids * 50, out_ids % 2 * 200], axis=-1)
    assert np.abs(plain - expected)[inner].max(initial=0) <= 60


def test_flips_and_turns_really_happen() -> None:
    photo, ids = quarters(64, 64)
    calm = {"min_scale": 1.0, "max_scale": 1.0}

    def seen(seed: int = 0, **changes: float) -> np.ndarray:
        return augmented(Augment(section(**calm, **changes)), photo, ids, seed=seed)[1]

    assert np.array_equal(seen(), ids)
    assert np.array_equal(seen(flip_prob=1.0), ids[:, ::-1])
    assert np.array_equal(seen(vertical_flip_prob=1.0), ids[::-1])
    assert {int(seen(seed, rotate90_prob=1.0)[0, 0]) for seed in range(40)} == {1, 2, 3}, "each of the three turns"


def test_a_turned_photo_has_void_corners_of_the_mean_colour() -> None:
    photo, ids = quarters(64, 64)
    calm = {"min_scale": 1.0, "max_scale": 1.0, "rotation_prob": 1.0, "rotation_degrees": 45.0}
    dataset = section(**calm)
    hidden = [augmented(Augment(dataset), photo, ids, seed=seed) for seed in range(10)]
    for out, out_ids in hidden:
        void = out_ids == len(CLASSES)
        assert 0 < void.mean() < 0.25 and void[0, 0] == void[-1, -1]
        inside = void & np.roll(void, 2, 0) & np.roll(void, 2, 1) & np.roll(void, -2, 0) & np.roll(void, -2, 1)
        assert np.abs(out[inside].astype(float) - dataset.pixel_mean).max(initial=0) <= 1
    assert len({(ids == len(CLASSES)).sum() for _, ids in hidden}) > 5, "angles differ"


def test_erasing_covers_a_rectangle_without_labels() -> None:
    photo, ids = quarters(64, 64)
    dataset = section(min_scale=1.0, max_scale=1.0, erase_prob=1.0, erase_max_frac=0.3)
    shares = []
    for seed in range(40):
        out, out_ids = augmented(Augment(dataset), photo, ids, seed=seed)
        void = out_ids == len(CLASSES)
        rows, columns = np.flatnonzero(void.any(axis=1)), np.flatnonzero(void.any(axis=0))
        assert void[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all(), "one rectangle"
        assert np.abs(out[void].astype(float) - dataset.pixel_mean).max() <= 0.5
        assert np.array_equal(out_ids[~void], ids[~void])
        shares.append(void.mean())
    assert min(shares) < 0.08 and 0.2 < max(shares) < 0.33


def test_a_rectangle_that_cannot_fit_is_not_drawn() -> None:
    assert erased_box((1, 500), 0.2, np.random.default_rng(0)) is None


def test_many_ids_leave_room_for_void() -> None:
    ids = np.full((32, 32), 2**15 - 1, np.int16)
    for changes in ({"erase_prob": 1.0}, {"rotation_prob": 1.0, "rotation_degrees": 45.0}):
        _, out = augmented(
            Augment(section(**changes)), np.zeros((32, 32, 3), np.uint8), ids, classes=np.zeros(2**15, int), seed=1
        )
        assert set(np.unique(out)) == {2**15 - 1, 2**15}


def test_the_same_generator_gives_the_same_sample_and_another_does_not() -> None:
    augment = Augment(section(**EVERYTHING, color_jitter_prob=0.5, min_scale=0.5))
    photo, ids = quarters()
    photo = photo + np.arange(120, dtype=np.uint8)[None, :, None]
    for seed in range(10):
        first, second, other = (augmented(augment, photo, ids, seed=s)[0] for s in (seed, seed, seed + 100))
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


def test_jitter_fits_photos_into_image_size_and_the_crop_without_one() -> None:
    assert frame_of(section()) == (64, 64)
    assert frame_of(section(image_size=100)) == (100, 100)
    assert frame_of(section(image_size=[120, 90])) == (90, 120), "[width, height], as TAO writes it"
    photo, ids = quarters()
    out, _ = augmented(Augment(section(image_size=30, min_scale=1.0, max_scale=1.0)), photo, ids)
    assert out.shape == (20, 30, 3)


def smooth(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / 17 + columns / 23 + phase) for phase in (0, 2, 4)]
    return (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def test_a_large_jpeg_is_decoded_at_a_fraction_and_looks_the_same(tmp_path: Path) -> None:
    path, size = tmp_path / "large.jpg", (601, 803)
    Image.fromarray(smooth(*size)).save(path, quality=95)
    ids = (np.arange(size[0])[:, None] // 50 * 20 + np.arange(size[1])[None] // 50).astype(np.int16)
    augment = Augment(section(min_scale=1.0, max_scale=1.0, train_crop_size=[96, 128]))
    with open_photo(path) as photo:
        assert (
            reduction(photo, (96, 128)) == 2 and reduction(photo, (30, 40)) == 8 and reduction(photo, (400, 500)) == 1
        )
        small, small_ids = augmented(augment, photo, ids, classes=np.arange(1000))
        whole, whole_ids = augmented(augment, Photo.of(photo.pixels()), ids, classes=np.arange(1000))
    assert np.array_equal(small_ids, whole_ids)
    assert np.abs(small.astype(int) - whole).max() <= 4


def test_a_fraction_keeps_photo_and_ids_together_in_crops(tmp_path: Path) -> None:
    path = tmp_path / "blocks.jpg"
    ids = np.kron(np.arange(12).reshape(3, 4), np.ones((160, 160), int)).astype(np.int16)
    Image.fromarray(np.repeat((ids * 20)[..., None], 3, axis=-1).astype(np.uint8)).save(path, quality=98)
    augment = Augment(section(min_scale=0.5, max_scale=1.4, train_crop_size=[64, 64], flip_prob=0.5))
    for seed in range(30):
        with open_photo(path) as photo:
            out, out_ids = augmented(augment, photo, ids, classes=np.arange(12), seed=seed)
        differ = np.abs(out[..., 0].astype(int) - out_ids * 20) > 10
        assert differ.sum() <= 3 * sum(out_ids.shape)


def test_a_crop_of_nearly_one_class_is_drawn_again() -> None:
    ids = np.zeros((64, 640), np.int32)
    ids[:, :60] = 1
    photo = np.zeros((64, 640, 3), np.uint8)
    options = {"train_resize": "shortest_edge", "train_min_size": [64], "train_max_size": 640}

    def share_of_mixed(limit: float) -> float:
        augment = Augment(section(**options, crop_max_class_frac=limit))
        crops = [augmented(augment, photo, ids, classes=np.array([0, 1]), seed=s)[1] for s in range(80)]
        return float(np.mean([len(np.unique(c)) > 1 for c in crops]))

    assert share_of_mixed(0.9) > 2 * share_of_mixed(1.0)


def test_void_does_not_count_as_a_class_in_crops() -> None:
    ids = np.zeros((64, 128), np.int32)
    ids[:, ::2] = 1
    augment = Augment(section(train_resize="shortest_edge", train_min_size=[64], crop_max_class_frac=0.6))
    out = augmented(augment, np.zeros((64, 128, 3), np.uint8), ids, classes=np.array([-1, 4]))
    assert out[1].shape == (64, 64), "a crop is returned although every one has a single class"
