"""The settings of a search -> what it optimises, its schedule and its proposals, under TAO's names for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from oneformer.automl.propose import Proposer
from oneformer.automl.schedule import Asha, Full, Hyperband, Schedule, best_first, rungs_between
from oneformer.automl.space import Space
from oneformer.automl.trial import Trial
from oneformer.spec import AutomlSpec

DEFAULT_TRIALS = 20
# Algorithm, in TAO's words -> (schedule, the sampler that `auto` means, share of its trials that is left to chance).
ALGORITHMS: dict[str, tuple[type, str, float]] = {
    "random": (Full, "random", 0.0),
    "bayesian": (Full, "gp", 0.0),
    "bfbo": (Full, "gp", 0.0),
    "asha": (Asha, "tpe", 0.0),
    "hyperband": (Hyperband, "random", 0.0),
    "bohb": (Hyperband, "tpe", 1 / 3),  # Falkner et al. 2018, section 4: a third keeps Hyperband's guarantees
}


@dataclass(frozen=True)
class Goal:
    """What is searched for."""

    metric: str
    maximise: bool

    def worth(self, score: float) -> float:
        """A score as a number of which more is better."""
        return score if self.maximise else -score


@dataclass(frozen=True)
class Brain:
    """Decides: which trial trains next, and what a new one is."""

    goal: Goal
    schedule: Schedule
    proposer: Proposer

    def best(self, trials: Sequence[Trial]) -> Trial | None:
        """The trial to take: of those that got farthest the one with the best score; None while none has a score.

        A better score after fewer epochs does not count: it was measured elsewhere on the schedule.
        """
        for epoch in reversed(self.schedule.rungs):
            if found := best_first([t for t in trials if not t.broken], epoch, self.goal.worth):
                return found[0]
        return None

    def curve(self, trials: Sequence[Trial]) -> list[tuple[int, float]]:
        """(epochs spent by all trials together, best score at the whole training) each time that it gets better."""
        rungs = sorted((rung.place, t, rung) for t in trials for rung in t.rungs.values())
        spent, reached = 0, dict.fromkeys((t.id for t in trials), 0)
        found: list[tuple[int, float]] = []
        for _, trial, rung in rungs:
            spent += rung.epoch - reached[trial.id]
            reached[trial.id] = rung.epoch
            whole = rung.epoch == self.schedule.rungs[-1]
            if whole and (not found or self.goal.worth(rung.score) > self.goal.worth(found[-1][1])):
                found.append((spent, rung.score))
        return found


def brain_of(automl: AutomlSpec, space: Space, *, goal: Goal, whole: int) -> Brain:
    """The brain that the settings ask for; `whole` is the length of a whole training in epochs."""
    kind, usual, chance = ALGORITHMS[automl.algorithm]
    rungs = rungs_between(automl.min_epochs, whole, automl.reduction_factor)
    schedule: Any
    if kind is Full:
        schedule = Full(whole, automl.max_trials or DEFAULT_TRIALS)
    elif kind is Asha:
        schedule = Asha(rungs, automl.reduction_factor, automl.max_trials or DEFAULT_TRIALS, goal.worth)
        schedule = replace(schedule, most=schedule.expected().most)
    else:
        schedule = Hyperband(rungs, automl.reduction_factor, goal.worth, automl.max_trials)
    sampler = usual if automl.sampler == "auto" else automl.sampler
    share = chance if sampler not in ("random", "qmc") else 0.0
    return Brain(goal, schedule, Proposer(space, sampler, automl.seed, goal.worth, share))
