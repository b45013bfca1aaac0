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
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

Size = tuple[int, int]
"""Height and width in pixels."""

BAND_VALUES = {"cpu": 2**21, "cuda": 2**26}
"""Float32 values of one band: 8 MiB stay near the CPU's caches, 256 MiB keep a GPU busy (measured and estimated)."""

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
        self._reach = _reach(rows)
        self._rows = rows.to(device, self.dtype)
        reach = _reach(columns)
        self._columns = []
        for start in range(0, self.width, COLUMN_BLOCK):
            first, last = _cover(reach, start, min(start + COLUMN_BLOCK, self.width))
            block = columns[start : start + COLUMN_BLOCK, first:last]
            self._columns.append((first, last, block.T.contiguous().to(device, self.dtype)))  # (last - first, 64)

    def bands(self, num_masks: int) -> Iterator[Band]:
        """The photo's rows, top to bottom, in bands whose masks fit `BAND_VALUES`."""
        budget = BAND_VALUES.get(self.device.type, BAND_VALUES["cpu"])
        step = max(1, budget // max(1, num_masks * self.width))
        for start in range(0, self.height, step):
            stop = min(start + step, self.height)
            yield Band(start, stop, *_cover(self._reach, start, stop))

    def rows(self, masks: Tensor, band: Band) -> Tensor:
        """One band of the masks at the photo's size.

        Args:
            masks: (h, N, w) float32, rows first (`rows_first`), so a band's rows lie together.
            band: from `bands`.
        """
        part = masks[band.first : band.last].to(self.dtype)  # (s, N, w)
        wide = torch.cat([part[..., first:last] @ block for first, last, block in self._columns], dim=-1)  # (s, N, W)
        mix = self._rows[band.start : band.stop, band.first : band.last]  # (r, s)
        tall = mix @ wide.flatten(1)  # (r, N * W)
        return tall.to(torch.float32).view(band.stop - band.start, masks.shape[1], self.width)  # (r, N, W)


def rows_first(mask_logits: Tensor) -> Tensor:
    """Masks (N, h, w) of any float type as `Upsampler.rows` wants them: (h, N, w) float32."""
    return mask_logits.to(torch.float32).permute(1, 0, 2).contiguous()


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


def _cover(reach: list[tuple[int, int]], start: int, stop: int) -> tuple[int, int]:
    return reach[start][0], reach[stop - 1][1]


def _exact_dtype(device: torch.device) -> torch.dtype:
    """Float64 where the GPU may round products to TF32 (ten bits), which would move mask edges; else float32."""
    rounds = device.type == "cuda" and torch.get_float32_matmul_precision() != "highest"
    return torch.float64 if rounds else torch.float32
