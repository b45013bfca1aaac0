"""A photo and its id map -> the same, randomly scaled, cropped, mirrored, turned and recoloured by one generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from oneformer.spec.data import DatasetSpec

CROP_TRIES = 10  # oneformer-model.md 1.9 (ADE20K recipe) and tao-oneformer.md 3.4
# SSD's colour changes, oneformer-model.md 1.9.
BRIGHTNESS = 32.0
CONTRAST = (0.5, 1.5)
SATURATION = (0.5, 1.5)
HUE_FRAC = 18 / 180  # 18 steps of OpenCV's 180 hues, as a share of the whole circle

TURNS = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}


@dataclass(frozen=True)
class Window:
    """The part of a photo scaled to `size` (height, width) that is kept, in pixels of the scaled photo."""

    size: tuple[int, int]
    top: int
    left: int
    height: int
    width: int


class Augment:
    """The training pipeline of one data set section, see `__call__`."""

    def __init__(self, dataset: DatasetSpec) -> None:
        self.spec = dataset.augmentation
        self.min_scale, self.max_scale = dataset.min_scale, dataset.max_scale
        height, width = self.spec.train_crop_size
        self.crop = (int(height), int(width))

    def __call__(
        self, image: np.ndarray | Image.Image, ids: np.ndarray, *, classes: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (H, W, 3) and ids (H, W) -> uint8 (h, w, 3) and ids (h, w), at most the crop's size, not padded.

        `classes[id]` is the class of an id, -1 for what does not count (void), for `crop_max_class_frac`; ids are 0 ..
        len(classes) - 1. Photos are scaled bilinearly with antialiasing, ids to the nearest pixel.
        """
        photo = image if isinstance(image, Image.Image) else Image.fromarray(image)
        size = self._scaled_size(ids.shape, rng)
        window, ids = self._crop(size, ids, classes, rng)
        photo = cut_photo(photo, window)
        if rng.random() < self.spec.flip_prob:
            photo, ids = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT), ids[:, ::-1]
        if rng.random() < self.spec.vertical_flip_prob:
            photo, ids = photo.transpose(Image.Transpose.FLIP_TOP_BOTTOM), ids[::-1]
        if rng.random() < self.spec.rotate90_prob:
            # A quarter turn of an oblong crop would not fit the batch's shape.
            turns = int(rng.integers(1, 4)) if self.crop[0] == self.crop[1] else 2
            photo, ids = photo.transpose(TURNS[turns]), np.rot90(ids, turns)
        photo = jitter_colors(photo, self.spec.color_jitter_prob, rng)
        return np.asarray(photo), np.ascontiguousarray(ids)

    def _scaled_size(self, size: Sequence[int], rng: np.random.Generator) -> tuple[int, int]:
        """The photo's (height, width) after random scaling."""
        if self.spec.train_resize == "lsj":
            return jittered_size(size, self.crop, scale=rng.uniform(self.min_scale, self.max_scale))
        shorter = int(rng.choice(self.spec.train_min_size))
        return shortest_edge_size(size, min_size=shorter, max_size=self.spec.train_max_size)

    def _crop(
        self, size: tuple[int, int], ids: np.ndarray, classes: np.ndarray, rng: np.random.Generator
    ) -> tuple[Window, np.ndarray]:
        """A random window of the scaled photo and the ids in it; redrawn while one class covers too much of it."""
        limit = self.spec.crop_max_class_frac
        free = size[0] > self.crop[0] or size[1] > self.crop[1]
        for _ in range(CROP_TRIES if limit < 1 and free else 1):
            window = random_window(size, self.crop, rng)
            cut = cut_ids(ids, window)
            if limit >= 1 or _largest_share(classes.take(cut)) <= limit:
                break
        return window, cut


def _largest_share(classes: np.ndarray) -> float:
    """The share of the class that covers most, of all pixels that have a class (-1 has none)."""
    counts = np.bincount(classes.ravel() + 1)[1:]
    return float(counts.max() / counts.sum()) if counts.sum() else 1.0


