"""Deformable sampling on the CPU: values, places and weights -> weighted sums of table rows.

`grid_sample` reads one channel of four pixels at a time, far apart in memory. Here each pixel of each head is one row
of a table, a bilinear sample is a weighted sum of four whole rows, and a query's sum over all its samples is what
`embedding_bag` computes. Measured on two AVX2 cores, 5376 queries, 8 heads, 12 samples: 3 to 4 times faster forward and
backward (benchmarks/deform.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Sizes = tuple[tuple[int, int], ...]


class RowSampling(torch.autograd.Function):
    """`deform.sample` for the CPU, with a backward pass that never scatters into memory at random."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, pixels: Tensor, weights: Tensor, sizes: Sizes) -> Tensor:
        table = bordered(value, sizes)  # (rows, d)
        mixed = None
        for ids, shift, weight in Corners(pixels, weights, sizes).each():
            part = F.embedding_bag(ids, table[shift:], mode="sum", per_sample_weights=weight)  # (B*Q*heads, d)
            mixed = part if mixed is None else mixed.add_(part)
        assert mixed is not None
        if any(ctx.needs_input_grad):
            ctx.sizes, ctx.value_shape = sizes, value.shape
            ctx.save_for_backward(table, pixels, weights)
        return mixed.view(*pixels.shape[:2], -1)  # (B, Q, heads*d)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        table, pixels, weights = ctx.saved_tensors
        corners = Corners(pixels, weights, ctx.sizes)
        grad = grad.reshape(-1, table.shape[1]).contiguous()  # (bags, d)
        per_bag = weights.shape[3] * weights.shape[4]
        starts = torch.arange(0, weights.numel(), per_bag, dtype=torch.int32)
        bag_of = torch.arange(grad.shape[0], dtype=torch.int32).repeat_interleave(per_bag)
        grad_table = torch.zeros_like(table)
        dots = []
        for i, (ids, shift, weight) in enumerate(corners.each()):
            dot = torch.ops.aten._embedding_bag_per_sample_weights_backward(
                grad, table[shift:], ids.view(-1), starts, bag_of, 0
            )  # product of each sample's row with its query's gradient
            dots.append(dot.view(weights.shape))
            if i % 2 == 0:  # two corners share their ids
                picked, ends = by_row(ids.view(-1), table.shape[0])
                bag = bag_of[picked]
            rows = F.embedding_bag(bag, grad, ends, mode="sum", per_sample_weights=weight.view(-1)[picked])
            grad_table[shift:] += rows[: rows.shape[0] - shift]
        grad_pixels, grad_weights = corners.gradients(dots)
        return unbordered(grad_table, ctx.value_shape, ctx.sizes), grad_pixels, grad_weights, None


