"""Matched masks and sampled truth -> binary cross-entropy and dice loss at the points that matter most."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from oneformer.loss.match import TINY, Match
from oneformer.loss.points import SampledTarget, at_least_float32, chunk, most_uncertain
from oneformer.model.decoder import mask_logits


def point_losses(logits: Tensor, values: Tensor, known: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logits (M, P), truth (M, P) in 0..1 and how known each point is (M, P) -> mean BCE (M,) and dice loss (M,).

    `values` is truth times `known` (see `points.read_target`). Both losses are normalised by what is known, dice
    before its smoothing by 1, so void neither adds to a loss nor thins it. With `known` None or all 1 these are the
    published losses (Mask2Former's code; the smoothing is not in the paper). A mask of which nothing is known has
    losses of 0.
    """
    probability = logits.sigmoid()
    if known is None:
        bce = F.binary_cross_entropy_with_logits(logits, values, reduction="none").mean(1)
        overlap, size = (probability * values).sum(1), probability.sum(1) + values.sum(1)
    else:
        total = known.sum(1).clamp(min=TINY)
        bce = (known * F.softplus(logits) - logits * values).sum(1) / total
        scale = logits.shape[1] / total
        overlap = scale * (probability * values).sum(1)
        size = scale * ((probability * known).sum(1) + values.sum(1))
    return bce, 1 - (2 * overlap + 1) / (size + 1)


def image_mask_losses(
    masks: tuple[Tensor, Tensor], target: SampledTarget, match: Match, *, uncertain: int
) -> tuple[Tensor, Tensor]:
    """One image's matched masks as factors (L, n, C') and (C', h, w) -> the sums over them of BCE and dice, (L,) each.

    Of the candidate places each mask keeps the `uncertain` ones where its own logit is nearest to 0 (PointRend,
    arXiv 1912.08193, section 3.1), and the uniform places as they are.
    """
    embed, features = masks
    count = embed.shape[1]
    stencil = target.stencil.part(target.num_match)  # candidates and uniform places, C+U
    step = chunk(features.device, count * len(stencil))
    sums = []
    for start in range(0, embed.shape[0], step):
        part = embed[start : start + step].reshape(1, -1, embed.shape[2])  # (1, M, C')
        maps = at_least_float32(mask_logits(part, features[None])[0])  # (M, h, w)
        owner = match.targets[start : start + step].flatten()  # (M,)
        losses = point_losses(*_at_kept_places(stencil.sample(maps), target, owner, uncertain))
        sums.append(torch.stack(losses).view(2, -1, count).sum(2))
    bce, dice = torch.cat(sums, 1)
    return bce, dice


def _at_kept_places(
    logits: Tensor, target: SampledTarget, owner: Tensor, uncertain: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits (M, C+U), the object of each (M,) -> logits, truth and knownness at the places each keeps, (M, P)."""
    first = target.num_match
    known = target.known_part(first)
    candidates = target.num_candidates
    picked = most_uncertain(logits[:, :candidates], uncertain, None if known is None else known[:candidates])
    uniform = torch.arange(candidates, logits.shape[1], device=logits.device).expand(len(logits), -1)
    keep = torch.cat((picked, uniform), 1)  # (M, P)
    values = target.values.to(logits.dtype)  # (N, T)
    truth = values.flatten()[(owner * values.shape[1] + first)[:, None] + keep]  # (M, P)
    return logits.gather(1, keep), truth, None if known is None else known.to(logits.dtype)[keep]
