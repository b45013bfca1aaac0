"""CutMix: pixels, masks and meanings of the rectangle are the second photo's, everything else the first's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oneformer.data.labels import LabelMap
from oneformer.data.mix import Cut, pasted, pasted_box
from oneformer.data.record import SegmentInfo
from oneformer.data.sample import BACKGROUND, VOID, make_target
from oneformer.data.window import Picked

LABELS = LabelMap(("disk", "sky", "box"), (True, False, True), ((1, 1, 1), (2, 2, 2), (3, 3, 3)), (1, 2, 3))


def cut(seed: int, *, size: tuple[int, int], shade: int, overlap: bool = False) -> Cut:
    """A photo of one shade with a disk, sky, a box and a crowd in blocks; unlabelled and void pixels between."""
    rng = np.random.default_rng(seed)
    kinds = ((0, False), (1, False), (2, False), (0, True))
    segments = tuple(SegmentInfo(7 * (i + 1), class_id, crowd, 1) for i, (class_id, crowd) in enumerate(kinds))
    numbers = 7 if overlap else 5
    coarse = rng.integers(0, numbers + 1, (1 + size[0] // 4, 1 + size[1] // 4))
    ids = np.kron(coarse, np.ones((4, 4), int))[: size[0], : size[1]].astype(np.int16)
    regions = None
    if overlap:
        regions = np.zeros((7, 4), bool)
        regions[np.arange(1, 5), np.arange(4)] = True
        regions[5, [0, 1]] = regions[6, [0, 2]] = True
    return Cut(torch.full((3, *size), shade, dtype=torch.uint8), Picked.whole(ids), segments, regions)


def target(one: Cut, task: str, rest: int) -> dict[tuple[int, bytes], int]:
    """Class and mask of each object, counted."""
    made = make_target(one.ids.seen, one.segments, LABELS, task=task, regions=one.regions, rest=rest).spread(one.ids)
    found: dict[tuple[int, bytes], int] = {(-1, made.void.numpy().tobytes()): 1}
    for label, mask in zip(made.labels.tolist(), made.masks, strict=True):
        key = label, mask.numpy().tobytes()
        found[key] = found.get(key, 0) + 1
    return found


def by_hand(under: Cut, over: Cut, where: np.ndarray, task: str, rest: int) -> dict[tuple[int, bytes], int]:
    """The same, made of the masks of two targets: cut, pasted, stuff of one class joined, nothing empty."""
    parts = []
    for one, visible in ((under, ~where), (over, where)):
        made = make_target(one.ids.map(), one.segments, LABELS, task=task, regions=one.regions, rest=rest)
        full = np.zeros((len(made.labels) + 1, *where.shape), bool)
        h, w = (min(a, b) for a, b in zip(where.shape, one.ids.shape, strict=True))
        full[:, :h, :w] = np.concatenate([made.void[None].numpy(), made.masks.numpy()])[:, :h, :w]
        parts.append((made.labels.tolist(), full & visible))
    void = parts[0][1][0] | parts[1][1][0]
    objects: list[tuple[int, np.ndarray]] = []
    for labels, full in parts:
        for label, mask in zip(labels, full[1:], strict=True):
            joined = task == "semantic" or (task == "panoptic" and not LABELS.is_thing[label])
            same = next((i for i, (other, _) in enumerate(objects) if joined and other == label), None)
            if same is None:
                objects.append((label, mask))
            else:
                objects[same] = (label, objects[same][1] | mask)
    found: dict[tuple[int, bytes], int] = {(-1, void.tobytes()): 1}
    for label, mask in objects:
        if mask.any():
            found[label, mask.tobytes()] = found.get((label, mask.tobytes()), 0) + 1
    return found


@pytest.mark.parametrize("overlap", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("task", ["semantic", "instance", "panoptic"])
def test_masks_are_those_of_two_photos_cut_and_pasted(overlap: tuple[bool, bool], task: str) -> None:
    for seed in range(12):
        under = cut(seed, size=(20, 30), shade=10, overlap=overlap[0])
        over = cut(seed + 100, size=(26, 22), shade=200, overlap=overlap[1])
        mixed = pasted(under, over, np.random.default_rng(seed))
        where = mixed.pixels[0].numpy() == 200
        for rest in (VOID, BACKGROUND):
            assert target(mixed, task, rest) == by_hand(under, over, where, task, rest)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_the_rectangle_lies_inside(height: int, width: int, seed: int) -> None:
    rows, columns = pasted_box((height, width), np.random.default_rng(seed))
    assert 0 <= rows.start < rows.stop <= height and 0 <= columns.start < columns.stop <= width


def test_the_share_that_is_pasted_is_uniform() -> None:
    rng = np.random.default_rng(0)
    boxes = [pasted_box((100, 100), rng) for _ in range(2000)]
    shares = [(r.stop - r.start) * (c.stop - c.start) / 10_000 for r, c in boxes]
    assert abs(np.mean(shares) - 0.5) < 0.03 and abs(np.mean(np.array(shares) < 0.25) - 0.25) < 0.04


def test_neither_photo_is_changed() -> None:
    under, over = cut(0, size=(20, 20), shade=1), cut(1, size=(20, 20), shade=2)
    before = under.ids.map().copy(), over.ids.map().copy()
    pasted(under, over, np.random.default_rng(0))
    assert under.pixels.eq(1).all() and over.pixels.eq(2).all()
    assert np.array_equal(under.ids.map(), before[0]) and np.array_equal(over.ids.map(), before[1])
