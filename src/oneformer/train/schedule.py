"""Optimiser settings and the length of the training -> the learning rate of every optimiser step."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from oneformer.spec.train import OptimSpec

log = logging.getLogger(__name__)

# Under a time limit the number of steps is not known beforehand, so a warm-up given in steps might last for ever.
WARMUP_SHARE = 0.1


def no_limit() -> float:
    """The share of the wall time that is used up when there is no limit: none."""
    return 0.0


def poly(progress: float, spec: OptimSpec) -> float:
    """(1 - progress) ^ power: the published schedule with power 0.9 (oneformer-model.md 1.9)."""
    return float((1.0 - progress) ** spec.power)


def cosine(progress: float, spec: OptimSpec) -> float:  # noqa: ARG001  # all shapes are called alike
    """Half a cosine from 1 to 0."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def constant(progress: float, spec: OptimSpec) -> float:  # noqa: ARG001  # all shapes are called alike
    """1 throughout."""
    return 1.0


SHAPES: dict[str, Callable[[float, OptimSpec], float]] = {
    "warmuppoly": poly,
    "cosine": cosine,
    "constant": constant,
}


class Schedule(torch.optim.lr_scheduler.LRScheduler):
    """Warm-up, then the decay that `optim.lr_scheduler` names, once per optimiser step.

    Args:
        optimizer: its groups' learning rates are the peaks.
        spec: `lr_scheduler`, warm-up, drops and floor.
        total_steps: optimiser steps of the whole training.
        steps_per_epoch: optimiser steps of one epoch; `milestones` count in epochs.
        time_used: share 0..1 of the wall-time limit that has passed; whichever of steps and time is further on decides.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        spec: OptimSpec,
        *,
        total_steps: int,
        steps_per_epoch: int,
        time_used: Callable[[], float] = no_limit,
    ) -> None:
        assert total_steps > 0
        self.spec = spec
        self.total_steps = total_steps
        self.time_used = time_used
        self.kind = spec.lr_scheduler.lower()
        self.warmup_steps = _warmup(spec, total_steps)
        self.drops = _drops(spec, total_steps, steps_per_epoch) if self.kind == "multistep" else []
        super().__init__(optimizer)

    def progress(self) -> float:
        """How far the training is, 0..1, in steps or in time."""
        return min(1.0, max(self.last_epoch / self.total_steps, self.time_used()))

    def factor(self) -> float:
        """What the peak learning rates are multiplied by at the coming step."""
        progress = self.progress()
        floor = self.spec.min_lr_frac
        if self.kind == "multistep":
            passed = sum(progress >= drop for drop in self.drops)
            value = max(floor, self.spec.gamma**passed)
        else:
            value = floor + (1.0 - floor) * SHAPES[self.kind](progress, self.spec)
        return value * self._warm(progress)

    def get_lr(self) -> list[float | Tensor]:
        """The learning rate of each group; called by `step`."""
        factor = self.factor()
        return [float(base) * factor for base in self.base_lrs]

    def _warm(self, progress: float) -> float:
        if self.last_epoch >= self.warmup_steps:
            return 1.0
        share = self.last_epoch / self.warmup_steps
        if self.time_used() > 0:
            share = min(1.0, max(share, progress / WARMUP_SHARE))
        return self.spec.warmup_factor * (1.0 - share) + share

    def state_dict(self) -> dict[str, Any]:
        """The place in the schedule; the shape comes from the spec again."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs), "_last_lr": list(self._last_lr)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on at the saved place. The peaks stay those of the spec, so that a changed `optim.lr` acts."""
        self.last_epoch = state_dict["last_epoch"]
        self._last_lr = self.get_lr()
        for group, peak, lr in zip(self.optimizer.param_groups, self.base_lrs, self._last_lr, strict=True):
            group["initial_lr"], group["lr"] = peak, lr


def _warmup(spec: OptimSpec, total_steps: int) -> int:
    # The published step schedules have no warm-up worth the name, but TAO's keys give one to both kinds.
    if spec.lr_scheduler.lower() == "constant" or spec.warmup_iters < total_steps:
        return int(spec.warmup_iters)
    shorter = max(1, int(total_steps * WARMUP_SHARE))
    log.warning(
        "train.optim.warmup_iters is %d but the whole training has %d optimiser steps; the warm-up is shortened to %d",
        spec.warmup_iters, total_steps, shorter,
    )  # fmt: skip
    return shorter


def _drops(spec: OptimSpec, total_steps: int, steps_per_epoch: int) -> list[float]:
    """Places of the drops as shares of the training: `steps` in iterations, or else `milestones` in epochs."""
    at = list(spec.steps) or [epoch * steps_per_epoch for epoch in spec.milestones]
    inside = [step / total_steps for step in at if step < total_steps]
    if not inside:
        key = "train.optim.steps" if spec.steps else "train.optim.milestones"
        log.warning(
            "the learning rate never drops: %s lies behind the end of the training (%d steps, %d an epoch)",
            key, total_steps, steps_per_epoch,
        )  # fmt: skip
    return sorted(inside)