def jittered_size(size: Sequence[int], crop: tuple[int, int], *, scale: float) -> tuple[int, int]:
    """Large-scale jitter: the photo's (height, width) so that it just fits into `scale` times the crop.

    Rule of the published COCO recipe (oneformer-model.md 1.9; detectron2 ResizeScale).
    """
    factor = min(scale * crop[0] / size[0], scale * crop[1] / size[1])
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def shortest_edge_size(size: Sequence[int], *, min_size: int, max_size: int) -> tuple[int, int]:
    """The photo's (height, width) with the shorter side `min_size`, but the longer at most `max_size`.

    Rule of the published recipes: rounded by int(x + 0.5) (oneformer-model.md 1.1).
    """
    height, width = size
    factor = min_size / min(height, width)
    if max(height, width) * factor > max_size:
        factor = max_size / max(height, width)
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def random_window(size: tuple[int, int], crop: tuple[int, int], rng: np.random.Generator) -> Window:
    """A window of the crop's size, or the photo's where that is smaller, anywhere with equal probability."""
    height, width = min(size[0], crop[0]), min(size[1], crop[1])
    top = int(rng.integers(0, size[0] - height + 1))
    left = int(rng.integers(0, size[1] - width + 1))
    return Window(size, top, left, height, width)


def cut_photo(photo: Image.Image, window: Window) -> Image.Image:
    """The window of the scaled photo; only the pixels in it are computed."""
    y, x = photo.height / window.size[0], photo.width / window.size[1]
    box = (
        window.left * x,
        window.top * y,
        min((window.left + window.width) * x, photo.width),
        min((window.top + window.height) * y, photo.height),
    )
    return photo.resize((window.width, window.height), Image.Resampling.BILINEAR, box=box)


def cut_ids(ids: np.ndarray, window: Window) -> np.ndarray:
    """The window of the scaled id map (H, W): each pixel takes the id at its centre."""
    rows = (np.arange(window.top, window.top + window.height) + 0.5) * (ids.shape[0] / window.size[0])
    columns = (np.arange(window.left, window.left + window.width) + 0.5) * (ids.shape[1] / window.size[1])
    rows = np.minimum(rows.astype(np.intp), ids.shape[0] - 1)
    columns = np.minimum(columns.astype(np.intp), ids.shape[1] - 1)
    return ids[rows][:, columns]


def jitter_colors(photo: Image.Image, prob: float, rng: np.random.Generator) -> Image.Image:
    """SSD's colour changes, each with probability `prob`: brightness; contrast before or after saturation and hue."""
    steps = np.arange(256, dtype=np.float64)
    brightness = steps + rng.uniform(-BRIGHTNESS, BRIGHTNESS) if rng.random() < prob else None
    contrast = steps * rng.uniform(*CONTRAST) if rng.random() < prob else None
    saturation = steps * rng.uniform(*SATURATION) if rng.random() < prob else None
    hue = (steps + rng.uniform(-HUE_FRAC, HUE_FRAC) * 256) % 256 if rng.random() < prob else None
    contrast_first = rng.random() < 0.5

    photo = _mapped(photo, brightness)
    if contrast_first:
        photo = _mapped(photo, contrast)
    if saturation is not None or hue is not None:
        tables = [hue if hue is not None else steps, saturation if saturation is not None else steps, steps]
        photo = photo.convert("HSV").point([value for table in tables for value in _bytes(table)]).convert("RGB")
    return photo if contrast_first else _mapped(photo, contrast)


def _mapped(photo: Image.Image, table: np.ndarray | None) -> Image.Image:
    """Each channel's values replaced by the table's."""
    return photo if table is None else photo.point(_bytes(table) * 3)


def _bytes(table: np.ndarray) -> list[int]:
    return np.clip(np.rint(table), 0, 255).astype(np.uint8).tolist()
