"""Everything the network said about a batch, and the truth -> each loss and their weighted total.

`docs/concepts/losses.md` explains the losses to users; the weights are those of the spec's `model.one_former`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from oneformer.errors import WorkError
from oneformer.loss.contrast import contrastive_loss, gather_counts
from oneformer.loss.label import assigned_classes, label_loss
from oneformer.loss.mask import image_mask_losses
from oneformer.loss.match import CostWeights, Matches, match
from oneformer.loss.points import Points, SampledTarget, at_least_float32, draw_points, read_target

if TYPE_CHECKING:
    from oneformer.data.sample import Target
    from oneformer.model.oneformer import Decoded
    from oneformer.spec.model import ModelSpec


class Criterion(nn.Module):
    """The losses of OneFormer (arXiv 2211.06220). The parameter `logit_scale` belongs in the optimiser.

    Args:
        model_spec: the spec's `model` section; read are the number of classes, the loss weights and the point
        settings.
    """

    def __init__(self, model_spec: ModelSpec) -> None:
        super().__init__()
        head = model_spec.one_former
        self.num_classes = model_spec.sem_seg_head.num_classes
        self.loss_weight = model_spec.sem_seg_head.loss_weight
        self.weights = CostWeights(head.class_weight, head.mask_weight, head.dice_weight)
        self.contrastive_weight = head.contrastive_weight
        self.no_object_weight = head.no_object_weight
        self.deep_supervision = head.deep_supervision
        self.num_points = head.train_num_points
        self.oversample = head.oversample_ratio
        self.importance = head.importance_sample_ratio
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / head.contrastive_temperature)))

    def contrastive_active(self, global_batch: int) -> bool:
        """Whether texts change anything: not at weight 0, and not with one image over all ranks: the loss is 0."""
        return self.contrastive_weight > 0 and global_batch > 1

    def forward(
        self,
        decoded: Decoded,
        targets: Sequence[Target],
        texts: Tensor | None,
        *,
        points: Sequence[Points] | None = None,
    ) -> dict[str, Tensor]:
        """Decoded outputs, B targets and texts (B, Q, C) or None -> scalar losses by name.

        `loss_ce`, `loss_mask`, `loss_dice` of the last layer, the same with `_0`, `_1`, ... for the earlier ones (in
        the order of `decoded.early`) and `loss_contrastive` (0 without texts) are unweighted; `loss` is the
        weighted total to minimise. `points` fixes the places the mask losses look at, one item per image; left out,
        they are drawn from torch's generator.

        Class losses are divided by the mean weight of the queries per rank, mask losses by the mean number of objects,
        at least 1: so the mean over ranks, which training forms, is the loss of the whole batch. Every input that is
        given gets a gradient, objects or none. Values that are no numbers come out as they are: see
        `raise_if_not_finite`.
        """
        layers = [decoded.last, *(decoded.early if self.deep_supervision else ())]
        features = decoded.mask_features
        with torch.autocast(features.device.type, enabled=False):
            class_logits = torch.stack([at_least_float32(layer.class_logits) for layer in layers])  # (L, B, Q, K+1)
            embed = torch.stack([layer.mask_embed for layer in layers])  # (L, B, Q, C')
            truth = self._read(targets, points, size=features.shape[-2:])
            matches = match(class_logits.detach(), embed.detach(), features.detach(), truth, weights=self.weights)
            objects = sum(len(target.labels) for target in targets)
            matched = sum(pairs.queries.shape[1] for pairs in matches.images)  # the same in each layer
            counts = gather_counts([objects, len(targets), matched], class_logits.device)
            ce = self._label_loss(class_logits, matches, truth, counts)
            bce, dice = self._mask_losses(embed, features, matches, truth)
            num_masks = max(1.0, sum(row[0] for row in counts) / len(counts))
            contrastive = self._contrastive_loss(decoded.queries, texts, [row[1] for row in counts])
            return self._collect(ce, bce / num_masks, dice / num_masks, contrastive)

    def _read(
        self, targets: Sequence[Target], points: Sequence[Points] | None, *, size: Sequence[int]
    ) -> list[SampledTarget]:
        """Targets -> the truth at random (or the given) places."""
        if points is None:
            settings = {"oversample": self.oversample, "importance": self.importance}
            points = [draw_points(target.void, count=self.num_points, **settings) for target in targets]
        grid = (int(size[0]), int(size[1]))
        return [read_target(t, p, size=grid) for t, p in zip(targets, points, strict=True)]

    def _label_loss(
        self, class_logits: Tensor, matches: Matches, truth: Sequence[SampledTarget], counts: Sequence[Sequence[int]]
    ) -> Tensor:
        queries, rest = class_logits.shape[2], self.no_object_weight
        classes = assigned_classes(
            matches.images, [t.labels for t in truth], queries=queries, no_object=self.num_classes
        )  # (L, B, Q)
        divisor = None
        if len(counts) > 1:
            sums = [matched + rest * (images * queries - matched) for _, images, matched in counts]
            divisor = sum(sums) / len(sums)
        return label_loss(class_logits, classes, no_object_weight=rest, divisor=divisor)

    def _mask_losses(
        self, embed: Tensor, features: Tensor, matches: Matches, truth: Sequence[SampledTarget]
    ) -> tuple[Tensor, Tensor]:
        """Factors (L, B, Q, C') and (B, C', h, w) -> sums of BCE and dice over all matched masks, (L,) each."""
        uncertain = int(self.importance * self.num_points)
        # 0, but part of the graph when no image has an object
        sums = at_least_float32(embed[:, :0].sum((1, 2, 3)) + features[:0].sum()).expand(2, -1)
        for i, (target, pairs) in enumerate(zip(truth, matches.images, strict=True)):
            if pairs.queries.shape[1]:
                rows = pairs.queries[..., None].expand(-1, -1, embed.shape[3])  # (L, n, C')
                masks = (embed[:, i].gather(1, rows), features[i])
                sums = sums + torch.stack(image_mask_losses(masks, target, pairs, uncertain=uncertain))
        bce, dice = sums
        # A cost that is no number may belong to a query that was not matched: it must stop training all the same.
        return bce + bce.new_tensor([0.0 if fine else math.nan for fine in matches.finite]), dice

    def _contrastive_loss(self, queries: Tensor, texts: Tensor | None, batches: Sequence[int]) -> Tensor:
        if texts is None:
            return self.logit_scale * 0  # a gradient of 0 rather than none: DistributedDataParallel waits for each
        return contrastive_loss(at_least_float32(queries), texts, self.logit_scale, batches=batches)

    def _collect(self, ce: Tensor, bce: Tensor, dice: Tensor, contrastive: Tensor) -> dict[str, Tensor]:
        """Losses by layer, (L,) each, last layer first, and the contrastive loss () -> losses by name, with total."""
        losses: dict[str, Tensor] = {}
        for n in range(len(ce)):
            suffix = f"_{n - 1}" if n else ""
            losses |= {f"loss_ce{suffix}": ce[n], f"loss_mask{suffix}": bce[n], f"loss_dice{suffix}": dice[n]}
        weights = self.weights
        total = (weights.label * ce + weights.mask * bce + weights.dice * dice).sum()
        total = self.loss_weight * (total + self.contrastive_weight * contrastive)
        return {"loss": total, **losses, "loss_contrastive": contrastive}

    @staticmethod
    def raise_if_not_finite(losses: Mapping[str, Tensor], names: Sequence[str]) -> None:
        """Losses of a batch and the names of its image files -> nothing, or a WorkError naming what is no number."""
        if bool(torch.isfinite(losses["loss"]).all()):
            return
        broken = [name for name, loss in losses.items() if name != "loss" and not bool(torch.isfinite(loss).all())]
        raise WorkError(
            f"training stopped: the loss is not a finite number ({', '.join(broken) or 'their sum overflowed'})",
            where=", ".join(names),
            hint="look at these images and their masks; if they are sound, lower train.optim.lr, "
            "set train.clip_gradients.clip_value lower, or train with train.precision=fp32 or bf16-mixed",
        )
