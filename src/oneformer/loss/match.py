"""Predictions and truth at shared points -> which query answers for which object, by image and decoder layer.

Hungarian matching (DETR, arXiv 2005.12872, section 3.1) on the costs of Mask2Former and OneFormer: class
probability, binary cross-entropy and dice, weighted like the losses. The costs of all layers and images leave the
device in one copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from oneformer.loss.points import SampledTarget, Stencil, at_least_float32, chunk

WORST_COST = 1e6
"""Stands for a cost that is no number: such a pair is matched only when nothing else is left."""

FOLD = 64
"""Factors in 0.5..1 multiplied before one logarithm is taken: 2**-64 is far from float32's smallest number."""

READING = 100
"""Reading a logit from a map costs as much as this many multiplications of a product (two AVX512 cores, float32)."""

TINY = 1e-6
"""Least divisor where nothing may be left to divide."""


class CostWeights(NamedTuple):
    """Weights of the three costs; OneFormer's published configurations have 2, 5 and 5."""

    label: float
    mask: float
    dice: float


class Match(NamedTuple):
    """Pairs of one image, n = min(Q, N) in each of L layers: `queries` (L, n) and `targets` (L, n), both int64."""

    queries: Tensor
    targets: Tensor


class Matches(NamedTuple):
    """One `Match` per image, and for each layer whether all its costs were numbers."""

    images: tuple[Match, ...]
    finite: tuple[bool, ...]


@torch.no_grad()
def match(
    class_logits: Tensor,
    mask_embed: Tensor,
    mask_features: Tensor,
    targets: Sequence[SampledTarget],
    *,
    weights: CostWeights,
) -> Matches:
    """Class logits (L, B, Q, K+1), both factors of the masks and B sampled targets -> the pairs of least total cost.

    The factors are (L, B, Q, C') and (B, C', h, w); masks are only computed at the points of `targets`.
    Never fails on NaN: the layer is reported in `Matches.finite` instead. Images without objects, and with more
    objects than queries, are served.
    """
    probabilities = class_logits.softmax(-1)
    costs = []
    for i, target in enumerate(targets):
        masks = (mask_embed[:, i], mask_features[i])
        costs.append(pair_costs(probabilities[:, i], masks, target, weights=weights))  # (L, Q, N)
    return _assign(costs)


def pair_costs(
    probabilities: Tensor, masks: tuple[Tensor, Tensor], target: SampledTarget, *, weights: CostWeights
) -> Tensor:
    """One image: class probabilities (L, Q, K+1), factors of the masks, truth -> cost of each pair (L, Q, N).

    The factors are (L, Q, C') and (C', h, w). The class cost is minus the probability of the object's class; mask and
    dice cost are the losses of `loss/mask.py` at the shared points, void left out.
    """
    embed, features = masks
    layers, queries = embed.shape[:2]
    count = target.num_match
    values = at_least_float32(target.values[:, :count].to(features.dtype))  # (N, P)
    known = target.known_part(0, count)
    if not len(values):
        return values.new_zeros(layers, queries, 0)
    sums = _point_sums(embed.flatten(0, 1), features, target, values)
    total = float(count) if known is None else known.sum().clamp(min=TINY)
    mask = (sums.softplus - sums.logit_in_mask) / total  # (N, L*Q)
    scale = count / total  # so that smoothing by 1 weighs the same whatever part of the image is void
    inside = values.sum(1, keepdim=True)  # (N, 1)
    dice = 1 - (2 * scale * sums.sigmoid_in_mask + 1) / (scale * (sums.sigmoid + inside) + 1)
    cost = (weights.mask * mask + weights.dice * dice).view(-1, layers, queries).permute(1, 2, 0)  # (L, Q, N)
    return cost - weights.label * probabilities[..., target.labels]


class _PointSums(NamedTuple):
    """Sums over the points, weighted by how known they are, for C = L*Q masks: (C,), (C,), (N, C), (N, C)."""

    softplus: Tensor
    sigmoid: Tensor
    logit_in_mask: Tensor
    sigmoid_in_mask: Tensor


