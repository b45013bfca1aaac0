"""Queries and texts of a batch -> the contrastive loss that ties the two together, over all ranks.

Symmetric InfoNCE between each image's queries and the texts made from its labels (OneFormer, arXiv 2211.06220): the
more an image's queries resemble its own texts rather than those of the other images, the smaller the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

MAX_SCALE = 100.0
"""Upper bound of the learned factor on the similarities (CLIP, arXiv 2103.00020, section 2.5)."""


def gather_counts(counts: Sequence[int], device: torch.device) -> list[list[int]]:
    """This process's counts -> those of every rank, one row each, by one small collective; alone, just its own row."""
    own = [int(count) for count in counts]
    if not _in_parallel():
        return [own]
    mine = torch.tensor(own, dtype=torch.long, device=device)
    rows = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, mine)
    return [[int(count) for count in row] for row in torch.stack(rows).tolist()]


def contrastive_loss(queries: Tensor, texts: Tensor, logit_scale: Tensor, *, batches: Sequence[int]) -> Tensor:
    """Queries (B, Q, C), texts (B, Q, C), the logarithm of the similarity factor () -> loss ().

    `batches` holds the number of images of every rank, in rank order. The mean of the loss over ranks, and of its
    gradient (which is what DistributedDataParallel forms), are those of one process with the whole batch, also when
    ranks hold different numbers of images. With one image in all, the loss is exactly 0 and so are its gradients:
    there is nothing to tell apart.
    """
    images = F.normalize(queries.flatten(1), dim=-1)  # (B, Q*C)
    words = F.normalize(texts.flatten(1).to(images.dtype), dim=-1)  # (B, Q*C)
    rank = dist.get_rank() if len(batches) > 1 else 0
    own = len(images)
    assert batches[rank] == own, f"rank {rank} holds {own} images, not {batches[rank]}"
    all_images, all_words = images, words
    if len(batches) > 1:
        both: Tensor = _Gather.apply(torch.stack((images, words), 1), tuple(batches), rank)  # (sum B, 2, Q*C)
        all_images, all_words = both.unbind(1)
    scale = logit_scale.exp().clamp(max=MAX_SCALE)
    answer = torch.arange(own, device=images.device) + sum(batches[:rank])
    image_to_text = F.cross_entropy(scale * images @ all_words.t(), answer, reduction="sum")
    text_to_image = F.cross_entropy(scale * words @ all_images.t(), answer, reduction="sum")
    # Divided by the mean images per rank, so that the mean over ranks is the mean over all images.
    return (image_to_text + text_to_image) * (len(batches) / sum(batches))


def _in_parallel() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _Gather(torch.autograd.Function):
    """Rows (B, ...) of this rank -> the rows of all ranks (sum B, ...); gradients flow back to the rank of each row."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, batches: tuple[int, ...], rank: int) -> Tensor:
        ctx.start, ctx.count = sum(batches[:rank]), batches[rank]
        padded = rows.new_zeros(max(batches), *rows.shape[1:])  # collectives want equal shapes
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in batches]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, batches, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        grad = grads[0].contiguous()
        dist.all_reduce(grad)
        return grad[ctx.start : ctx.start + ctx.count], None, None
