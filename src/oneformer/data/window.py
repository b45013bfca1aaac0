"""A window of a photo and the size it is scaled to -> its pixels, and the labels that lie under their centres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

# A hair more than the scale, so that a size which rounding left below a whole number is not cut down by one.
NUDGE = 1 + 1e-9


@dataclass(frozen=True)
class Window:
    """The part of a photo that is kept: `height` x `width` pixels, each `step` (y, x) of the photo's pixels wide."""

    top: int  # in pixels of the photo
    left: int
    step: tuple[float, float]
    height: int
    width: int

    @classmethod
    def draw(
        cls,
        photo: Sequence[int],
        size: tuple[int, int],
        crop: tuple[int, int],
        *,
        rng: np.random.Generator,
        grid: int = 1,
    ) -> Window:
        """A window of the crop's size of a photo scaled to `size`, or all of it where that is smaller, anywhere.

        It begins at a pixel of the photo, at every `grid`-th where that is decoded at a fraction of its size.
        """
        step = (photo[0] / size[0], photo[1] / size[1])
        height, width = min(size[0], crop[0]), min(size[1], crop[1])
        top = int(rng.integers(0, size[0] - height + 1) * step[0] / grid) * grid
        left = int(rng.integers(0, size[1] - width + 1) * step[1] / grid) * grid
        return cls(top, left, step, height, width)

    def region(self, pixels: np.ndarray, *, grid: int = 1) -> np.ndarray:
        """The pixels (R, C, 3) that the window is made of, and one more; a `grid`-th of the photo's size is given."""
        top, left = self.top // grid, self.left // grid
        rows, columns = (
            int(np.ceil(count * step / grid)) + 1
            for count, step in zip((self.height, self.width), self.step, strict=True)
        )
        return pixels[top : top + rows, left : left + columns]

    def scaled(self, region: torch.Tensor, *, grid: int = 1) -> torch.Tensor:
        """uint8 (3, R, C) of `region` -> (3, height, width), bilinear, antialiased where that makes it smaller."""
        if self.step == (grid, grid):
            return region[:, : self.height, : self.width]
        scale = [NUDGE * grid / step for step in self.step]
        # A batch whose channels lie together in memory, and whose strides say so, takes torch less than half the time.
        batch = region.permute(1, 2, 0).contiguous()[None].permute(0, 3, 1, 2)
        # Pillow's filter in a third of its time. It takes no window within a pixel: hence whole `top` and `left`.
        out = torch.nn.functional.interpolate(
            batch, scale_factor=scale, mode="bilinear", antialias=True, recompute_scale_factor=False
        )[0]
        return out[:, : self.height, : self.width]

    def labels(self, ids: np.ndarray) -> Picked:
        """The window of a map (H, W) of the photo's labels: each pixel takes the label at its centre."""
        return Picked.of(
            ids,
            _places(self.top, self.height, self.step[0], ids.shape[0]),
            _places(self.left, self.width, self.step[1], ids.shape[1]),
        )


def _places(start: int, count: int, step: float, end: int) -> np.ndarray:
    places: np.ndarray = (start + (np.arange(count) + 0.5) * step).astype(np.intp)
    return np.minimum(places, end - 1)


@dataclass(frozen=True)
class Picked:
    """A map of labels (h, w), kept as rows and columns of the part of the photo's map that it shows.

    Where a photo is enlarged, that part is the smaller of the two, so whatever is done to each label is done to `seen`
    and spread to the whole map last. Mirroring and turning only change the lists.
    """

    seen: np.ndarray  # (r, c): the labels that are in the map, none that is not
    rows: np.ndarray  # (h,): places in `seen`
    columns: np.ndarray  # (w,)
    transposed: bool = False

    @classmethod
    def of(cls, ids: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> Picked:
        """Rising `rows` and `columns` of a map."""
        own_rows, row_of = np.unique(rows, return_inverse=True)
        own_columns, column_of = np.unique(columns, return_inverse=True)
        return cls(ids[_slice(own_rows)][:, _slice(own_columns)], row_of, column_of)

    @classmethod
    def whole(cls, ids: np.ndarray) -> Picked:
        """All of a map as it is."""
        return cls(ids, np.arange(ids.shape[0]), np.arange(ids.shape[1]))

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w)."""
        height, width = len(self.rows), len(self.columns)
        return (width, height) if self.transposed else (height, width)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """What was made of `seen` (r, c) -> the map (h, w)."""
        picked = values.take(self.columns, axis=1).take(self.rows, axis=0)
        return np.ascontiguousarray(picked.T) if self.transposed else picked

    def map(self) -> np.ndarray:
        """The labels themselves (h, w)."""
        return self.spread(self.seen)

    def mirrored(self) -> Picked:
        """Left and right exchanged."""
        assert not self.transposed, "turns come last"
        return replace(self, columns=self.columns[::-1])

    def upended(self) -> Picked:
        """Top and bottom exchanged."""
        assert not self.transposed, "turns come last"
        return replace(self, rows=self.rows[::-1])

    def turned(self, quarters: int) -> Picked:
        """Turned to the left by 1, 2 or 3 quarters."""
        assert not self.transposed and quarters in (1, 2, 3), "one turn, which comes last"
        rows = self.rows if quarters == 1 else self.rows[::-1]
        columns = self.columns if quarters == 3 else self.columns[::-1]
        return replace(self, rows=rows, columns=columns, transposed=quarters != 2)


def _slice(places: np.ndarray) -> np.ndarray | slice:
    """Rising places, as a slice where they leave none out."""
    return slice(places[0], places[-1] + 1) if places[-1] - places[0] + 1 == len(places) else places
