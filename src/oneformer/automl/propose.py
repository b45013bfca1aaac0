"""Trials and what they have reached -> the values of the next one: the spec's own, spread, random, or learned.

A proposal follows from the seed, the number of the trial and the trials before it, so that a search that was killed
proposes what an unbroken one would have. Models are Optuna's, built anew from the ledger each time.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from oneformer.automl import evolve
from oneformer.automl.objective import Goal
from oneformer.automl.space import Space
from oneformer.automl.trial import Trial
from oneformer.errors import MissingExtra, SpecError

if TYPE_CHECKING:
    from oneformer.automl.models import Models

LEARNING = ("tpe", "gp", "cmaes", "nsga2", "de")
OPTUNA = ("tpe", "gp", "cmaes", "nsga2")
TRIES = 20  # to find a point that was not there before
POPULATION = 10  # of a generation of NSGA-II: a search has tens of trials, not the thousands that its paper has
FIRST = {"de": 3, "nsga2": POPULATION}  # trials with a score that these samplers cannot do without


@dataclass(frozen=True)
class Proposal:
    """The values of a new trial."""

    values: Mapping[str, Any]
    source: str


@dataclass(frozen=True)
class Proposer:
    """Says what to try next.

    Args:
        space: the searched keys.
        sampler: `random`, `qmc` (evenly spread points), or one of `LEARNING`.
        seed: of all draws.
        goal: what is searched for.
        random_share: of the trials that a learning sampler leaves to chance.
    """

    space: Space
    sampler: str
    seed: int
    goal: Goal
    random_share: float = 0.0

    @property
    def startup(self) -> int:
        """Trials with a score that a model needs; until then points are spread evenly."""
        return max(2 + len(self.space.dimensions) // 2, FIRST.get(self.sampler, 0))

    @cached_property
    def models(self) -> Models:
        """Optuna's samplers; raises MissingExtra without Optuna."""
        self.need()
        from oneformer.automl.models import Models

        return Models(self.space.dimensions, self.startup, POPULATION)

    def need(self) -> None:
        """What can be said before anything is trained.

        Raises:
            MissingExtra: the sampler is Optuna's, or needs one more package, and that is not installed.
            SpecError: the sampler cannot search this space.
        """
        needed_for = f"automl.sampler {self.sampler}"
        if self.sampler in OPTUNA and not find_spec("optuna"):
            raise MissingExtra("optuna", extra="automl", needed_for=needed_for)
        if self.sampler == "cmaes":
            if not find_spec("cmaes"):
                raise MissingExtra("cmaes", extra="automl", needed_for=needed_for)
            if sum(d.kind != "choice" and d.low < d.high for d in self.space.dimensions) < 2:
                hint = "search two numbers or more, or let automl.sampler be tpe"
                raise SpecError("CMA-ES needs two numbers to search", where="automl.sampler", hint=hint)

    def next(self, trials: Sequence[Trial]) -> Proposal:
        """The next trial; the first of all is the spec itself.

        Raises:
            MissingExtra: the sampler learns and Optuna is not installed.
        """
        number = len(trials)
        if number == 0:
            return Proposal(self.space.own(), "own")
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, number]))
        source, values = self._drawn(trials, rng)
        for _ in range(TRIES):
            if all(values != trial.values for trial in trials):
                break
            source, values = "random", self.space.draw(rng.random)
        return Proposal(values, source)

    def changed(self, parent: Trial, number: int) -> Proposal:
        """The values of a trial, changed a little for the one with another number."""
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, number]))
        return Proposal(evolve.changed(self.space, parent.values, rng), "pbt")

    def _drawn(self, trials: Sequence[Trial], rng: np.random.Generator) -> tuple[str, dict[str, Any]]:
        if self.sampler == "random" or rng.random() < self.random_share:
            return "random", self.space.draw(rng.random)
        scored = [t for t in trials if t.rungs and not t.broken]
        if self.sampler == "qmc" or len(scored) < self.startup:
            places = iter(self._spread(len(trials)))
            return "qmc", self.space.draw(lambda: next(places))
        values = standing(trials, self.goal)
        if self.sampler == "de":
            best = sorted(scored, key=lambda t: (-values[t.id], t.id))
            return "de", evolve.descendant(self.space, [t.values for t in best], rng)
        seed = int(rng.integers(2**31))
        if self.sampler in ("tpe", "gp"):
            return self.sampler, self.space.settled(self.models.learned(self.sampler, trials, values, seed=seed))
        several = self.goal.pareto and len({t.epochs for t in scored}) == 1 and self.sampler == "nsga2"
        vectors = self._vectors(trials) if several else {number: [value] for number, value in values.items()}
        return self.sampler, self.space.settled(self.models.evolved(self.sampler, trials, vectors, seed=seed))

    def _vectors(self, trials: Sequence[Trial]) -> dict[int, list[float]]:
        """All objectives of each trial that has ended; of a broken one the worst of each."""
        scored = [t for t in trials if t.rungs and not t.broken]
        found = self.goal.vectors([t.rungs[t.epochs] for t in scored])
        worst = found.min(axis=0).tolist()
        told = {t.id: row for t, row in zip(scored, found.tolist(), strict=True)}
        return told | {t.id: worst for t in trials if t.broken}

    @cached_property
    def _points(self) -> Any:
        from scipy.stats.qmc import Sobol

        return Sobol(len(self.space.dimensions), scramble=True, seed=np.random.default_rng(self.seed))

    def _spread(self, number: int) -> list[float]:
        """The last of `number` evenly spread points, 0..1."""
        with warnings.catch_warnings():  # of balance, which needs a power of two
            warnings.simplefilter("ignore", UserWarning)
            points = self._points.reset().random(number)
        return [min(float(p), 1 - 1e-12) for p in points[-1]]

    def importance(self, trials: Sequence[Trial]) -> dict[str, float]:
        """How much each key matters, as shares of 1 (PED-ANOVA); {} with too few scores, or without Optuna."""
        if sum(bool(t.rungs) and not t.broken for t in trials) < max(8, 2 * len(self.space.dimensions)):
            return {}
        if not find_spec("optuna"):
            return {}
        return self.models.importance(trials, standing(trials, self.goal))


def standing(trials: Sequence[Trial], goal: Goal) -> dict[int, float]:
    """Number of each trial that has a score or broke -> how good it is; more is better.

    Scores of unequal lengths of training cannot be compared, but their order can, and it is what a sampler needs: those
    that got farther are better, then the better score decides. Broken trials are as bad as the worst.
    """
    scored = [t for t in trials if t.rungs and not t.broken]
    groups: dict[int, list[Trial]] = {}
    for trial in scored:
        groups.setdefault(trial.epochs, []).append(trial)
    found: dict[int, float] = {}
    for epochs, group in groups.items():
        ranks = goal.ranks([t.rungs[epochs] for t in group])
        for trial, rank in zip(group, ranks, strict=True):
            # Between two lengths there is room for every score; the trial's value does not depend on the others.
            found[trial.id] = rank if len(groups) == 1 else epochs + rank / (2 * (1 + abs(rank)))
    worst = min(found.values(), default=0.0)
    return found | {t.id: worst for t in trials if t.broken}
