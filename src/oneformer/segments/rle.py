"""Masks <-> COCO run-length encoding: column-major runs, written as the compressed text that COCO JSON files carry.

The first run counts zeros (it may be empty), then ones and zeros alternate, down the columns. The text form stores from
the fourth run on the difference to the run before the last (equal columns give small numbers), each number in groups of
five bits, lowest first, a sixth bit saying that more follow, plus 48 to make it printable: byte for byte COCO's form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

GROUP_BITS = 5
MAX_GROUPS = 13  # a 64-bit number has at most so many groups of five bits


class Rle(TypedDict):
    """A mask in COCO's JSON form: `size` is [height, width], `counts` the compressed runs."""

    size: list[int]
    counts: str


def encode(mask: NDArray[np.bool_]) -> Rle:
    """A mask (H, W), true inside -> its run-length encoding."""
    height, width = mask.shape
    columns = np.flatnonzero(mask.any(axis=0))
    if columns.size == 0:
        return {"size": [height, width], "counts": to_text(np.array([height * width]))}
    first, last = int(columns[0]), int(columns[-1]) + 1
    # Only the columns that hold the mask are walked: instances are small, photos are not.
    flat = mask[:, first:last].T.ravel()  # column-major
    padded = np.concatenate(([False], flat, [False]))
    edges = np.flatnonzero(padded[1:] != padded[:-1]) + first * height
    return {"size": [height, width], "counts": to_text(_runs(edges, height * width))}


def encode_ids(id_map: NDArray[np.integer], ids: Sequence[int]) -> list[Rle]:
    """The segments `ids` of an id map (H, W) -> one encoding each, in one pass over the map for all of them.

    An id that has no pixel gives an empty mask.
    """
    height, width = id_map.shape
    flat = id_map.T.ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    stops = np.append(starts[1:], flat.size)
    owners = flat[starts]
    order = np.argsort(owners, kind="stable")
    sorted_owners = owners[order]
    encoded: list[Rle] = []
    for segment_id in ids:
        low, high = np.searchsorted(sorted_owners, [segment_id, segment_id + 1])
        mine = order[low:high]
        # Two runs of one id never touch, so their starts and stops are the edges of its mask.
        edges = np.stack((starts[mine], stops[mine]), axis=1).ravel()
        encoded.append({"size": [height, width], "counts": to_text(_runs(edges, flat.size))})
    return encoded


def decode(rle: Rle) -> NDArray[np.bool_]:
    """A run-length encoding -> its mask (H, W). Raises ValueError when the runs do not fill the mask."""
    height, width = rle["size"]
    runs = from_text(rle["counts"])
    if int(runs.sum()) != height * width or (runs < 0).any():
        raise ValueError(f"the runs cover {int(runs.sum())} pixels, the mask has {height}x{width}")
    values = np.arange(runs.size) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def area(rle: Rle) -> int:
    """Pixels inside the mask."""
    return int(from_text(rle["counts"])[1::2].sum())


def box(rle: Rle) -> tuple[int, int, int, int]:
    """The smallest box around the mask, x0 y0 x1 y1 in pixels, half-open; 0, 0, 0, 0 for an empty mask."""
    height = rle["size"][0]
    ends = np.cumsum(from_text(rle["counts"]))
    starts, stops = ends[0::2][: ends[1::2].size], ends[1::2]
    starts, stops = starts[stops > starts], stops[stops > starts]
    if starts.size == 0:
        return 0, 0, 0, 0
    x0, x1 = int(starts[0] // height), int((stops[-1] - 1) // height) + 1
    crosses = (starts // height) != ((stops - 1) // height)  # a run over a column's end touches bottom and top
    y0 = 0 if crosses.any() else int((starts % height).min())
    y1 = height if crosses.any() else int(((stops - 1) % height).max()) + 1
    return x0, y0, x1, y1


def _runs(edges: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Places where the value flips, starting from zero -> run lengths; a last empty run of zeros is not written."""
    bounds = np.concatenate(([0], edges, [total] if not edges.size or edges[-1] != total else []))
    return np.diff(bounds).astype(np.int64)


def to_text(runs: NDArray[np.int64]) -> str:
    """Run lengths -> COCO's compressed text."""
    delta = np.asarray(runs, dtype=np.int64).copy()
    delta[3:] -= runs[1:-2]
    groups = np.zeros((delta.size, MAX_GROUPS), dtype=np.uint8)
    used = np.zeros_like(groups, dtype=bool)
    left, active = delta, np.ones(delta.size, dtype=bool)
    for i in range(MAX_GROUPS):
        bits = left & 31
        left = left >> GROUP_BITS
        more = active & np.where(bits & 16, left != -1, left != 0)
        groups[:, i] = bits + 32 * more + 48
        used[:, i] = active
        active = more
        if not active.any():
            break
    return groups[used].tobytes().decode("ascii")


def from_text(text: str) -> NDArray[np.int64]:
    """COCO's compressed text -> run lengths. Raises ValueError when a number is cut off."""
    codes = np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    if codes.size == 0:
        return np.zeros(0, dtype=np.int64)
    ends = np.flatnonzero((codes & 32) == 0)
    if ends.size == 0 or ends[-1] != codes.size - 1:
        raise ValueError("the run-length text ends inside a number")
    starts = np.concatenate(([0], ends[:-1] + 1))
    place = np.arange(codes.size) - np.repeat(starts, ends - starts + 1)
    values = np.add.reduceat((codes & 31) << (GROUP_BITS * place), starts)
    negative = (codes[ends] & 16) != 0
    values = np.where(negative, values - (np.int64(1) << (GROUP_BITS * (place[ends] + 1))), values)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
