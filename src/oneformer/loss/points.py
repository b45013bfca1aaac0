"""Masks and places in [0, 1] x [0, 1] -> their values there, bilinearly; the random places where the mask losses look.

Mask losses are taken at random points instead of all pixels (Mask2Former, arXiv 2112.01527, section 3.3). Each image
gets one set of points for all its masks and all decoder layers: every mask still sees uniform random places, and the
four neighbours of a place are found once for hundreds of masks instead of once for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from oneformer.data.sample import VOID

if TYPE_CHECKING:
    from oneformer.data.sample import Target

# Elements of one temporary. On a CPU it should stay near the cache, on a GPU it should be worth a launch.
CHUNK_CPU = 1 << 22
CHUNK_GPU = 1 << 27


class Points(NamedTuple):
    """The random places of one image as (x, y), each in 0..1 of the padded image's width and height.

    `match` (P, 2) serves the matching, `candidates` (C, 2) are those of which the most uncertain are kept for the mask
    losses, `uniform` (U, 2) are kept as they are.
    """

    match: Tensor
    candidates: Tensor
    uniform: Tensor


def draw_points(void: Tensor, *, count: int, oversample: float, importance: float) -> Points:
    """Void mask (H, W) bool -> places drawn uniformly from the smallest box around its known pixels.

    `count` places for the matching; `count * oversample` candidates; `count - int(count * importance)` uniform ones
    (the published values are 12544, 3.0 and 0.75). Without void the box is the whole image. Nothing is read back from
    the device.
    """
    uncertain = int(importance * count)
    sizes = [count, int(count * oversample), count - uncertain]
    assert sizes[1] >= uncertain, "fewer candidates than points to pick among them"
    low, span = _known_box(void)
    return Points(*(low + span * torch.rand(n, 2, device=void.device) for n in sizes))


def _known_box(void: Tensor) -> tuple[Tensor, Tensor]:
    """Void mask (H, W) -> corner (2,) and extent (2,) of the box around the known pixels, as (x, y) in 0..1."""
    low, span = [], []
    for axis in (0, 1):  # over rows for x, over columns for y
        known = (~void).any(axis).to(torch.uint8)  # (W,) or (H,)
        first = known.argmax()
        last = known.numel() - known.flip(0).argmax()
        low.append(first / known.numel())
        span.append((last - first) / known.numel())
    return torch.stack(low), torch.stack(span)


@dataclass(frozen=True)
class Stencil:
    """P places on a grid of `size` (h, w): four neighbours each, `index` (P, 4) into h*w, and their `weight` (P, 4).

    Neighbours outside the grid weigh 0, as in `grid_sample(align_corners=False, padding_mode="zeros")`, to which
    `sample` is equal. On a CPU it is several times faster, because one gather of rows serves all masks.
    """

    index: Tensor  # (P, 4) int64
    weight: Tensor  # (P, 4)
    size: tuple[int, int]

    @staticmethod
    def at(places: Tensor, size: tuple[int, int]) -> Stencil:
        """Places (P, 2) as (x, y) in 0..1 -> their stencil on a grid of `size` (h, w)."""
        h, w = size
        columns, column_weight = _neighbours(places[:, 0], w)  # (P, 2) each
        rows, row_weight = _neighbours(places[:, 1], h)
        index = rows[:, :, None] * w + columns[:, None, :]  # (P, 2, 2)
        return Stencil(index.flatten(1), (row_weight[:, :, None] * column_weight[:, None, :]).flatten(1), size)

    def __len__(self) -> int:
        return int(self.index.shape[0])

    def part(self, start: int, stop: int | None = None) -> Stencil:
        """Some of the places."""
        return Stencil(self.index[start:stop], self.weight[start:stop], self.size)

    def rows(self, table: Tensor) -> Tensor:
        """Maps as a table (h*w, C), one row per pixel -> values (P, C), without gradient."""
        return F.embedding_bag(self.index, table, per_sample_weights=self.weight.to(table.dtype), mode="sum")

    def sample(self, maps: Tensor) -> Tensor:
        """Maps (C, h, w) in float32 or float64 -> values (C, P), with gradient."""
        assert tuple(maps.shape[1:]) == self.size, f"maps of {tuple(maps.shape[1:])}, stencil for {self.size}"
        values: Tensor = _Interpolate.apply(maps.flatten(1), self)
        return values

    @cached_property
    def by_pixel(self) -> tuple[Tensor, Tensor, Tensor]:
        """The stencil seen from the pixels: places (4P,) by pixel, their weights (4P,), each pixel's first (h*w,)."""
        flat = self.index.flatten()
        order = flat.argsort()
        counts = torch.bincount(flat, minlength=self.size[0] * self.size[1])
        return order // 4, self.weight.flatten()[order], counts.cumsum(0) - counts

    def sample_masks(self, masks: Tensor) -> Tensor:
        """Masks (N, H, W) bool -> the share of each place's neighbourhood inside each mask, (N, P), 0..1."""
        values = self.weight.new_zeros(len(masks), len(self))
        for k in range(4):  # only the neighbours are read; large masks are never converted as a whole
            values += masks.flatten(1).index_select(1, self.index[:, k]) * self.weight[:, k]
        return values

    def sample_map(self, numbers: Tensor, count: int) -> Tensor:
        """Map (H, W) of numbers 0..count-1 -> the same for the mask of each number, (count, P), at the cost of one."""
        neighbours = numbers.flatten()[self.index].long()  # (P, 4)
        values = self.weight.new_zeros(len(self), count)
        for k in range(4):  # one addition per row at a time: the sum has the same order on every device
            values.scatter_add_(1, neighbours[:, k : k + 1], self.weight[:, k : k + 1])
        return values.t().contiguous()


