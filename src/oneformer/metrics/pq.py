"""Panoptic maps and their true maps -> PQ, SQ and RQ over all images, for all classes, things, stuff and each class.

The definition is the panoptic segmentation paper's (Kirillov et al., 2019, section 4.1), with the treatment of void
and crowd of the COCO evaluation tool:
- a predicted and a true segment of one class match when their IoU is above 0.5, where pixels that are void in the
  truth count in neither; crowd segments take no part in the matching;
- an unmatched true segment is a miss, unless it is crowd;
- an unmatched prediction is a false alarm, unless more than half of it lies on void or on crowd of its class.
One deviation: where an image has several crowd segments of a class, all of them excuse a prediction. The COCO tool
keeps one entry per class and so remembers only the last of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oneformer.metrics.miou import PERCENT
from oneformer.segments.types import VOID_ID

MATCH_IOU = 0.5  # above it a match is unique (Kirillov et al., 2019, theorem 1)
EXCUSED_SHARE = 0.5  # of a prediction on void or crowd (COCO panoptic evaluation)
IOU_STEPS = 2**36
"""IoUs are summed in steps of 2^-36 as integers: any order and split of the images gives the same sum to the last bit,
each match is off by less than 1e-11, and 64 bits hold 134 million matches per class."""


@dataclass(frozen=True)
class MapSegments:
    """The segments of one id map as three arrays of equal length: ids in the map, class ids, whether they are crowd."""

    ids: NDArray[np.int64]
    class_ids: NDArray[np.int64]
    iscrowd: NDArray[np.bool_]

    @classmethod
    def of(cls, ids: Sequence[int], class_ids: Sequence[int], iscrowd: Sequence[bool] | None = None) -> MapSegments:
        """From plain lists; nothing is crowd unless said."""
        crowd = np.asarray(iscrowd if iscrowd is not None else np.zeros(len(ids)), dtype=bool)
        return cls(np.asarray(ids, dtype=np.int64), np.asarray(class_ids, dtype=np.int64), crowd)


class PanopticQuality:
    """Streaming matches per class; scores are percent, None where no class was to be scored.

    State: (K, 4) integers, per class the summed IoU of matches in `IOU_STEPS`, matches, false alarms, misses.
    """

    def __init__(self, is_thing: Sequence[bool]) -> None:
        self.is_thing = np.asarray(is_thing, dtype=bool)
        self.counts: NDArray[np.int64] = np.zeros((len(self.is_thing), 4), dtype=np.int64)

    def update(
        self,
        predicted: NDArray[np.integer],
        predicted_segments: MapSegments,
        *,
        truth: NDArray[np.integer],
        truth_segments: MapSegments,
    ) -> float | None:
        """Counts one image; both maps (H, W). Ids of a map that are not among its segments, and `VOID_ID`, are void.

        Returns:
            the image's own PQ in percent (mean over the classes in it), None when there is nothing to score.
        """
        counts = match(predicted, predicted_segments, truth, truth_segments, num_classes=len(self.is_thing))
        self.counts += counts
        return _scores(counts, np.ones(len(self.is_thing), dtype=bool))["PQ"]

    def merge(self, counts: Sequence[NDArray[np.int64]]) -> None:
        """Adds the counts of other images."""
        for other in counts:
            self.counts += other

    def compute(self, names: Sequence[str]) -> dict[str, Any]:
        """`all`, `things`, `stuff` with PQ SQ RQ and n (classes averaged), and `per_class`; percent."""
        everything = np.ones(len(self.is_thing), dtype=bool)
        groups = {"all": everything, "things": self.is_thing, "stuff": ~self.is_thing}
        quality = _quality(self.counts)
        per_class: dict[str, Any] = {}
        for i, name in enumerate(names):
            _, matches, alarms, misses = (int(v) for v in self.counts[i])
            scored = matches + alarms + misses > 0
            values = {
                key: float(quality[j, i]) * PERCENT if scored else None for j, key in enumerate(("PQ", "SQ", "RQ"))
            }
            per_class[name] = {**values, "tp": matches, "fp": alarms, "fn": misses, "isthing": bool(self.is_thing[i])}
        return {**{name: _scores(self.counts, chosen) for name, chosen in groups.items()}, "per_class": per_class}


def match(
    predicted: NDArray[np.integer],
    predicted_segments: MapSegments,
    truth: NDArray[np.integer],
    truth_segments: MapSegments,
    *,
    num_classes: int,
) -> NDArray[np.int64]:
    """One image -> its (K, 4) counts, as in `PanopticQuality`."""
    assert predicted.shape == truth.shape, f"prediction {predicted.shape} and truth {truth.shape} differ in size"
    true, guess = truth_segments, predicted_segments
    overlap = _overlaps(predicted, guess.ids, truth, true.ids)  # (1 + G, 1 + P), void first
    true_areas, guess_areas = overlap.sum(axis=1)[1:], overlap.sum(axis=0)[1:]  # (G,), (P,)
    on_void, shared = overlap[0, 1:], overlap[1:, 1:]  # (P,), (G, P)
    same_class = true.class_ids[:, None] == guess.class_ids[None, :]  # (G, P)
    union = true_areas[:, None] + guess_areas[None, :] - shared - on_void[None, :]
    iou = shared / np.maximum(union, 1)
    matched = same_class & ~true.iscrowd[:, None] & (iou > MATCH_IOU)

    on_crowd = np.where(same_class & true.iscrowd[:, None], shared, 0).sum(axis=0)
    excused = (on_void + on_crowd) / np.maximum(guess_areas, 1) > EXCUSED_SHARE
    # A listed segment without a pixel in its map is no segment: neither a false alarm nor a miss.
    alarms = ~matched.any(axis=0) & ~excused & (guess_areas > 0)
    misses = ~matched.any(axis=1) & ~true.iscrowd & (true_areas > 0)

    rows, columns = np.nonzero(matched)
    counts = np.zeros((num_classes, 4), dtype=np.int64)
    np.add.at(counts[:, 0], true.class_ids[rows], np.rint(iou[rows, columns] * IOU_STEPS).astype(np.int64))
    np.add.at(counts[:, 1], true.class_ids[rows], 1)
    np.add.at(counts[:, 2], guess.class_ids[alarms], 1)
    np.add.at(counts[:, 3], true.class_ids[misses], 1)
    return counts


def _overlaps(
    predicted: NDArray[np.integer],
    guess_ids: NDArray[np.int64],
    truth: NDArray[np.integer],
    true_ids: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Pixels shared by every true and every predicted segment, (1 + G, 1 + P), row and column 0 for void."""
    rows, columns = len(true_ids) + 1, len(guess_ids) + 1
    starts, lengths = runs(truth, predicted)
    pairs = places(truth.ravel()[starts], true_ids) * columns + places(predicted.ravel()[starts], guess_ids)
    # Sums of whole numbers below 2^53 are exact in float64.
    return np.bincount(pairs, weights=lengths, minlength=rows * columns).astype(np.int64).reshape(rows, columns)