def sample_rows(value: Tensor, pixels: Tensor, weights: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Same arguments and result as `deform.sample`; CPU, float32, first derivatives only."""
    mixed: Tensor = RowSampling.apply(value, pixels, weights, tuple(sizes))
    return mixed


class Corners:
    """The four pixels around every sample: their rows in the table, and their bilinear weights."""

    def __init__(self, pixels: Tensor, weights: Tensor, sizes: Sizes) -> None:
        batch, _, heads = pixels.shape[:3]
        self.heads, self.weights, self.pixels = heads, weights, pixels
        self.high = torch.tensor([[[w, h]] for h, w in sizes], dtype=pixels.dtype)  # (L, 1, 2)
        # One cell beyond the map is the zero border, and nothing lies further out. fmax gives a NaN a place too,
        # so that a diverged run reports its NaN loss and not an index error.
        low = torch.minimum(pixels, self.high).fmax(torch.tensor(-1.0))
        floor = low.floor()
        self.fx, self.fy = low.sub_(floor).unbind(-1)  # (B, Q, heads, L, points)
        x, y = floor.to(torch.int32).unbind(-1)
        stride = torch.tensor([[(w + 1) * heads] for _, w in sizes], dtype=torch.int32)  # (L, 1)
        starts, rows = level_starts(sizes)
        first = torch.tensor([[s + w + 2] for s, (_, w) in zip(starts, sizes, strict=True)], dtype=torch.int32)
        first = first * heads + torch.arange(heads, dtype=torch.int32)[:, None, None]  # (heads, L, 1)
        first = first + torch.arange(batch, dtype=torch.int32)[:, None, None, None, None] * (rows * heads)
        self.top = (y * stride).add_(x, alpha=heads).add_(first)
        self.bottom = self.top + stride

    def each(self) -> Iterator[tuple[Tensor, int, Tensor]]:
        """Four times (ids (bags, samples) int32, rows further down the table to look at, weights (bags, samples))."""
        below = self.weights * self.fy
        bags = below.shape[0] * below.shape[1] * below.shape[2]
        for ids, share in ((self.top, self.weights - below), (self.bottom, below)):
            right = share * self.fx
            left = share.sub_(right)
            yield ids.view(bags, -1), 0, left.view(bags, -1)
            yield ids.view(bags, -1), self.heads, right.view(bags, -1)

    def gradients(self, dots: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Products of the four corner values with the gradient -> gradients of pixels and weights."""
        top_left, top_right, bottom_left, bottom_right = dots
        top_slope, bottom_slope = top_right - top_left, bottom_right - bottom_left
        top = top_left + self.fx * top_slope
        slope_y = bottom_left + self.fx * bottom_slope - top
        slope_x = top_slope + self.fy * (bottom_slope - top_slope)
        inside = (self.pixels > -1) & (self.pixels < self.high)
        grad_pixels = torch.stack((slope_x, slope_y), dim=-1) * self.weights[..., None] * inside
        return grad_pixels, top + self.fy * slope_y


def level_starts(sizes: Sizes) -> tuple[list[int], int]:
    """First bordered pixel of each level in one image's part of the table, and their number in all."""
    starts, total = [], 0
    for height, width in sizes:
        starts.append(total)
        total += (height + 2) * (width + 1)
    return starts, total


def bordered(value: Tensor, sizes: Sizes) -> Tensor:
    """(B, S, heads, d) -> table (rows, d): every map with a zero row above and below and a zero column on its left.

    The zero column of the next row serves as the right border. A few rows at the end keep the last corner inside.
    """
    batch, _, heads, d = value.shape
    starts, total = level_starts(sizes)
    slack = max(w for _, w in sizes) + 3
    table = value.new_zeros((batch * total + slack) * heads, d)
    for part, inner in zip(split(value, sizes), inside_border(table, value.shape, sizes, starts, total), strict=True):
        inner.copy_(part)
    return table


def unbordered(table: Tensor, shape: torch.Size, sizes: Sizes) -> Tensor:
    """Gradient of `bordered`: table (rows, d) -> (B, S, heads, d)."""
    value = table.new_empty(shape)
    starts, total = level_starts(sizes)
    for part, inner in zip(split(value, sizes), inside_border(table, shape, sizes, starts, total), strict=True):
        part.copy_(inner)
    return value


def split(value: Tensor, sizes: Sizes) -> list[Tensor]:
    """(B, S, heads, d) -> one view (B, h, w, heads, d) per level."""
    parts = value.split([h * w for h, w in sizes], dim=1)
    return [part.unflatten(1, size) for part, size in zip(parts, sizes, strict=True)]


def inside_border(table: Tensor, shape: torch.Size, sizes: Sizes, starts: list[int], total: int) -> Iterator[Tensor]:
    """The views (B, h, w, heads, d) of the table that hold values, level by level."""
    batch, _, heads, d = shape
    images = table[: batch * total * heads].view(batch, total, heads, d)
    for start, (height, width) in zip(starts, sizes, strict=True):
        level = images[:, start : start + (height + 2) * (width + 1)]
        yield level.unflatten(1, (height + 2, width + 1))[:, 1:-1, 1:]


def by_row(ids: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Table rows of samples (n,) -> the samples in row order, and where each row's samples start, both int32."""
    picked = ids.sort().indices.to(torch.int32)
    counts = torch.bincount(ids, minlength=rows)
    return picked, (counts.cumsum(0) - counts).to(torch.int32)