def _neighbours(position: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Positions (P,) in 0..1 on an axis of `length` pixels -> the two nearest pixels and their weights, (P, 2) each."""
    at = position * length - 0.5  # pixel centres lie at (i + 0.5) / length
    first = at.floor()
    pixel = torch.stack((first, first + 1), 1)
    inside = (pixel >= 0) & (pixel < length)
    weight = (1 - (at[:, None] - pixel).abs()) * inside
    return pixel.clamp_(0, length - 1).long(), weight


class _Interpolate(torch.autograd.Function):
    """Maps (C, h*w) and a stencil -> (C, P). The gradient is the transposed sum: no atomic additions in either way."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, stencil: Stencil) -> Tensor:
        ctx.stencil = stencil
        return stencil.rows(maps.t().contiguous()).t().contiguous()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        places, weight, first = ctx.stencil.by_pixel
        table = grads[0].t().contiguous()  # (P, C)
        bag = F.embedding_bag(places, table, first, per_sample_weights=weight.to(table.dtype), mode="sum")  # (h*w, C)
        return bag.t(), None


@dataclass(frozen=True)
class SampledTarget:
    """One image's truth read at its points, in the order match, candidates, uniform.

    `values` (N, T): the share of a place's neighbourhood inside each mask; `known` (T,): the share that is not void,
    None when nothing is void; `stencil`: the same places on the grid of the mask logits.
    """

    labels: Tensor  # (N,)
    values: Tensor  # (N, T)
    known: Tensor | None  # (T,)
    stencil: Stencil
    num_match: int
    num_candidates: int

    def known_part(self, start: int, stop: int | None = None) -> Tensor | None:
        """`known` of some of the places."""
        return None if self.known is None else self.known[start:stop]


def read_target(target: Target, points: Points, *, size: tuple[int, int]) -> SampledTarget:
    """One image's target and points -> its truth at these points; `size` (h, w) is that of the mask logits.

    Void pixels (unlabelled, crowd, padding) are neither inside nor outside of any mask. A place is as known as the
    share of its neighbourhood that is not void, and what it says about a mask is the mean over its known neighbours.
    `values` is the product of the two, which is what sums over points need. Places without a known neighbour count
    for nothing.
    """
    places = torch.cat(points)  # (T, 2)
    height, width = target.void.shape
    truth = Stencil.at(places, (int(height), int(width)))
    if target.object_map is not None:
        first = -VOID  # shifted by this, 0 is void, 1 background, and the objects follow
        shares = truth.sample_map(target.object_map + first, first + len(target.labels))  # (2+N, T)
        void, values = shares[0], shares[first:]
    else:
        shares = truth.sample_masks(torch.cat((target.void[None], target.masks)))  # (1+N, T)
        void, values = shares[0], shares[1:]
    known = None
    # Looking costs a wait on a GPU, where weights of 1 cost nothing.
    if void.is_cuda or bool(void.any()):
        known = F.threshold(1 - void / truth.weight.sum(1), 1e-4, 0.0)  # rounding leaves no trace of the unknown
        values = torch.minimum(values, known)
    on_logits = Stencil.at(places, size)
    return SampledTarget(target.labels, values, known, on_logits, len(points.match), len(points.candidates))


def most_uncertain(logits: Tensor, count: int, known: Tensor | None) -> Tensor:
    """Logits (M, C) at candidate places -> indices (M, count) of those nearest to 0, in no particular order.

    Places with `known` (C,) == 0 are taken last.
    """
    distance = logits.detach().abs()
    if known is not None:
        distance.masked_fill_(known == 0, torch.inf)
    if not count:
        return torch.empty(len(logits), 0, dtype=torch.long, device=logits.device)
    if logits.device.type == "cpu":  # numpy's selection takes a third of the time of topk here
        return torch.from_numpy(np.argpartition(distance.numpy(), count - 1, axis=1)[:, :count])
    return distance.topk(count, largest=False, sorted=False).indices


def chunk(device: torch.device, width: int) -> int:
    """How many rows of `width` elements make a temporary of good size on this device; at least 1."""
    return max(1, (CHUNK_GPU if device.type == "cuda" else CHUNK_CPU) // max(1, width))


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision -> float32; float32 and float64 stay."""
    return x if x.dtype == torch.float64 else x.float()
