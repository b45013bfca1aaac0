"""The `automl` section: what a search for better settings may change, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from oneformer.spec.field import Spellings, Unit


@dataclass
class AutomlSpec:
    """Search for better settings by many trainings (`oneformer automl`)."""

    parameters: list[str] = field(default_factory=list)
    """Keys to search, such as `train.optim.lr`; empty takes the default ones of `automl.tier` and those in
    `automl.ranges`."""
    ranges: dict[str, Any] = field(default_factory=dict)
    """Ranges of your own by key: `valid_min` and `valid_max`, or `valid_options` with `option_weights`; `scale` is
    linear or log."""
    tier: Annotated[int, Ge(0), Le(2)] = 0
    """How many keys are searched by default: 1 the few that matter most, 2 also the weights of the losses, dropout and
    the schedule. 0 takes 2 from 40 trials on."""
    algorithm: Literal["asha", "hyperband", "bohb", "random", "bayesian", "bfbo"] = "asha"
    """Which trials train on: `asha` promotes the best as soon as they are known, `hyperband` and `bohb` run brackets
    from many short to few long trainings; `random`, `bayesian` and `bfbo` train every trial to the end."""
    sampler: Literal["auto", "tpe", "gp", "qmc", "random"] = "auto"
    """Where new trials come from: `tpe` and `gp` learn from those before, `qmc` spreads them evenly. `auto` is the
    algorithm's own: tpe for asha and bohb, gp for bayesian and bfbo, random for hyperband and random."""
    max_trials: Annotated[int, Ge(0)] = 0
    """Settings to try, the spec's own among them. 0 takes 20, and for hyperband and bohb all of their brackets."""
    min_epochs: Annotated[int, Ge(1), Unit("epochs")] = 1
    """Shortest training after which a trial is compared with others."""
    reduction_factor: Annotated[int, Ge(2), Le(16)] = 3
    """One of this many trials goes on from each rung to the next, which is as many times longer."""
    seed: Annotated[int, Ge(0), Le(2**31 - 1)] = 0
    """Starting point of all draws of the search."""
    metric: Annotated[
        Literal["auto", "PQ", "PQ_things", "mIoU", "AP", "train_loss"],
        Spellings((("kpi", "mIoU"), ("loss", "train_loss"))),
    ] = "auto"
    """Score to search for; more is better, except for the training loss. `auto` takes what `train.best_metric` does."""
    max_concurrent: Annotated[int, Ge(1)] = 1
    """Trials that train at the same time."""
    retries: Annotated[int, Ge(0)] = 2
    """How often a trial that a fault of the machine has broken off goes on from its last checkpoint."""
    results_dir: str = ""
    """Folder of the search, which is its identity: the same folder goes on with it. Empty means `automl` under the
    common `results_dir`."""
