"""Class logits and matches -> the class loss: cross-entropy over all queries, the unmatched ones being "no object"."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from oneformer.loss.match import TINY, Match


def assigned_classes(matches: Sequence[Match], labels: Sequence[Tensor], *, queries: int, no_object: int) -> Tensor:
    """B matches and B x (N,) labels -> the class each of Q queries should say in each layer, (L, B, Q) int64."""
    layers = matches[0].queries.shape[0]
    device = matches[0].queries.device
    classes = torch.full((layers, len(matches), queries), no_object, dtype=torch.long, device=device)
    for i, (match, label) in enumerate(zip(matches, labels, strict=True)):
        classes[:, i].scatter_(1, match.queries, label[match.targets])
    return classes


def label_loss(
    class_logits: Tensor, classes: Tensor, *, no_object_weight: float, divisor: float | None = None
) -> Tensor:
    """Class logits (L, B, Q, K+1) and classes (L, B, Q) -> loss of each layer (L,).

    Cross-entropy with weight 1, for "no object" (class K) `no_object_weight` (published: 0.1), divided by the sum of
    the weights of the batch (DETR's rule, kept by OneFormer), or by `divisor`: with several ranks, the mean of their
    sums, so that the mean of their losses is that of one process with the whole batch.
    """
    no_object = class_logits.shape[-1] - 1
    surprise = F.cross_entropy(class_logits.flatten(0, 2), classes.flatten(), reduction="none").view(classes.shape)
    weight = torch.where(classes == no_object, no_object_weight, 1.0).to(surprise.dtype)  # (L, B, Q)
    total = weight.sum((1, 2)) if divisor is None else weight.new_tensor(divisor)
    return (weight * surprise).sum((1, 2)) / total.clamp(min=TINY)
