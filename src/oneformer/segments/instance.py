"""Class and mask logits of one image -> its best things at the photo's own size, as masks or run-length encoded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oneformer.segments.resize import Frame, Size, Upsampler, count, exact
from oneformer.segments.rle import Rle, encode
from oneformer.segments.types import EncodedInstances, Instances, Rules

CHUNK_PIXELS = 2**26  # mask pixels held at once while encoding (64 MiB of bool)
EMPTY_GUARD = 1e-6  # added to the area in the mean (published inference)


@exact
def instances(
    class_logits: Tensor, mask_logits: Tensor, *, input_size: Size, size: Size, original_size: Size, rules: Rules
) -> Instances:
    """The `rules.topk` best (query, thing class) pairs as masks; they may overlap, a query may bring several classes.

    Score = class probability x mean mask probability inside the mask (above `rules.mask_threshold`), as published. The
    published code takes the best pairs of all classes and drops stuff afterwards, which leaves fewer instances than
    asked for; here stuff is dropped first, so every place goes to a thing. Instances without any pixel are left out
    (their score is zero and they match nothing).

    Args:
        class_logits: (Q, K+1), the last column "no object".
        mask_logits: (Q, h, w) before the sigmoid.
        input_size, size, original_size: padded network input, the image in it, the photo; (height, width) in pixels.
        rules: thing classes and the number to keep.

    Returns:
        N <= topk instances by falling score, on the CPU. They take N x H x W bytes: for large photos see
        `encoded_instances`.
    """
    frame = Frame(input_size, size, original_size)
    pairs = _pairs(class_logits, rules)
    parts = list(_resized(mask_logits[pairs.queries], frame, chunk=pairs.queries.numel(), rules=rules))
    if not parts:
        return Instances(np.zeros((0, *original_size), dtype=bool), *_nothing())
    masks, means, boxes = parts[0]
    order, scores, class_ids = _rank(pairs, means)
    rows = pairs.rows[order]
    return Instances(masks.numpy()[rows.numpy()], class_ids, scores, boxes[rows].numpy())


@exact
def encoded_instances(
    class_logits: Tensor, mask_logits: Tensor, *, input_size: Size, size: Size, original_size: Size, rules: Rules
) -> EncodedInstances:
    """What `instances` finds, each mask run-length encoded, at most `CHUNK_PIXELS` mask pixels in memory at a time."""
    frame = Frame(input_size, size, original_size)
    pairs = _pairs(class_logits, rules)
    chunk = max(1, CHUNK_PIXELS // (original_size[0] * original_size[1]))
    rles: list[Rle] = []
    all_means, all_boxes = [torch.zeros(0)], [torch.zeros(0, 4)]
    for masks, means, corners in _resized(mask_logits[pairs.queries], frame, chunk=chunk, rules=rules):
        rles.extend(encode(mask) for mask in masks.numpy())
        all_means.append(means)
        all_boxes.append(corners)
    if not rles:
        return EncodedInstances((), *_nothing())
    order, scores, class_ids = _rank(pairs, torch.cat(all_means))
    rows = pairs.rows[order]
    boxes = torch.cat(all_boxes)[rows].numpy()
    return EncodedInstances(tuple(rles[i] for i in rows.tolist()), class_ids, scores, boxes)


@dataclass(frozen=True)
class _Pairs:
    """The chosen pairs: their distinct queries, and per pair the row in those, the class and its probability."""

    queries: Tensor  # (U,) on the logits' device
    rows: Tensor  # (N,)
    class_ids: Tensor  # (N,)
    probs: Tensor  # (N,)


def _pairs(class_logits: Tensor, rules: Rules) -> _Pairs:
    """Top-k over queries x thing classes; a query chosen for several classes will be resized once."""
    things = [i for i, thing in enumerate(rules.is_thing) if thing]
    probs = class_logits.float().softmax(dim=-1)[:, things].cpu()  # (Q, things)
    best = probs.flatten().topk(min(rules.topk, probs.numel()))
    queries, rows = torch.unique(best.indices // max(1, len(things)), return_inverse=True)
    class_ids = torch.tensor(things, dtype=torch.int64)[best.indices % max(1, len(things))]
    return _Pairs(queries.to(class_logits.device), rows, class_ids, best.values)


def _resized(mask_logits: Tensor, frame: Frame, *, chunk: int, rules: Rules) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Masks (U, h, w), `chunk` at a time -> on the CPU: masks (n, H, W), mean probability inside (n,), boxes (n, 4)."""
    if mask_logits.shape[0] == 0:
        return
    limit = math.log(rules.mask_threshold / (1 - rules.mask_threshold))
    upsampler = Upsampler((mask_logits.shape[1], mask_logits.shape[2]), frame, device=mask_logits.device)
    for masks in mask_logits.split(chunk):  # (n, h, w)
        inside = torch.empty((len(masks), *frame.original_size), dtype=torch.bool)
        sums = torch.zeros(len(masks), dtype=torch.float64)
        areas = torch.zeros(len(masks), dtype=torch.int64)
        for band in upsampler.bands(len(masks)):
            logits = upsampler.rows(masks, band)  # (n, r, W)
            chosen = logits > limit
            areas += count(chosen).cpu()
            sums += logits.sigmoid_().mul_(chosen).sum(dim=(1, 2)).cpu()
            inside[:, band.start : band.stop] = chosen
        yield inside, (sums / (areas + EMPTY_GUARD)).float(), _boxes(inside)


def _boxes(inside: Tensor) -> Tensor:
    """Masks (n, H, W) on the CPU -> boxes (n, 4) XYXY, half-open; zeros for an empty mask."""
    masks = inside.numpy()
    sides = []
    for axis in (1, 2):
        touched = np.stack([mask.any(axis=axis - 1) for mask in masks])  # (n, W), (n, H)
        sides.append((touched.argmax(axis=1), touched.shape[1] - touched[:, ::-1].argmax(axis=1)))
    (x0, x1), (y0, y1) = sides
    boxes = torch.from_numpy(np.stack((x0, y0, x1, y1), axis=1)).float()
    return boxes * torch.from_numpy(touched.any(axis=1, keepdims=True))


def _rank(pairs: _Pairs, means: Tensor) -> tuple[Tensor, NDArray[np.float32], NDArray[np.int64]]:
    """Pairs by falling score, without empty masks -> their order, scores, class ids."""
    scores = pairs.probs * means[pairs.rows]
    order = scores.argsort(descending=True, stable=True)
    order = order[means[pairs.rows[order]] > 0]
    return order, scores[order].numpy(), pairs.class_ids[order].numpy()


def _nothing() -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32), np.zeros((0, 4), dtype=np.float32)
