"""Map size, kernel and dilation -> tiles: which tokens ask, which they may look at, and which bias each pair has.

Neighbourhood attention (arXiv:2204.07143; dilated: arXiv:2209.15001): a token attends to the kernel x kernel tokens
around it that lie `dilation` apart; at a border the window moves inwards, it never shrinks. Every `dilation`-th token
forms a group of its own, and the two axes are independent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

TILE = 8  # tokens a side that ask together: the least time of 4..16 for kernels 7 and 11 on the CPU


@dataclass(frozen=True)
class Tiles:
    """The layout of one map for one kernel and dilation; h*w stands for the zero token.

    Attributes:
        queries: (tiles, Q) the tokens of each tile that ask; at the end of a map some ask twice.
        keys: (tiles, K) the tokens that the windows of a tile span.
        pattern: (tiles,) which row of `offsets` a tile has; tiles away from the borders share one.
        offsets: (patterns, Q, K) place of each pair in the bias table, whose last place means: no neighbour.
        place: (h*w,) where each token stands among all queries.
        padded: whether the windows reach over the end of the map.
    """

    queries: Tensor
    keys: Tensor
    pattern: Tensor
    offsets: Tensor
    place: Tensor
    padded: bool

    def parts(self, most: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Queries, keys and pattern in runs of at most `most` tiles."""
        for i in range(0, self.pattern.shape[0], most):
            yield self.queries[i : i + most], self.keys[i : i + most], self.pattern[i : i + most]


def tiles(height: int, width: int, *, kernel: int, dilation: int, device: torch.device) -> Tiles:
    """Cut a map of `height` x `width` tokens into tiles.

    A map smaller than kernel * dilation is continued by zero tokens, which are attended to like others: the published
    DiNAT weights were trained so (natten 0.14's module pads; dilation 20 at 640 pixels needs it).
    """
    rows, columns = axis(height, kernel, dilation), axis(width, kernel, dilation)

    def both(name: str) -> tuple[Tensor, Tensor]:
        return tuple(torch.tensor(getattr(a, name), dtype=torch.long, device=device) for a in (rows, columns))  # type: ignore[return-value]

    (row_tile, column_tile), (row_slot, column_slot), (row_pattern, column_pattern) = map(
        both, ("tile", "slot", "pattern")
    )
    (row_query, column_query), (row_key, column_key), (row_offset, column_offset) = map(
        both, ("queries", "keys", "offsets")
    )
    side = row_query.shape[1] * column_query.shape[1]
    tile = row_tile[:, None] * len(columns.queries) + column_tile  # (h, w)
    slot = row_slot[:, None] * column_query.shape[1] + column_slot
    pattern = row_pattern[:, None] * len(columns.offsets) + column_pattern  # (tiles down, tiles across)
    outside = (row_key >= height)[:, None, :, None] | (column_key >= width)[:, None]
    keys = (row_key[:, None, :, None] * width + column_key[:, None]).masked_fill(outside, height * width)
    queries = row_query[:, None, :, None] * width + column_query[:, None]  # (tiles down, tiles across, q, q)
    apart = (row_offset < 0)[:, None, :, None, :, None] | (column_offset < 0)[:, None, :, None]
    offsets = row_offset[:, None, :, None, :, None] * (2 * kernel - 1) + column_offset[:, None, :, None]
    offsets = offsets.masked_fill(apart, (2 * kernel - 1) ** 2)  # (patterns, patterns, q, q, k, k)
    return Tiles(
        queries=queries.flatten(2).flatten(0, 1),
        keys=keys.flatten(2).flatten(0, 1),
        pattern=pattern.flatten(),
        offsets=offsets.flatten(4).flatten(2, 3).flatten(0, 1),
        place=(tile * side + slot).flatten(),
        padded=min(height, width) < kernel * dilation,
    )


@dataclass(frozen=True)
class Axis:
    """One axis of `Tiles` in plain numbers.

    Attributes:
        queries: for each tile the positions that ask.
        keys: for each tile the positions that are looked at.
        pattern: for each tile its row of `offsets`.
        offsets: for each pattern, query and key the row of the bias table, -1 for no neighbour.
        tile: for each position the tile in which it asks.
        slot: for each position its place in that tile.
    """

    queries: tuple[tuple[int, ...], ...]
    keys: tuple[tuple[int, ...], ...]
    pattern: tuple[int, ...]
    offsets: tuple[tuple[tuple[int, ...], ...], ...]
    tile: tuple[int, ...]
    slot: tuple[int, ...]


@cache
def axis(length: int, kernel: int, dilation: int) -> Axis:
    """The tiles along one axis. Numbers instead of tensors, so that a traced graph holds them as constants."""
    full = max(length, kernel * dilation)
    longest = -(-full // dilation)
    side = min(TILE, -(-length // dilation))
    span = min(side + kernel - 1, longest)
    queries: list[tuple[int, ...]] = []
    keys: list[tuple[int, ...]] = []
    pattern: list[int] = []
    offsets: dict[tuple[tuple[int, ...], ...], int] = {}
    tile, slot = [0] * length, [0] * length
    for group in range(min(dilation, length)):
        asking, size = -(-(length - group) // dilation), -(-(full - group) // dilation)
        for start in range(0, asking, side):
            first = min(max(start - kernel // 2, 0), max(size - span, 0))
            within = [min(start + i, asking - 1) for i in range(side)]
            seen = range(first, first + span)
            table = tuple(tuple(offset(q, k, size, kernel) for k in seen) for q in within)
            for i, q in enumerate(within[: asking - start]):
                tile[group + q * dilation], slot[group + q * dilation] = len(queries), i
            queries.append(tuple(group + q * dilation for q in within))
            keys.append(tuple(group + min(k, size - 1) * dilation for k in seen))
            pattern.append(offsets.setdefault(table, len(offsets)))
    return Axis(tuple(queries), tuple(keys), tuple(pattern), tuple(offsets), tuple(tile), tuple(slot))


def offset(query: int, key: int, size: int, kernel: int) -> int:
    """Row of the bias table for two positions of a group of `size`; -1 when the window does not hold the key."""
    start = min(max(query - kernel // 2, 0), size - kernel)
    return key - query + kernel - 1 if start <= key < min(start + kernel, size) else -1
