"""What a search is asked to find, and what trials have measured -> how good each of them is: one score, or several.

Several objectives become one number (a weighted sum), or none of them counts more than another (a Pareto front:
Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II" (2002), sections III.A and III.B).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oneformer.automl.trial import Rung
from oneformer.errors import SpecError, UserError, UserErrors
from oneformer.spec.automl import AutomlSpec
from oneformer.train.best import HIGHER_IS_BETTER

# What costs something and is measured on the finished network -> the same direction for everybody: less.
COSTS = {"latency_ms": False, "size_mib": False}
DIRECTIONS = {"maximize": True, "minimize": False}
ASKED = ("direction", "weight", "scale")

Ranks = Callable[[Sequence[Rung]], list[float]]
"""What several trials have reached after the same number of epochs -> a number for each; more is better."""


@dataclass(frozen=True)
class Part:
    """One of several objectives."""

    metric: str
    maximise: bool
    weight: float = 1.0
    scale: float = 1.0
    """A difference of this much counts as one unit of `weight`."""

    def worth(self, value: float) -> float:
        """A value as a number of which more is better, in units of `weight`."""
        return (value if self.maximise else -value) * self.weight / self.scale


@dataclass(frozen=True)
class Goal:
    """What is searched for."""

    metric: str
    """Which score a training keeps its best checkpoint by; `auto` until the first trial has shown it."""
    maximise: bool
    parts: tuple[Part, ...] = ()
    """Several objectives; empty where the metric is the only one."""
    pareto: bool = False
    """No objective counts more than another."""

    @property
    def name(self) -> str:
        """What the score of a trial is, in words."""
        if not self.parts or self.pareto:
            return self.metric
        return " + ".join(f"{p.worth(1.0):.3g} {p.metric}" for p in self.parts).replace("+ -", "- ")

    @property
    def more(self) -> bool:
        """Whether more of the score is better; a weighted sum counts what is to be low as negative."""
        return self.maximise if not self.parts or self.pareto else True

    def worth(self, score: float) -> float:
        """A score as a number of which more is better."""
        return score if self.more else -score

    def score(self, best: float, metrics: Mapping[str, float]) -> float | None:
        """The score of a trial: its best value of the metric, or the weighted sum; None where a part is no number."""
        values = [metrics.get(p.metric, math.nan) for p in self.parts]
        if not all(map(math.isfinite, [best, *values])):
            return None
        if not self.parts or self.pareto:
            return best
        return sum(p.worth(v) for p, v in zip(self.parts, values, strict=True))

    def ranks(self, rungs: Sequence[Rung]) -> list[float]:
        """How good each is among all of them."""
        if not self.pareto:
            return [self.worth(r.score) for r in rungs]
        found = self.vectors(rungs)
        front, crowd = fronts(found), np.zeros(len(rungs))
        for number in set(front.tolist()):
            inside = np.flatnonzero(front == number)
            crowd[inside] = spacing(found[inside])
        with np.errstate(invalid="ignore"):
            share = np.where(np.isinf(crowd), 1.0, crowd / (1.0 + crowd))
        return [float(value) for value in share * 0.5 - front]

    def vectors(self, rungs: Sequence[Rung]) -> NDArray[np.float64]:
        """The objectives of each (N, parts); more is better."""
        rows = [[p.worth(r.metrics[p.metric]) / p.weight for p in self.parts] for r in rungs]
        return np.array(rows, dtype=np.float64).reshape(len(rungs), len(self.parts))


def fronts(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The front that each of N vectors (N, parts) belongs to: 0 where nothing is better in one and as good in all."""
    better = (values[:, None] >= values[None]).all(-1) & (values[:, None] > values[None]).any(-1)  # (N, N)
    found, number = np.full(len(values), -1, dtype=np.int64), 0
    while (left := found < 0).any():
        found[left & ~(better & left[:, None]).any(0)] = number
        number += 1
    return found


def spacing(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the neighbours of each vector of one front are, the ends infinitely far: NSGA-II's crowding distance."""
    count, parts = values.shape
    found = np.zeros(count)
    for column in range(parts):
        order = np.argsort(values[:, column], kind="stable")
        ordered = values[order, column]
        span = ordered[-1] - ordered[0]
        found[order[[0, -1]]] = np.inf
        if span > 0:
            found[order[1:-1]] += (ordered[2:] - ordered[:-2]) / span
    return found


def goal_of(automl: AutomlSpec, metric: str = "") -> Goal:
    """The goal that the settings ask for; `metric` is what the first trial has shown where they leave it open.

    Raises:
        UserErrors: an objective that does not exist, or without a direction, or nothing that a training can be kept by.
    """
    if not automl.objectives:
        if automl.combine == "pareto":
            what = "a Pareto front needs two objectives or more"
            raise UserErrors([SpecError(what, where="automl.combine", hint="name them in automl.objectives")])
        name = metric or automl.metric
        return Goal(name, HIGHER_IS_BETTER.get(name, True))
    errors: list[UserError] = []
    parts = [_part(name, said, errors) for name, said in automl.objectives.items()]
    kept_by = next((name for name in automl.objectives if name in HIGHER_IS_BETTER), "")
    if automl.metric not in ("auto", kept_by):
        what = f"automl.metric is {automl.metric}, but automl.objectives begin with {kept_by or 'none of its kind'}"
        errors.append(SpecError(what, where="automl.metric", hint="leave it out, or make it the first objective"))
    if not errors and not kept_by:
        hint = f"add one of {', '.join(HIGHER_IS_BETTER)}"
        errors.append(SpecError("no objective says how good a network is", where="automl.objectives", hint=hint))
    if automl.combine == "pareto" and len(automl.objectives) < 2:
        errors.append(SpecError("a Pareto front needs two objectives or more", where="automl.objectives"))
    if errors:
        raise UserErrors(errors)
    return Goal(kept_by, HIGHER_IS_BETTER[kept_by], tuple(p for p in parts if p), automl.combine == "pareto")


def _part(name: str, said: Any, errors: list[UserError]) -> Part | None:
    """One objective; what is wrong with it is added to `errors`."""
    where, known = f"automl.objectives.{name}", {**HIGHER_IS_BETTER, **COSTS}
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        errors.append(SpecError(f"there is no objective {name}", where=where, hint=hint))
        return None
    if not isinstance(said, Mapping) or said.get("direction") not in DIRECTIONS or not set(said) <= set(ASKED):
        hint = f"{name}: {{direction: {'maximize' if known[name] else 'minimize'}, weight: 1, scale: 1}}"
        what = "an objective is a table with its direction (maximize or minimize), and weight and scale if wanted"
        errors.append(SpecError(what, where=where, hint=hint))
        return None
    if DIRECTIONS[said["direction"]] != known[name]:
        wanted = "more" if known[name] else "less"
        errors.append(SpecError(f"of {name} {wanted} is better", where=f"{where}.direction"))
    numbers = [said.get(key, 1.0) for key in ("weight", "scale")]
    for key, number in zip(("weight", "scale"), numbers, strict=True):
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < math.inf:
            errors.append(SpecError(f"{key} has to be a number above 0", where=f"{where}.{key}"))
            return None
    return Part(name, known[name], *map(float, numbers))
