"""Deformable sampling on the CPU: values, places and weights -> weighted sums of table rows.

`grid_sample` reads one channel of four pixels at a time, far apart in memory. Here each pixel of each head is one row
of a table, a bilinear sample is a weighted sum of four whole rows, and a query's sum over all its samples is what
`embedding_bag` computes. benchmarks/deform.py measures it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Sizes = tuple[tuple[int, int], ...]


class RowSampling(torch.autograd.Function):
    """`deform.sample` for the CPU, with a backward pass that never scatters into memory at random.

    Legend of the shapes here: N bags (one for each image, query and head), s samples of a bag (levels times points),
    R rows of the table, d channels of a head.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, pixels: Tensor, weights: Tensor, sizes: Sizes) -> Tensor:
        table = bordered(value, sizes, weights.dtype)  # (R, d)
        corners = Corners(pixels, sizes)
        mixed = F.embedding_bag(  # (N, d)
            corners.rows(), table, mode="sum", per_sample_weights=corners.shares(weights.flatten(0, 2).flatten(1))
        )
        if any(ctx.needs_input_grad):
            ctx.sizes, ctx.like = sizes, (value.shape, value.dtype)
            ctx.save_for_backward(table, pixels, weights)
        return mixed.view(*pixels.shape[:2], -1)  # (B, Q, heads*d)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        table, pixels, weights = ctx.saved_tensors
        corners = Corners(pixels, ctx.sizes)
        grad = grad.reshape(-1, table.shape[1]).contiguous()  # (N, d)
        flat = weights.flatten(0, 2).flatten(1)  # (N, s)
        grad_pixels, grad_weights = corners.gradients(dots(corners.rows(), grad, table), flat)
        upper, lower = sums_by_row(corners, corners.shares(flat), grad, len(table))
        value = unbordered(upper, lower, ctx.like, ctx.sizes)
        return value, grad_pixels.view(pixels.shape), grad_weights.view(weights.shape), None


