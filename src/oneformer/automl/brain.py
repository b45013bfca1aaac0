"""The settings of a search -> what it optimises, its schedule and its proposals, under TAO's names for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from oneformer.automl.advise import Advisor
from oneformer.automl.confirm import Confirmed, Fresh
from oneformer.automl.forecast import Hopeless
from oneformer.automl.objective import Goal, fronts
from oneformer.automl.population import SIZE, Population, generations
from oneformer.automl.propose import LEARNING, Proposal, Proposer
from oneformer.automl.schedule import Asha, Full, Hyperband, Schedule, Step, best_first, rungs_between
from oneformer.automl.space import Space
from oneformer.automl.trial import Trial
from oneformer.errors import SpecError, UserErrors
from oneformer.spec import AutomlSpec

DEFAULT_TRIALS = 20
# Algorithm, in TAO's words -> (schedule, the sampler that `auto` means, share of its trials that is left to chance).
ALGORITHMS: dict[str, tuple[type, str, float]] = {
    "random": (Full, "random", 0.0),
    "bayesian": (Full, "gp", 0.0),
    "bfbo": (Full, "gp", 0.0),
    "asha": (Asha, "tpe", 0.0),
    "hyperband": (Hyperband, "random", 0.0),
    "hyperband_es": (Hyperband, "random", 0.0),
    "bohb": (Hyperband, "tpe", 1 / 3),  # Falkner et al. 2018, section 4: a third keeps Hyperband's guarantees
    "dehb": (Hyperband, "de", 0.0),
    "pbt": (Population, "qmc", 0.0),
    "llm": (Full, "llm", 0.0),
    "hybrid": (Asha, "hybrid", 0.0),
    "autoresearch": (Asha, "autoresearch", 0.0),
}


@dataclass(frozen=True)
class Brain:
    """Decides: which trial trains next, and what a new one is."""

    goal: Goal
    schedule: Schedule
    proposer: Proposer

    def proposal(self, trials: Sequence[Trial], step: Step) -> Proposal:
        """The values of the new trial that a step asks for."""
        if step.origin is None:
            return self.proposer.next([t for t in trials if not t.again])
        parent = next(t for t in trials if t.id == step.origin.trial)
        if step.origin.seed:
            return Proposal(dict(parent.values), "again")
        return self.proposer.changed(parent, len(trials))

    def best(self, trials: Sequence[Trial]) -> Trial | None:
        """The trial to take: of those that got farthest the one with the best score; None while none has a score.

        A better score after fewer epochs does not count: it was measured elsewhere on the schedule. Where finalists
        were trained again, their fresh scores decide alone. Of a Pareto front it is the best in the first objective.
        """
        if found := self.verdicts(trials):
            return found[0].trial
        if self.goal.pareto:
            return next(iter(self.front(trials)), None)
        for epoch in reversed(self.schedule.rungs):
            if ordered := best_first(_sound(trials), epoch, self.goal.ranks):
                return ordered[0]
        return None

    def front(self, trials: Sequence[Trial]) -> list[Trial]:
        """Of those that got farthest the trials that no other beats in every objective, the first objective leading."""
        for epoch in reversed(self.schedule.rungs):
            here = [t for t in _sound(trials) if epoch in t.rungs]
            if here:
                values = self.goal.vectors([t.rungs[epoch] for t in here])
                first = [(-v[0], t.id, t) for v, t, f in zip(values, here, fronts(values), strict=True) if f == 0]
                return [t for _, _, t in sorted(first)]
        return []

    def verdicts(self, trials: Sequence[Trial]) -> list[Fresh]:
        """What fresh seeds have shown of the finalists, the best first; empty where none were trained again."""
        return self.schedule.verdicts(trials) if isinstance(self.schedule, Confirmed) else []

    def wanted(self, trials: Sequence[Trial], *, over: bool) -> set[int]:
        """Numbers of the trials whose checkpoints may still be asked for; `over`: the search has nothing left."""
        best = self.best(trials)
        kept = {best.id} if best else set()
        if self.goal.pareto:
            kept |= {t.id for t in self.front(trials)}
        inner = self.schedule
        if isinstance(inner, Confirmed):  # more trials may be asked for, and another of them be the best then
            kept |= {t.id for t in inner.chosen([t for t in trials if not t.again])}
            inner = inner.inner
        if over:
            return kept
        going = {t.id for t in trials if not t.ended}
        if isinstance(inner, Population):
            going -= inner.left_behind([t for t in trials if not t.again])
        return kept | going

    def curve(self, trials: Sequence[Trial]) -> list[tuple[int, float]]:
        """(epochs spent by all trials together, best score at the whole training) each time that it gets better."""
        rungs = sorted((rung.place, t, rung) for t in trials if not t.again for rung in t.rungs.values())
        spent, reached = 0, {t.id: t.begun for t in trials}
        found: list[tuple[int, float]] = []
        for _, trial, rung in rungs:
            spent += rung.epoch - reached[trial.id] + rung.again
            reached[trial.id] = rung.epoch
            whole = rung.epoch == self.schedule.rungs[-1]
            if whole and (not found or self.goal.worth(rung.score) > self.goal.worth(found[-1][1])):
                found.append((spent, rung.score))
        return found


def brain_of(automl: AutomlSpec, space: Space, *, goal: Goal, whole: int, advisor: Advisor | None = None) -> Brain:
    """The brain that the settings ask for.

    Args:
        automl: the settings.
        space: the searched keys.
        goal: what is searched for.
        whole: length of a whole training in epochs.
        advisor: the language model, where one proposes.
    """
    _fitting(automl, goal)
    kind, _, chance = ALGORITHMS[automl.algorithm]
    rungs = rungs_between(automl.min_epochs, whole, automl.reduction_factor)
    schedule: Any
    if kind is Full:
        schedule = Full(whole, automl.max_trials or DEFAULT_TRIALS)
    elif kind is Asha:
        schedule = Asha(rungs, automl.reduction_factor, automl.max_trials or DEFAULT_TRIALS, goal.ranks)
        schedule = replace(schedule, most=schedule.expected().most)
    elif kind is Population:
        schedule = Population(generations(automl.min_epochs, whole), automl.max_trials or SIZE, goal.worth)
    else:
        schedule = Hyperband(rungs, automl.reduction_factor, goal.ranks, automl.max_trials)
        if automl.algorithm == "hyperband_es":
            schedule = replace(schedule, hopeless=Hopeless(whole, automl.early_stop_threshold, goal.worth))
    if automl.finalists:
        schedule = Confirmed(schedule, goal.ranks, automl.finalists, automl.fresh_seeds)
    sampler = sampler_of(automl)
    share = chance if sampler in LEARNING else 0.0
    return Brain(goal, schedule, Proposer(space, sampler, automl.seed, goal, share, automl.llm, advisor))


def sampler_of(automl: AutomlSpec) -> str:
    """Who proposes the trials."""
    return ALGORITHMS[automl.algorithm][1] if automl.sampler == "auto" else automl.sampler


def _fitting(automl: AutomlSpec, goal: Goal) -> None:
    """Raises UserErrors where settings exclude each other."""
    wrong = []
    if goal.parts and automl.algorithm in ("pbt", "hyperband_es"):
        what = f"{automl.algorithm} follows the curve of one score, but there are several objectives"
        wrong.append(SpecError(what, where="automl.algorithm", hint="take asha, or automl.metric alone"))
    if goal.pareto and automl.finalists:
        what = "a Pareto front has no single best to train again"
        wrong.append(SpecError(what, where="automl.finalists", hint="automl.combine=weighted has"))
    if wrong:
        raise UserErrors(wrong)


def _sound(trials: Sequence[Trial]) -> list[Trial]:
    """Trials of the search itself that are worth something."""
    return [t for t in trials if not t.broken and not t.again]
