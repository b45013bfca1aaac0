"""The `automl` section: what a search for better settings may change, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge, Le


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
    max_trials: Annotated[int, Ge(1)] = 20
    """Settings to try, the spec's own among them."""
