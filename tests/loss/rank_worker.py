"""One process of a distributed loss: its share of a seeded batch in, the result over all ranks out."""

from __future__ import annotations

import datetime
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch import Tensor

from loss.batches import random_decoded, random_target, small_spec, some_points
from oneformer.loss.total import Criterion

IMAGES = 3
SHARES = ((0, 2), (2, 3))  # images of each rank: not the same number
PARTS = ("loss_mask", "loss_dice", "loss_mask_0", "loss_dice_0", "loss_contrastive")


def share_of_batch(start: int, stop: int) -> dict[str, Tensor]:
    """Losses of images start..stop of the seeded batch, and gradients of two weights that all images share."""
    torch.manual_seed(0)
    targets = [random_target(objects) for objects in (2, 4, 1)]
    points = [some_points(t) for t in targets]
    decoded, texts = random_decoded(IMAGES, layers=2), torch.randn(IMAGES, 7, 16)
    mask_weight, width_weight = torch.ones(8, 10, requires_grad=True), torch.ones(16, requires_grad=True)
    part = slice(start, stop)
    local = SimpleNamespace(
        class_logits=decoded.class_logits.detach()[part],
        mask_logits=decoded.mask_logits.detach()[part] * mask_weight,
        auxiliary=tuple((c.detach()[part], m.detach()[part] * mask_weight) for c, m in decoded.auxiliary),
        queries=decoded.queries.detach()[part] * width_weight,
    )
    criterion = Criterion(small_spec())
    losses = criterion(local, targets[part], texts[part] + width_weight.square(), points=points[part])
    sum(losses[name] for name in PARTS).backward()
    result = {name: losses[name].detach() for name in PARTS}
    return result | {"mask": mask_weight.grad, "width": width_weight.grad, "scale": criterion.logit_scale.grad}


def run(rank: int, folder: str) -> dict[str, Tensor]:
    """This rank's share -> the mean of the results over the ranks, as DistributedDataParallel forms it."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=(Path(folder) / "meeting").as_uri(),
        rank=rank,
        world_size=len(SHARES),
        timeout=datetime.timedelta(seconds=100),
    )
    try:
        result = share_of_batch(*SHARES[rank])
        for value in result.values():
            dist.all_reduce(value)
            value.div_(len(SHARES))
    finally:
        dist.destroy_process_group()
    return result


def run_second(_: int, folder: str) -> None:
    """What the started process does; the first rank is the test itself."""
    run(1, folder)
