"""Class and mask logits of one image -> a map of segment ids at the photo's own size and the list of its segments."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oneformer.segments.resize import Frame, Size, Upsampler, count, exact
from oneformer.segments.types import VOID_ID, PanopticResult, Rules, Segment


@exact
def panoptic(
    class_logits: Tensor, mask_logits: Tensor, *, input_size: Size, size: Size, original_size: Size, rules: Rules
) -> PanopticResult:
    """Every pixel in at most one segment (published rule of Mask2Former and OneFormer).

    1. Keep the queries whose best column is a class, not "no object", with a probability above `object_mask_threshold`.
    2. Each pixel goes to the query with the highest class x mask probability, the first one where several are equal.
    3. A query is dropped when it won no pixel, when its mask (probability >= `mask_threshold`) is empty or apart from
       what it won, or when it won fewer than `overlap_threshold` times the pixels of its mask; equality stays.
    4. A segment is what the query won inside its mask. Stuff of one class is one segment; things stay apart.

    Args:
        class_logits: (Q, K+1), the last column "no object".
        mask_logits: (Q, h, w) before the sigmoid.
        input_size, size, original_size: padded network input, the image in it, the photo; (height, width) in pixels.
        rules: thresholds and thing classes.

    Returns:
        Ids from 1 in the order of the queries, 0 for void. A segment's score is its query's class probability, for
        stuff of several queries the highest. Only the queries of step 1 are ever resized.
    """
    scores, labels = class_logits.float().softmax(dim=-1).max(dim=-1)  # (Q,)
    keep = (labels != class_logits.shape[1] - 1) & (scores > rules.object_mask_threshold)
    kept = keep.nonzero().flatten()  # (N,)
    if kept.numel() == 0:
        return PanopticResult(np.full(original_size, VOID_ID, dtype=np.int32), ())
    masks = mask_logits[kept]  # (N, h, w)
    frame = Frame(input_size, size, original_size)
    upsampler = Upsampler((mask_logits.shape[1], mask_logits.shape[2]), frame, device=masks.device)
    winners, mask_areas = _compete(masks, scores[kept], upsampler, rules.mask_threshold)
    return _settle(winners, mask_areas, labels[kept].tolist(), scores[kept].tolist(), rules)


def _compete(
    masks: Tensor, scores: Tensor, upsampler: Upsampler, threshold: float
) -> tuple[NDArray[np.int32], list[int]]:
    """Masks (N, h, w) -> per pixel 2 x (index of the winner) + (inside its mask), and the pixels of each whole mask."""
    device = masks.device
    winners = torch.empty((upsampler.height, upsampler.width), dtype=torch.int32, device=device)
    mask_areas = torch.zeros(scores.shape[0], dtype=torch.int64, device=device)
    for band in upsampler.bands(masks.shape[0]):
        probs = upsampler.rows(masks, band).sigmoid_().flatten(1)  # (N, r * W)
        inside = probs >= threshold
        mask_areas += count(inside)
        best = probs.mul_(scores[:, None]).max(dim=0, keepdim=True).indices  # (1, r * W)
        code = 2 * best + inside.gather(0, best)
        winners[band.start : band.stop] = code.view(-1, upsampler.width).int()
    return winners.cpu().numpy(), mask_areas.tolist()


def _settle(
    winners: NDArray[np.int32], mask_areas: list[int], labels: list[int], scores: list[float], rules: Rules
) -> PanopticResult:
    """Drops what lost too much, merges stuff, numbers the rest."""
    counts = np.bincount(winners.ravel(), minlength=2 * len(labels)).tolist()
    new_ids = np.zeros(2 * len(labels), dtype=np.int32)
    found: dict[int, Segment] = {}
    stuff_ids: dict[int, int] = {}
    for i, (class_id, score) in enumerate(zip(labels, scores, strict=True)):
        won, shown = counts[2 * i] + counts[2 * i + 1], counts[2 * i + 1]
        if not (won and shown and mask_areas[i]) or won / mask_areas[i] < rules.overlap_threshold:
            continue
        isthing = rules.is_thing[class_id]
        segment_id = len(found) + 1 if isthing else stuff_ids.setdefault(class_id, len(found) + 1)
        before = found.get(segment_id)
        area, best = (before.area + shown, max(before.score, score)) if before else (shown, score)
        found[segment_id] = Segment(segment_id, class_id, best, area, isthing)
        new_ids[2 * i + 1] = segment_id
    return PanopticResult(new_ids[winners], tuple(found.values()))
