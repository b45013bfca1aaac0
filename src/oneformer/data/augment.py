"""A photo and its id map -> the same, randomly scaled, cropped, mirrored, turned and recoloured by one generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from oneformer.data.color import MIN_SIGMA, Colors, blurred
from oneformer.data.decode import Photo
from oneformer.data.window import Picked, Window

if TYPE_CHECKING:
    from oneformer.spec.data import DatasetSpec

CROP_TRIES = 10  # oneformer-model.md 1.9 (ADE20K recipe) and tao-oneformer.md 3.4
# Erasing, tao-oneformer.md 3.4: least share of the crop, narrowest and widest shape, draws until one fits.
MIN_ERASED = 0.02
ASPECT = (0.3, 3.3)
ERASE_TRIES = 10
# A JPEG is decoded at a fraction as long as that leaves so many pixels for each that is kept: then the filter hides it.
SPARE = 2.0
REDUCTIONS = (8, 4, 2)


@dataclass(frozen=True)
class Augmented:
    """What is kept of a photo: uint8 (3, h, w), and its ids of the same size."""

    pixels: torch.Tensor
    ids: Picked


class Augment:
    """The training pipeline of one data set section, see `__call__`."""

    def __init__(self, dataset: DatasetSpec) -> None:
        self.spec = dataset.augmentation
        self.min_scale, self.max_scale = dataset.min_scale, dataset.max_scale
        height, width = self.spec.train_crop_size
        self.crop = (int(height), int(width))
        self.frame = frame_of(dataset)
        self.fill = torch.tensor(dataset.pixel_mean).round().to(torch.uint8)

    def __call__(
        self, photo: Photo | np.ndarray, ids: np.ndarray, *, classes: np.ndarray, rng: np.random.Generator
    ) -> Augmented:
        """A photo (uint8 (H, W, 3)) and ids (H, W) -> what is kept of both, at most the crop's size, not padded.

        `classes[id]` is the class of an id, -1 for what does not count (void), for `crop_max_class_frac`; ids are 0 ..
        len(classes) - 1. The id len(classes) stands for pixels that show nothing of the photo any more. Photos are
        scaled bilinearly with antialiasing, ids to the nearest pixel. Steps that are switched off draw no number.
        Raises DataError when the photo cannot be decoded.
        """
        photo = photo if isinstance(photo, Photo) else Photo.of(photo)
        size = self._scaled_size(ids.shape, rng)
        angle = self._angle(rng)
        grid = 1 if angle else reduction(photo, size)
        classes = np.append(classes, -1)
        hidden = len(classes) - 1
        if angle:
            ids = turned_ids(ids, angle, hidden)
        window, picked = self._crop(ids, size, grid, classes, rng)
        picked, changes = self._mirror(picked, rng)
        colors = Colors.draw(self.spec.color_jitter_prob, rng)

        whole = photo.pixels(grid)
        if angle:
            whole = turned_photo(whole, angle, tuple(self.fill.tolist()))
        region = np.require(window.region(whole, grid=grid), requirements=("C", "W"))
        pixels = torch.from_numpy(region).permute(2, 0, 1)  # (3, R, C)
        # Where the photo is enlarged, it has fewer pixels before than afterwards.
        colors_first = region.shape[0] * region.shape[1] < window.height * window.width
        pixels = colors(pixels) if colors_first else pixels
        pixels = changes(window.scaled(pixels, grid=grid))
        pixels = pixels if colors_first else colors(pixels)
        return self._hide(self._blur(pixels, rng), picked, hidden, rng)

    def _scaled_size(self, size: Sequence[int], rng: np.random.Generator) -> tuple[int, int]:
        """The photo's (height, width) after random scaling."""
        if self.spec.train_resize == "lsj":
            return jittered_size(size, self.frame, scale=rng.uniform(self.min_scale, self.max_scale))
        shorter = int(rng.choice(self.spec.train_min_size))
        return shortest_edge_size(size, min_size=shorter, max_size=self.spec.train_max_size)

    def _angle(self, rng: np.random.Generator) -> float:
        """Degrees to the left, 0 for none."""
        most = self.spec.rotation_degrees
        return rng.uniform(-most, most) if happens(self.spec.rotation_prob, rng) else 0.0

    def _crop(
        self, ids: np.ndarray, size: tuple[int, int], grid: int, classes: np.ndarray, rng: np.random.Generator
    ) -> tuple[Window, Picked]:
        """A random window of the scaled photo and the ids in it; redrawn while one class covers too much of it."""
        limit = self.spec.crop_max_class_frac
        free = size[0] > self.crop[0] or size[1] > self.crop[1]
        for _ in range(CROP_TRIES if limit < 1 and free else 1):
            window = Window.draw(ids.shape, size, self.crop, rng=rng, grid=grid)
            picked = window.labels(ids)
            if limit >= 1 or _largest_share(picked.spread(classes[picked.seen])) <= limit:
                break
        return window, picked

    def _mirror(self, ids: Picked, rng: np.random.Generator) -> tuple[Picked, Mirror]:
        """Flips and quarter turns of the ids, and what does the same to pixels."""
        flips: list[int] = []
        if rng.random() < self.spec.flip_prob:
            flips, ids = [*flips, -1], ids.mirrored()
        if rng.random() < self.spec.vertical_flip_prob:
            flips, ids = [*flips, -2], ids.upended()
        quarters = 0
        if rng.random() < self.spec.rotate90_prob:
            # A quarter turn of an oblong crop would not fit the batch's shape.
            quarters = int(rng.integers(1, 4)) if self.crop[0] == self.crop[1] else 2
            ids = ids.turned(quarters)
        return ids, Mirror(tuple(flips), quarters)

    def _blur(self, pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        if not happens(self.spec.blur_prob, rng):
            return pixels
        return blurred(pixels, rng.uniform(MIN_SIGMA, max(MIN_SIGMA, self.spec.blur_sigma)))

    def _hide(self, pixels: torch.Tensor, ids: Picked, hidden: int, rng: np.random.Generator) -> Augmented:
        """Erase a rectangle now and then: the mean colour, and no label."""
        box = erased_box(ids.shape, self.spec.erase_max_frac, rng) if happens(self.spec.erase_prob, rng) else None
        if box is None:
            return Augmented(pixels, ids)
        pixels = pixels.clone()
        pixels[:, box[0], box[1]] = self.fill[:, None, None]
        whole = holding(ids.map(), hidden)
        whole[box] = hidden
        return Augmented(pixels, Picked.whole(whole))


@dataclass(frozen=True)
class Mirror:
    """Flips of dimensions and quarter turns to the left, in this order."""

    flips: tuple[int, ...]
    quarters: int

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (3, h, w) -> the same mirrored and turned."""
        pixels = pixels.flip(self.flips) if self.flips else pixels
        return torch.rot90(pixels, self.quarters, (1, 2)) if self.quarters else pixels


def happens(prob: float, rng: np.random.Generator) -> bool:
    """Whether something of this probability happens; what never does takes no number from the generator."""
    return prob > 0 and bool(rng.random() < prob)


def frame_of(dataset: DatasetSpec) -> tuple[int, int]:
    """(height, width) that large-scale jitter of scale 1 fits photos into: `image_size`, else the crop."""
    given = dataset.image_size
    if not given:
        height, width = dataset.augmentation.train_crop_size
        return int(height), int(width)
    width, height = (given, given) if isinstance(given, int) else (given[0], given[-1])
    return int(height), int(width)


def reduction(photo: Photo, size: tuple[int, int]) -> int:
    """1, 2, 4 or 8: the part of its size at which a photo that is scaled to `size` (height, width) may be decoded."""
    if photo.reducible:
        for reduce in REDUCTIONS:
            if all(have >= SPARE * reduce * want for have, want in zip(photo.size, size, strict=True)):
                return reduce
    return 1


def _largest_share(classes: np.ndarray) -> float:
    """The share of the class that covers most, of all pixels that have a class (-1 has none)."""
    counts = np.bincount(classes.ravel() + 1)[1:]
    return float(counts.max() / counts.sum()) if counts.sum() else 1.0


def jittered_size(size: Sequence[int], frame: tuple[int, int], *, scale: float) -> tuple[int, int]:
    """Large-scale jitter: the photo's (height, width) so that it just fits into `scale` times the frame.

    Rule of the published COCO recipe (oneformer-model.md 1.9; detectron2 ResizeScale).
    """
    factor = min(scale * frame[0] / size[0], scale * frame[1] / size[1])
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


def turned_photo(pixels: np.ndarray, angle: float, fill: tuple[int, ...]) -> np.ndarray:
    """uint8 (H, W, 3) turned to the left about its middle by so many degrees; corners of the colour `fill`."""
    turned = Image.fromarray(pixels).rotate(angle, Image.Resampling.BILINEAR, fillcolor=fill)
    return np.asarray(turned)


def turned_ids(ids: np.ndarray, angle: float, hidden: int) -> np.ndarray:
    """The same for ids (H, W), to the nearest pixel; corners are `hidden`."""
    turned = Image.fromarray(ids.astype(np.int32)).rotate(angle, Image.Resampling.NEAREST, fillcolor=hidden)
    return np.asarray(turned).astype(holding(ids, hidden).dtype)


def holding(ids: np.ndarray, number: int) -> np.ndarray:
    """The ids, in a type that has room for `number`."""
    return ids if number <= np.iinfo(ids.dtype).max else ids.astype(np.int32)


def erased_box(size: tuple[int, int], most: float, rng: np.random.Generator) -> tuple[slice, slice] | None:
    """Rows and columns of a random rectangle of at most the share `most` of (height, width); None when none fits."""
    for _ in range(ERASE_TRIES):
        area = rng.uniform(min(MIN_ERASED, most), most) * size[0] * size[1]
        aspect = exp(rng.uniform(log(ASPECT[0]), log(ASPECT[1])))
        height, width = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < height < size[0] and 0 < width < size[1]:
            top, left = int(rng.integers(0, size[0] - height + 1)), int(rng.integers(0, size[1] - width + 1))
            return slice(top, top + height), slice(left, left + width)
    return None
