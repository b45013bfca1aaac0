"""Scores of one validation after another -> which of them is the best so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from oneformer.errors import UserError

# Written out: a name such as "error_rate" or "perplexity" says nothing reliable about the direction.
HIGHER_IS_BETTER = {"PQ": True, "PQ_things": True, "mIoU": True, "AP": True, "train_loss": False}
NEEDS = {"PQ": "panoptic", "PQ_things": "panoptic", "mIoU": "semantic", "AP": "instance"}


class Best:
    """The best value of one metric so far, and at which optimiser step it was reached."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.higher = HIGHER_IS_BETTER[metric]
        self.value: float | None = None
        self.step = 0

    def improved_by(self, values: Mapping[str, float], step: int) -> bool:
        """Note the metric's value among `values`; True when none was better so far and it is a number."""
        value = values.get(self.metric)
        if value is None or not math.isfinite(value):
            return False
        # Among equals the later one: a score of 0 over the first epochs says nothing, more training does.
        better = self.value is None or (value >= self.value if self.higher else value <= self.value)
        if better:
            self.value, self.step = float(value), step
        return better


def resolve_metric(wanted: str, tasks: Sequence[str]) -> str:
    """The metric that `train.best_metric` means when validation scores `tasks`.

    Raises:
        UserError: the metric asked for belongs to a task that is not validated.
    """
    if wanted == "auto":
        return next((metric for metric in ("PQ", "mIoU", "AP") if NEEDS[metric] in tasks), "train_loss")
    need = NEEDS.get(wanted)
    if need and need not in tasks:
        raise UserError(
            f"{wanted} cannot choose the best checkpoint: the {need} task is not validated",
            where="train.best_metric",
            hint=f"give validation images (dataset.val), model.task_toggling.{need}_on=true and a "
            f"dataset.task_prob_val.{need} above 0, or choose another metric",
        )
    return wanted