def runs(*maps: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Maps (H, W) -> starts and lengths of the stretches, row by row, in which none of them changes.

    Ids are looked up once per stretch instead of once per pixel: some thousands instead of some hundred thousands.
    """
    flat = [id_map.ravel() for id_map in maps]
    changes = np.zeros(max(flat[0].size - 1, 0), dtype=bool)
    for values in flat:
        changes |= values[1:] != values[:-1]
    starts = np.concatenate(([0], np.flatnonzero(changes) + 1))
    return starts, np.diff(starts, append=flat[0].size)


def places(values: NDArray[np.integer], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each id -> 1 + its place in `ids`, 0 for void and for ids that are not listed."""
    if len(ids) == 0:
        return np.zeros(len(values), dtype=np.int64)
    order = np.argsort(ids)
    nearest = order[np.minimum(np.searchsorted(ids[order], values), len(ids) - 1)]
    return np.where((ids[nearest] == values) & (values != VOID_ID), nearest + 1, 0)


def _quality(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(K, 4) counts -> PQ, SQ, RQ per class, (3, K), shares 0..1; zero without a match."""
    matches, alarms, misses = counts[:, 1], counts[:, 2], counts[:, 3]
    weight = np.maximum(matches + 0.5 * alarms + 0.5 * misses, 0.5)
    iou = counts[:, 0] / IOU_STEPS
    return np.stack((iou / weight, iou / np.maximum(matches, 1), matches / weight))


def _scores(counts: NDArray[np.int64], chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """PQ SQ RQ in percent, each averaged over the chosen classes that have a match, a false alarm or a miss."""
    scored = chosen & (counts[:, 1:].sum(axis=1) > 0)
    if not scored.any():
        return {"PQ": None, "SQ": None, "RQ": None, "n": 0}
    pq, sq, rq = (float(v) * PERCENT for v in _quality(counts)[:, scored].mean(axis=1))
    return {"PQ": pq, "SQ": sq, "RQ": rq, "n": int(scored.sum())}
