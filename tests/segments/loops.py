"""The published post-processing, one pixel and one query at a time in plain Python: slow, and unlike what it checks.

The formulas are those of oneformer-model.md 1.10. `plain.py` writes them down once more on whole arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oneformer.segments import Rules

Array = NDArray[np.float32]


@dataclass(eq=False)
class Candidate:
    """One (query, class) pair that may become an instance."""

    class_id: int
    prob: float
    score: float
    mask: NDArray[np.bool_]


def first_best(values: list[np.float32]) -> int:
    """Index of the largest value, the first one where several are equal."""
    best = 0
    for i, value in enumerate(values):
        if value > values[best]:
            best = i
    return best


def loop_semantic(probs: Array, inside: Array) -> NDArray[np.float64]:
    """Class probabilities (Q, K+1), mask probabilities (Q, H, W) -> score of each class and pixel (K, H, W)."""
    scores = np.zeros((probs.shape[1] - 1, *inside.shape[1:]))
    for y, x in np.ndindex(inside.shape[1:]):
        for q in range(len(probs)):
            scores[:, y, x] += probs[q, :-1].astype(np.float64) * float(inside[q, y, x])
    return scores


def loop_panoptic(probs: Array, inside: Array, rules: Rules) -> tuple[NDArray[np.int32], list[dict[str, object]]]:
    """Class probabilities (Q, K+1), mask probabilities (Q, H, W) -> segment ids (H, W) and the segments' facts."""
    kept: list[tuple[int, int]] = []  # query, class
    for q, row in enumerate(probs):
        label = first_best(list(row))
        if label < probs.shape[1] - 1 and row[label] > rules.object_mask_threshold:
            kept.append((q, label))
    ids = np.zeros(inside.shape[1:], dtype=np.int32)
    if not kept:
        return ids, []
    won: list[list[tuple[int, int]]] = [[] for _ in kept]
    for y, x in np.ndindex(inside.shape[1:]):
        won[first_best([probs[q, label] * inside[q, y, x] for q, label in kept])].append((y, x))
    segments: list[dict[str, object]] = []
    stuff: dict[int, int] = {}
    for (q, label), pixels in zip(kept, won, strict=True):
        whole = sum(inside[q, y, x] >= rules.mask_threshold for y, x in np.ndindex(inside.shape[1:]))
        shown = [(y, x) for y, x in pixels if inside[q, y, x] >= rules.mask_threshold]
        if not pixels or not whole or not shown or len(pixels) / whole < rules.overlap_threshold:
            continue
        isthing = rules.is_thing[label]
        if isthing or label not in stuff:
            segments.append({"id": len(segments) + 1, "class_id": label, "isthing": isthing, "area": 0})
            number = len(segments)
            if not isthing:
                stuff[label] = number
        else:
            number = stuff[label]
        for y, x in shown:
            ids[y, x] = number
        segments[number - 1]["area"] += len(shown)  # type: ignore[operator]
    return ids, segments


def loop_candidates(probs: Array, logits: Array, inside: Array, rules: Rules) -> list[Candidate]:
    """Class probabilities (Q, K+1), mask logits and probabilities (Q, H, W) -> every pair of a query and a thing."""
    found = []
    limit = np.log(rules.mask_threshold / (1 - rules.mask_threshold))
    for q, row in enumerate(probs):
        pixels = [(y, x) for y, x in np.ndindex(logits.shape[1:]) if logits[q, y, x] > limit]
        mean = sum(float(inside[q, y, x]) for y, x in pixels) / (len(pixels) + 1e-6)
        mask = np.zeros(logits.shape[1:], dtype=bool)
        for y, x in pixels:
            mask[y, x] = True
        found += [
            Candidate(c, float(row[c]), float(row[c]) * mean, mask)
            for c in range(probs.shape[1] - 1)
            if rules.is_thing[c]
        ]
    return found