def _point_sums(embed: Tensor, features: Tensor, target: SampledTarget, values: Tensor) -> _PointSums:
    """Factors (C, C') and (C', h, w) of C masks, truth (N, P) -> what mask and dice cost need, points in chunks.

    With soft truth t, BCE(x, t) = softplus(x) - x t: one softplus per point and mask, and one product with the truth.
    """
    known = target.known_part(0, target.num_match)
    weight = values.new_ones(1, values.shape[1]) if known is None else known[None].to(values.dtype)
    factors = torch.cat((weight, values))  # (1+N, P)
    softplus = values.new_zeros(len(embed))
    sigmoids = values.new_zeros(len(factors), len(embed))  # (1+N, C)
    logits = values.new_zeros(len(values), len(embed))  # (N, C)
    step = max(FOLD, chunk(values.device, len(embed)) // FOLD * FOLD)
    for start, x in _logits(embed, features, target.stencil.part(0, target.num_match), step=step):
        stop = start + len(x)
        logits.addmm_(values[:, start:stop], x)
        probability = x.sigmoid()
        sigmoids.addmm_(factors[:, start:stop], probability)
        softplus += _softplus_sum(x, probability) if known is None else weight[0, start:stop] @ F.softplus(x)
    return _PointSums(softplus, sigmoids[0], logits, sigmoids[1:])


def _logits(embed: Tensor, features: Tensor, stencil: Stencil, *, step: int) -> Iterator[tuple[int, Tensor]]:
    """Factors of C masks -> their logits at the places of a stencil: pairs of a first place and (at most step, C).

    Reading a map between its pixels is linear, so the product of the factors may come before or after. With fewer
    pixels than places it comes before, with more of them after: then ten layers' masks are never computed as maps.
    """
    table = at_least_float32(features).flatten(1).t().contiguous()  # (h*w, C')
    project = embed.to(features.dtype).t()  # (C', C)

    def multiply(rows: Tensor) -> Tensor:
        return at_least_float32(rows.to(features.dtype) @ project)

    maps_first = len(table) * len(project) + READING * len(stencil) < len(stencil) * len(project)
    if maps_first:
        table = multiply(table)  # (h*w, C)
    for start in range(0, len(stencil), step):
        rows = stencil.part(start, start + step).rows(table)
        yield start, rows if maps_first else multiply(rows)


def _softplus_sum(x: Tensor, probability: Tensor) -> Tensor:
    """Logits (p, C) and their sigmoids -> sum of softplus over p, (C,). Overwrites both arguments.

    softplus(x) = max(x, 0) - log(max(s, 1 - s)) with s = sigmoid(x). The logarithms' arguments lie in 0.5..1 and are
    multiplied first, which takes a 64th of the logarithms and a third less time for the whole matching on a CPU.
    """
    factor = probability.sub_(0.5).abs_().add_(0.5)
    folds = 1
    while folds < FOLD and len(factor) % 2 == 0:
        half = len(factor) // 2
        factor = factor[:half].mul_(factor[half:])
        folds *= 2
    return x.relu_().sum(0) - factor.log_().sum(0)


def _assign(costs: Sequence[Tensor]) -> Matches:
    """Cost of each pair, B x (L, Q, N) -> the cheapest pairs, found on the CPU (scipy, exact)."""
    shapes = [tuple(cost.shape) for cost in costs]
    flat = torch.cat([cost.flatten() for cost in costs]).cpu().numpy()  # the only copy from the device
    parts = np.split(flat, np.cumsum([np.prod(shape, dtype=int) for shape in shapes])[:-1])
    layers = shapes[0][0]
    finite = np.ones(layers, bool)
    pairs = []
    for part, shape in zip(parts, shapes, strict=True):
        cost = part.reshape(shape)
        finite &= np.isfinite(cost).reshape(layers, -1).all(1)
        pairs.append(_assign_image(cost))
    device = costs[0].device
    moved = torch.from_numpy(np.concatenate([p.reshape(-1) for p in pairs])).to(device)  # the only copy back
    images = []
    for part, pair in zip(moved.split([p.size for p in pairs]), pairs, strict=True):
        queries, targets = part.view(pair.shape)
        images.append(Match(queries, targets))
    return Matches(tuple(images), tuple(bool(f) for f in finite))


def _assign_image(cost: NDArray[np.float32]) -> NDArray[np.int64]:
    """Costs (L, Q, N) of one image -> pairs (2, L, min(Q, N)), query first, ordered by query."""
    usable = np.nan_to_num(cost, nan=WORST_COST, posinf=WORST_COST, neginf=WORST_COST)
    pairs = np.empty((2, len(cost), min(cost.shape[1:])), np.int64)
    for layer, matrix in enumerate(usable):
        pairs[:, layer] = linear_sum_assignment(matrix)
    return pairs