def sample_rows(value: Tensor, pixels: Tensor, weights: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Same arguments and result as `deform.sample`; CPU, first derivatives only. `value` may be of half precision."""
    mixed: Tensor = RowSampling.apply(value, pixels, weights, tuple(sizes))
    return mixed


class Corners:
    """The four pixels around every sample: their rows in the table, and their bilinear weights.

    They come in the order top left, top right, bottom left, bottom right.
    """

    def __init__(self, pixels: Tensor, sizes: Sizes) -> None:
        batch, _, heads, _, points = pixels.shape[:5]
        self.heads = heads
        samples = [size for size in sizes for _ in range(points)]
        self.high = torch.tensor([length for h, w in samples for length in (w, h)], dtype=pixels.dtype)  # (2s,), x, y
        self.pixels = pixels.flatten(3)  # (B, Q, heads, 2s)
        # One cell beyond the map is the zero border, and nothing lies further out. A NaN gets a place too, so that a
        # diverged run reports its NaN loss and not an index error.
        low = torch.minimum(self.pixels, self.high).clamp_(min=-1).nan_to_num_(nan=-1.0)
        floor = low.floor()
        fractions = low.sub_(floor).view(-1, len(samples), 2)
        self.fx, self.fy = (part.contiguous() for part in fractions.unbind(-1))  # (N, s)
        x, y = floor.to(torch.int32).unflatten(-1, (-1, 2)).unbind(-1)  # (B, Q, heads, s)
        starts, total = level_starts(sizes)
        first = torch.tensor([starts[i // points] + w + 2 for i, (_, w) in enumerate(samples)], dtype=torch.int32)
        first = first * heads + torch.arange(heads, dtype=torch.int32)[:, None]  # (heads, s), row of pixel (0, 0)
        first = first + torch.arange(batch, dtype=torch.int32)[:, None, None, None] * (total * heads)
        self.below = torch.tensor([(w + 1) * heads for _, w in samples], dtype=torch.int32)  # (s,), rows to the next y
        self.top = (y * self.below).add_(x, alpha=heads).add_(first).view(-1, len(samples))  # (N, s)

    def rows(self) -> Tensor:
        """Rows of the corners, (N, 4s) int32."""
        bottom = self.top + self.below
        return torch.cat((self.top, self.top + self.heads, bottom, bottom + self.heads), dim=1)

    def shares(self, weights: Tensor) -> Tensor:
        """Weights (N, s) of the samples -> those of their corners, (N, 4s)."""
        bottom = weights * self.fy
        top = weights - bottom
        bottom_right, top_right = bottom * self.fx, top * self.fx
        return torch.cat((top.sub_(top_right), top_right, bottom.sub_(bottom_right), bottom_right), dim=1)

    def gradients(self, dots: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Products (N, 4s) of corner values and gradient, weights (N, s) -> gradients of pixels and weights."""
        top_left, top_right, bottom_left, bottom_right = dots.chunk(4, dim=1)
        top_slope, bottom_slope = top_right - top_left, bottom_right - bottom_left
        top = top_left + self.fx * top_slope
        slope_y = bottom_left + self.fx * bottom_slope - top
        slope_x = top_slope + self.fy * (bottom_slope - top_slope)
        slopes = torch.stack((slope_x * weights, slope_y * weights), dim=-1)  # (N, s, 2)
        inside = (self.pixels > -1) & (self.pixels < self.high)
        return slopes.mul_(inside.view(slopes.shape)), top + self.fy * slope_y


def dots(rows: Tensor, grad: Tensor, table: Tensor) -> Tensor:
    """Product of the gradient of each bag, (N, d), with each of its rows of the table, (N, 4s).

    It is a matrix product of which few entries are wanted. `embedding_bag`'s own backward takes three times as long.
    """
    ends = torch.arange(0, rows.numel() + 1, rows.shape[1], dtype=torch.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # sparse matrices are "in beta state" since torch 1.10
        wanted = torch.sparse_csr_tensor(
            ends, rows.flatten(), grad.new_zeros(rows.numel()), (len(grad), len(table)), check_invariants=False
        )
        return torch.sparse.sampled_addmm(wanted, grad, table.t(), beta=0.0).values().view(rows.shape)


def sums_by_row(corners: Corners, shares: Tensor, grad: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """What every row of the table gets as a left and right corner of samples above it and of samples below it.

    The samples are put in the order of their top left rows once; the other corners lie a fixed number of rows from
    there, so what is summed for them is only moved. Returns two tables (R, d): the gradient from upper corners, and
    that from lower corners, one line of pixels too high (`unbordered` puts it right).
    """
    samples = corners.top.shape[1]
    top = corners.top.flatten()
    order = top.sort().indices.to(torch.int32)
    counts = torch.bincount(top, minlength=rows)
    starts = (counts.cumsum(0) - counts).to(torch.int32)
    bag = torch.arange(len(grad), dtype=torch.int32).repeat_interleave(samples).index_select(0, order)
    tables = []
    for pair in shares.chunk(2, dim=1):
        left, right = (
            F.embedding_bag(
                bag, grad, starts, mode="sum", per_sample_weights=share.flatten().index_select(0, order)
            )  # (R, d)
            for share in pair.chunk(2, dim=1)
        )
        left[corners.heads :] += right[: -corners.heads]
        tables.append(left)
    return tables[0], tables[1]


def level_starts(sizes: Sizes) -> tuple[list[int], int]:
    """First bordered pixel of each level in one image's part of the table, and their number in all."""
    starts, total = [], 0
    for height, width in sizes:
        starts.append(total)
        total += (height + 2) * (width + 1)
    return starts, total


def bordered(value: Tensor, sizes: Sizes, dtype: torch.dtype) -> Tensor:
    """(B, S, heads, d) -> table (R, d): every map with a zero row above and below and a zero column on its left.

    The zero column of the next row serves as the right border. A few rows at the end keep the last corner inside.
    """
    batch, _, heads, d = value.shape
    _, total = level_starts(sizes)
    slack = max(w for _, w in sizes) + 3
    table = value.new_zeros((batch * total + slack) * heads, d, dtype=dtype)
    for part, inner in zip(split(value, sizes), insides(table, value.shape, sizes), strict=True):
        inner.copy_(part)
    return table


def unbordered(upper: Tensor, lower: Tensor, like: tuple[torch.Size, torch.dtype], sizes: Sizes) -> Tensor:
    """Gradient of `bordered` from both tables of `sums_by_row` -> (B, S, heads, d)."""
    shape, dtype = like
    value = upper.new_empty(shape, dtype=dtype)
    parts = zip(split(value, sizes), insides(upper, shape, sizes), insides(lower, shape, sizes, up=1), strict=True)
    for part, above, below in parts:
        part.copy_(above + below)
    return value


def split(value: Tensor, sizes: Sizes) -> list[Tensor]:
    """(B, S, heads, d) -> one view (B, h, w, heads, d) per level."""
    parts = value.split([h * w for h, w in sizes], dim=1)
    return [part.unflatten(1, size) for part, size in zip(parts, sizes, strict=True)]


def insides(table: Tensor, shape: torch.Size, sizes: Sizes, *, up: int = 0) -> Iterator[Tensor]:
    """The views (B, h, w, heads, d) of the table that hold values, or lie `up` lines above them, level by level."""
    batch, _, heads, d = shape
    starts, total = level_starts(sizes)
    images = table[: batch * total * heads].view(batch, total, heads, d)
    for start, (height, width) in zip(starts, sizes, strict=True):
        level = images[:, start : start + (height + 2) * (width + 1)]
        yield level.unflatten(1, (height + 2, width + 1))[:, 1 - up : height + 1 - up, 1:]
