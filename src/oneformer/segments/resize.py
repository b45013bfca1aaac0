"""Mask logits (N, h, w) -> the same masks at the photo's own size, band by band of rows, in bounded memory.

The rule (OneFormer's published inference): bilinear to the padded network input, crop to the part that holds the
image, bilinear to the photo's size, both without aligned corners. Bilinear resizing is linear and separable, so the two
resizes and the crop together are one small matrix per axis. The matrices are made by sending unit vectors through
torch's own resize, so its rounding of coordinates is kept; results differ from the two resizes of whole arrays only in
the order of float32 sums (1e-6 of the largest logit). What is gained: no padded-size intermediate, less than half the
time on a CPU, and any band of rows can be computed alone, so memory does not grow with the photo.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, interpolate

Size = tuple[int, int]
"""Height and width in pixels."""

BAND_VALUES = {"cpu": 2**20, "cuda": 2**26}
"""Float32 values of one band: 4 MiB stay near the CPU's caches, 256 MiB keep a GPU busy (measured and estimated)."""

COLUMN_BLOCK = 64  # output columns per product: each needs only the few mask columns under it

P = ParamSpec("P")
R = TypeVar("R")


def exact(function: Callable[P, R]) -> Callable[P, R]:
    """A function of tensors that runs without gradients and outside autocast, whose bfloat16 would move mask edges."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(value.device for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            return function(*args, **kwargs)

    return run


@dataclass(frozen=True)
class Frame:
    """The three sizes that lead from a mask back to the photo, each (height, width) in pixels.

    Args:
        input_size: the padded network input; masks are a quarter of it.
        size: the part of it that holds the image (top left); the rest is padding.
        original_size: the photo as it came.
    """

    input_size: Size
    size: Size
    original_size: Size

    def __post_init__(self) -> None:
        assert min(*self.input_size, *self.size, *self.original_size) > 0, f"sizes must be positive: {self}"
        fits = self.size[0] <= self.input_size[0] and self.size[1] <= self.input_size[1]
        assert fits, f"the image does not fit into the padded input: {self}"


@dataclass(frozen=True)
class Band:
    """Rows `start` to `stop` of the photo, made from mask rows `first` to `last` (both half-open)."""

    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True)
class Cells:
    """The pixels along one axis of the photo, grouped by the mask pixels that they are means of.

    Args:
        taps: (c, t) mask pixels of each cell.
        of_pixel: (len,) the cell of each pixel of the photo.
    """

    taps: Tensor
    of_pixel: Tensor

    @staticmethod
    def of(taps: Tensor) -> Cells:
        """From the mask pixels (len, t) of each pixel."""
        return Cells(*torch.unique(taps, dim=0, return_inverse=True))


class Upsampler:
    """Resizes masks of one image; make it once per image, use it for any subset of its masks.

    Args:
        mask_size: (h, w) of the masks.
        frame: the sizes of the way back to the photo.
        device: where the masks live.
    """

    def __init__(self, mask_size: Size, frame: Frame, *, device: torch.device) -> None:
        self.frame = frame
        self.height, self.width = frame.original_size
        self.device = device
        self.dtype = _exact_dtype(device)
        rows, columns = (
            axis_matrix(mask_size[i], frame.input_size[i], frame.size[i], frame.original_size[i]) for i in (0, 1)
        )  # (H, h), (W, w)
        self._axes, self._mask_width = (rows, columns), mask_size[1]
        self._reach = _reach(rows)
        self._rows = rows.to(device, self.dtype)
        reach = _reach(columns)
        self._columns = []
        for start in range(0, self.width, COLUMN_BLOCK):
            first, last = _cover(reach, start, min(start + COLUMN_BLOCK, self.width))
            block = columns[start : start + COLUMN_BLOCK, first:last]
            self._columns.append((first, last, block.T.contiguous().to(device, self.dtype)))  # (last - first, 64)
        self._held = torch.empty(0, dtype=self.dtype, device=device)

    def bands(self, num_masks: int, *, start: int = 0) -> Iterator[Band]:
        """The photo's rows from `start` to the bottom, in bands whose masks fit `BAND_VALUES`."""
        budget = BAND_VALUES.get(self.device.type, BAND_VALUES["cpu"])
        step = max(1, budget // max(1, num_masks * self.width))
        for first in range(start, self.height, step):
            stop = min(first + step, self.height)
            yield Band(first, stop, *_cover(self._reach, first, stop))

    def rows(self, masks: Tensor, band: Band) -> Tensor:
        """One band of the masks at the photo's size, (N, r, W) float32; the next call writes over it.

        Args:
            masks: (N, h, w) of any float type.
            band: from `bands`.
        """
        mix = self._rows[band.start : band.stop, band.first : band.last]  # (r, s)
        tall = (mix @ masks[:, band.first : band.last].to(self.dtype)).flatten(0, 1)  # (N * r, w)
        wide = self._buffer(tall.shape[0])  # (N * r, W)
        for number, (first, last, block) in enumerate(self._columns):
            start = number * COLUMN_BLOCK
            torch.mm(tall[:, first:last], block, out=wide[:, start : start + block.shape[1]])
        return wide.to(torch.float32).view(masks.shape[0], band.stop - band.start, self.width)

    def pixels(self, table: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
        """All masks at some pixels of the photo: (P, N) float32, equal to `rows` but for the order of sums; CPU only.

        Args:
            table: (h * w, N) float32, the masks pixel by pixel.
            ys, xs: (P,) rows and columns of the photo.
        """
        (rows, row_shares), (columns, column_shares) = self._taps
        at = rows[ys][:, :, None] * self._mask_width + columns[xs][:, None, :]
        shares = row_shares[ys][:, :, None] * column_shares[xs][:, None, :]
        return embedding_bag(at.flatten(1), table, per_sample_weights=shares.flatten(1), mode="sum")

    @cached_property
    def cells(self) -> tuple[Cells, Cells]:
        """Along rows and along columns: which mask pixels the photo's pixels are means of."""
        return tuple(Cells.of(taps) for taps, _ in self._taps)  # type: ignore[return-value]

    @cached_property
    def _taps(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        return _taps(self._axes[0]), _taps(self._axes[1])

    def _buffer(self, rows: int) -> Tensor:
        """(rows, W) to write into: one memory for all bands, for the pages of a new one cost more than its values."""
        if self._held.numel() < rows * self.width:
            self._held = torch.empty(rows * self.width, dtype=self.dtype, device=self.device)
        return self._held[: rows * self.width].view(rows, self.width)


def extremes(values: Tensor, low: Tensor, taps: Tensor, *, dim: int) -> tuple[Tensor, Tensor]:
    """The greatest of `values` and the least of `low` at each row of `taps` (c, t), along one axis."""
    most, least = (v.index_select(dim, taps[:, 0]) for v in (values, low))
    for tap in taps.T[1:]:
        torch.maximum(most, values.index_select(dim, tap), out=most)
        torch.minimum(least, low.index_select(dim, tap), out=least)
    return most, least


def count(chosen: Tensor) -> Tensor:
    """True values of each row (N, ...) -> (N,) int64; on a CPU ten times as fast as a sum."""
    if chosen.device.type == "cpu":
        return torch.tensor([np.count_nonzero(row) for row in chosen.numpy()], dtype=torch.int64)
    return chosen.flatten(1).sum(dim=1)


def axis_matrix(mask_len: int, padded_len: int, valid_len: int, target_len: int) -> Tensor:
    """Resize, crop and resize along one axis as one float32 matrix (target_len, mask_len) on the CPU."""
    units = torch.eye(mask_len)[None]  # (1, mask_len, mask_len)
    if padded_len != mask_len:
        units = interpolate(units, padded_len, mode="linear", align_corners=False)  # (1, mask_len, padded_len)
    units = units[..., :valid_len]
    if target_len != valid_len:
        units = interpolate(units, target_len, mode="linear", align_corners=False)  # (1, mask_len, target_len)
    return units[0].T.contiguous()


def _reach(matrix: Tensor) -> list[tuple[int, int]]:
    """First and one past the last column that each row of the matrix uses; both never decrease down the rows."""
    used = matrix != 0
    first = used.int().argmax(dim=1)
    last = matrix.shape[1] - used.flip(1).int().argmax(dim=1)
    return list(zip(first.tolist(), last.tolist(), strict=True))


def _taps(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """An axis matrix (len, n) -> the columns that each row uses and their shares, (len, t), t the most of any row.

    Where a row uses fewer, its last column is named again with a share of 0.
    """
    reach = torch.tensor(_reach(matrix))  # (len, 2)
    steps = torch.arange(int(reach.diff(dim=1).max()))
    at = torch.minimum(reach[:, :1] + steps, reach[:, 1:] - 1)
    return at, matrix.gather(1, at) * (reach[:, :1] + steps < reach[:, 1:])


def _cover(reach: list[tuple[int, int]], start: int, stop: int) -> tuple[int, int]:
    return reach[start][0], reach[stop - 1][1]


def _exact_dtype(device: torch.device) -> torch.dtype:
    """Float64 where the GPU may round products to TF32 (ten bits), which would move mask edges; else float32."""
    rounds = device.type == "cuda" and torch.get_float32_matmul_precision() != "highest"
    return torch.float64 if rounds else torch.float32
