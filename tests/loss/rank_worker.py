"""One process of a distributed loss: its share of seeded batches in, the results over all ranks out."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from loss.batches import random_decoded, random_target, small_spec, some_points
from oneformer.loss.total import Criterion
from oneformer.model.decoder import Decoded, Prediction

RANKS = 2
PARTS = ("loss_ce", "loss_mask", "loss_dice", "loss_ce_0", "loss_mask_0", "loss_dice_0", "loss_contrastive")


class Case(NamedTuple):
    """Objects of each image of the whole batch, and how many images the first rank has."""

    objects: tuple[int, ...]
    first: int

    def shares(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """First and one past the last image of each rank."""
        return (0, self.first), (self.first, len(self.objects))


CASES = {
    "unequal batches": Case((2, 4, 1), 2),
    "one image each": Case((3, 5), 1),
    "two images each": Case((1, 2, 6, 3), 2),
    "a rank without objects": Case((0, 0, 4), 2),
    "more objects than queries": Case((9, 1), 1),
    "no objects at all": Case((0, 0), 1),
}


def share_of_batch(case: Case, start: int, stop: int) -> dict[str, Tensor]:
    """Losses of images start..stop of the seeded batch, and gradients of two weights that all images share."""
    torch.manual_seed(0)
    images = len(case.objects)
    targets = [random_target(n) for n in case.objects]
    points = [some_points(t) for t in targets]
    decoded, texts = random_decoded(images, layers=2), torch.randn(images, 7, 16)
    mask_weight, width_weight = torch.ones(8, 10, requires_grad=True), torch.ones(16, requires_grad=True)
    part = slice(start, stop)
    layers = [Prediction(*(x.detach()[part] for x in layer)) for layer in (decoded.last, *decoded.early)]
    local = Decoded(
        last=layers[0],
        early=tuple(layers[1:]),
        mask_features=decoded.mask_features.detach()[part] * mask_weight,
        queries=decoded.queries.detach()[part] * width_weight,
    )
    criterion = Criterion(small_spec())
    losses = criterion(local, targets[part], texts[part] + width_weight.square(), points=points[part])
    sum(losses[name] for name in PARTS).backward()
    result = {name: losses[name].detach() for name in PARTS}
    return result | {"mask": mask_weight.grad, "width": width_weight.grad, "scale": criterion.logit_scale.grad}


def run(rank: int, folder: str) -> dict[str, dict[str, Tensor]]:
    """This rank's share of each case -> the mean of the results over the ranks, as DistributedDataParallel forms it."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=(Path(folder) / "meeting").as_uri(),
        rank=rank,
        world_size=RANKS,
        timeout=datetime.timedelta(seconds=100),
    )
    try:
        results = {name: share_of_batch(case, *case.shares()[rank]) for name, case in CASES.items()}
        for result in results.values():
            for value in result.values():
                dist.all_reduce(value)
                value.div_(RANKS)
    finally:
        dist.destroy_process_group()
    return results


def run_second(_: int, folder: str) -> None:
    """What the started process does; the first rank is the test itself."""
    run(1, folder)
