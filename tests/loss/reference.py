"""The losses once more, one point, mask and query at a time in plain floats: slow, and unlike the code it checks."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def value_at(grid: Array, x: float, y: float) -> float:
    """Bilinear value of a map (h, w) at (x, y) in 0..1, with zeros around the map."""
    column, row = x * grid.shape[1] - 0.5, y * grid.shape[0] - 0.5
    total = 0.0
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            if 0 <= i < grid.shape[0] and 0 <= j < grid.shape[1]:
                total += float(grid[i, j]) * (1 - abs(row - i)) * (1 - abs(column - j))
    return total


def known_at(void: Array, x: float, y: float) -> float:
    """Share of the neighbourhood of (x, y) that lies on pixels which are not void."""
    inside = value_at(np.ones(void.shape), x, y)
    return 1 - value_at(void, x, y) / inside


def cross_entropy(logit: float, truth: float) -> float:
    positive = math.log1p(math.exp(-abs(logit))) + max(-logit, 0)
    negative = math.log1p(math.exp(-abs(logit))) + max(logit, 0)
    return truth * positive + (1 - truth) * negative


def mask_terms(prediction: Array, mask: Array, void: Array, places: Array) -> tuple[float, float]:
    """Mean cross-entropy and dice loss of one predicted map (h, w) against one mask (H, W) at places (P, 2)."""
    weights, entropy, overlap, predicted, true = 0.0, 0.0, 0.0, 0.0, 0.0
    for x, y in places:
        known = known_at(void, x, y)
        if known < 1e-9:
            continue
        logit = value_at(prediction, x, y)
        truth = min(value_at(mask, x, y) / known, 1.0)
        probability = 1 / (1 + math.exp(-logit))
        weights += known
        entropy += known * cross_entropy(logit, truth)
        overlap += known * probability * truth
        predicted += known * probability
        true += known * truth
    if not weights:
        return 0.0, 0.0
    scale = len(places) / weights
    return entropy / weights, 1 - (2 * scale * overlap + 1) / (scale * (predicted + true) + 1)


def softmax(logits: Array) -> Array:
    powers = [math.exp(v - max(logits)) for v in logits]
    return np.array([p / sum(powers) for p in powers])


def cost_matrix(class_logits: Array, maps: Array, labels: list[int], masks: Array, void: Array, places: Array) -> Array:
    """Published cost 2 class + 5 mask + 5 dice of each query (Q) and object (N)."""
    costs = np.zeros((len(maps), len(masks)))
    for q, n in itertools.product(range(len(maps)), range(len(masks))):
        entropy, dice = mask_terms(maps[q], masks[n], void, places)
        costs[q, n] = 5 * entropy + 5 * dice - 2 * softmax(class_logits[q])[labels[n]]
    return costs


def best_pairs(costs: Array) -> set[tuple[int, int]]:
    """The cheapest pairing of all, by trying them all."""
    queries, objects = costs.shape
    count = min(queries, objects)
    best, pairs = math.inf, set[tuple[int, int]]()
    for chosen in itertools.combinations(range(objects), count):
        for order in itertools.permutations(range(queries), count):
            total = sum(costs[q, n] for q, n in zip(order, chosen, strict=True))
            if total < best:
                best, pairs = total, set(zip(order, chosen, strict=True))
    return pairs


def kept_places(prediction: Array, void: Array, candidates: Array, uniform: Array, count: int) -> Array:
    """The `count` candidates where the prediction is nearest to 0, unknown places last, then the uniform places."""

    def distance(place: Array) -> float:
        return abs(value_at(prediction, *place)) if known_at(void, *place) > 1e-9 else math.inf

    ranked = sorted(candidates, key=distance)
    return np.array([*ranked[:count], *uniform])


def label_term(class_logits: list[Array], wanted: list[list[int]], no_object: int, weight: float) -> float:
    """Weighted mean surprise over B images of (Q, K+1) logits; `wanted` holds each query's class."""
    total, weights = 0.0, 0.0
    for logits, classes in zip(class_logits, wanted, strict=True):
        for row, c in zip(logits, classes, strict=True):
            w = weight if c == no_object else 1.0
            total -= w * math.log(softmax(row)[c])
            weights += w
    return total / weights


def contrastive_term(queries: Array, texts: Array, scale: float) -> float:
    """Symmetric InfoNCE of B flattened queries and texts."""
    count = len(queries)
    units = [[v.ravel() / np.linalg.norm(v) for v in side] for side in (queries, texts)]
    similar = np.array([[scale * float(a @ b) for b in units[1]] for a in units[0]])
    rows = [-math.log(softmax(similar[i])[i]) for i in range(count)]
    columns = [-math.log(softmax(similar[:, i])[i]) for i in range(count)]
    return (sum(rows) + sum(columns)) / count
