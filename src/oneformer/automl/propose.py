"""Trials and what they have reached -> the values of the next one: the spec's own, spread, random, learned or advised.

A proposal follows from the seed, the number of the trial and the trials before it, so that a search that was killed
proposes what an unbroken one would have. Models are Optuna's, built anew from the ledger each time. What a language
model says does not follow from anything: it is asked once for a trial, and the ledger keeps what it said.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from oneformer.automl import evolve
from oneformer.automl.advise import Advisor, Unadvised
from oneformer.automl.endpoint import WHERE, endpoint_of
from oneformer.automl.objective import Goal
from oneformer.automl.space import Space
from oneformer.automl.trial import Trial
from oneformer.errors import MissingExtra, SpecError, WorkError
from oneformer.spec.llm import LlmSpec

if TYPE_CHECKING:
    from oneformer.automl.models import Models

log = logging.getLogger(__name__)

LEARNING = ("tpe", "gp", "cmaes", "nsga2", "de")
OPTUNA = ("tpe", "gp", "cmaes", "nsga2")
ADVISED = ("llm", "hybrid", "autoresearch")  # a language model proposes all trials, or a share of them
TRIES = 20  # to find a point that was not there before
POPULATION = 10  # of a generation of NSGA-II: a search has tens of trials, not the thousands that its paper has
FIRST = {"de": 3, "nsga2": POPULATION}  # trials with a score that these samplers cannot do without


@dataclass(frozen=True)
class Proposal:
    """The values of a new trial."""

    values: Mapping[str, Any]
    source: str
    note: Mapping[str, Any] = field(default_factory=dict)
    """What came with the values (`Trial.note`)."""


@dataclass(frozen=True)
class Proposer:
    """Says what to try next.

    Args:
        space: the searched keys.
        sampler: `random`, `qmc` (evenly spread points), or one of `LEARNING` or `ADVISED`.
        seed: of all draws.
        goal: what is searched for.
        random_share: of the trials that a learning sampler leaves to chance.
        llm: how a language model takes part.
        advisor: the language model; None where nothing is proposed, only told.
    """

    space: Space
    sampler: str
    seed: int
    goal: Goal
    random_share: float = 0.0
    llm: LlmSpec = field(default_factory=LlmSpec)
    advisor: Advisor | None = None
    _hulls: dict[Any, Models] = field(default_factory=dict, compare=False, repr=False)

    def turn(self, number: int) -> str:
        """Who proposes a trial: the sampler, or in a mixture the language model or TPE, by the trial's number."""
        if self.sampler not in ADVISED:
            return self.sampler
        if self.sampler == "llm":
            return "llm"
        share = self.llm.share
        return "llm" if math.floor(round(number * share, 9)) > math.floor(round((number - 1) * share, 9)) else "tpe"

    def space_now(self, trials: Sequence[Trial]) -> Space:
        """The space with the ranges that the language model has set last."""
        changed: dict[str, Sequence[float]] = {}
        for trial in trials:
            changed |= trial.note.get("ranges", {})
        return self.space.within(changed)

    def hull(self, trials: Sequence[Trial]) -> Space:
        """The space with every range that trials were drawn from."""
        return self.space.around([t.note["ranges"] for t in trials if "ranges" in t.note])

    @property
    def startup(self) -> int:
        """Trials with a score that a model needs; until then points are spread evenly."""
        return max(2 + len(self.space.dimensions) // 2, FIRST.get(self.sampler, 0))

    def models(self, trials: Sequence[Trial]) -> Models:
        """Optuna's samplers over every range that trials were drawn from; raises MissingExtra without Optuna."""
        self.need()
        from oneformer.automl.models import Models

        key = self.hull(trials).dimensions
        if key not in self._hulls:
            self._hulls[key] = Models(key, self.startup, POPULATION)
        return self._hulls[key]

    def need(self) -> None:
        """What can be said before anything is trained.

        Raises:
            MissingExtra: the sampler is Optuna's, or needs one more package, and that is not installed.
            SpecError: the sampler cannot search this space.
            UserErrors: a language model is asked, and the settings name none.
        """
        needed_for = f"automl.sampler {self.sampler}"
        if self.sampler in ADVISED:
            endpoint_of(self.llm, needed_for=self.sampler)
        learning = self.sampler in OPTUNA or (self.sampler in ADVISED and "tpe" in (self.llm.fallback, self.turn(1)))
        if learning and not find_spec("optuna"):
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
        name, note = self.turn(number), dict[str, Any]()
        if name == "llm":
            try:
                return self._advised(trials)
            except Unadvised as error:
                name, note = self._instead(error), {"instead_of": "llm", "why": str(error)}
        source, values = self._drawn(name, trials, rng)
        for _ in range(TRIES):
            if values not in [trial.values for trial in trials]:
                break
            source, values = "random", self.space_now(trials).draw(rng.random)
        return Proposal(values, source, note)

    def _advised(self, trials: Sequence[Trial]) -> Proposal:
        """What the language model proposes. Raises Unadvised."""
        assert self.advisor, "whoever asks for trials brings the advisor"
        ranges = self.sampler == "autoresearch"
        found = self.advisor.next(self.space_now(trials), self.goal, trials, ranges=ranges)
        note = {"why": found.why, "model": self.advisor.endpoint.model}
        return Proposal(found.values, "llm", note | ({"ranges": found.ranges} if found.ranges else {}))

    def _instead(self, error: Unadvised) -> str:
        """The sampler that takes the place of the language model; raises WorkError where none does."""
        if self.llm.fallback == "stop":
            hint = "the same command goes on from here; automl.llm.fallback=tpe lets TPE propose in its place"
            raise WorkError(f"the language model proposes nothing: {error}", where=WHERE, hint=hint) from None
        log.warning("the language model proposes nothing, %s takes its place: %s", self.llm.fallback, error)
        return self.llm.fallback

    def greet(self) -> None:
        """Hear whether the language model answers at all, before anything is trained.

        Raises:
            WorkError: it does not, and nobody may take its place.
        """
        if self.advisor:
            try:
                self.advisor.greet()
            except Unadvised as error:
                self._instead(error)

    def changed(self, parent: Trial, number: int) -> Proposal:
        """The values of a trial, changed a little for the one with another number."""
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, number]))
        return Proposal(evolve.changed(self.space, parent.values, rng), "pbt")

    def _drawn(self, name: str, trials: Sequence[Trial], rng: np.random.Generator) -> tuple[str, dict[str, Any]]:
        space = self.space_now(trials)
        if name == "random" or rng.random() < self.random_share:
            return "random", space.draw(rng.random)
        scored = [t for t in trials if t.rungs and not t.broken]
        if name == "qmc" or len(scored) < self.startup:
            places = iter(self._spread(len(trials)))
            return "qmc", space.draw(lambda: next(places))
        values = standing(trials, self.goal)
        if name == "de":
            best = sorted(scored, key=lambda t: (-values[t.id], t.id))
            return "de", evolve.descendant(space, [t.values for t in best], rng)
        seed, models = int(rng.integers(2**31)), self.models(trials)
        if name in ("tpe", "gp"):
            return name, space.settled(models.learned(name, trials, values, seed=seed, within=space.dimensions))
        several = self.goal.pareto and len({t.epochs for t in scored}) == 1 and name == "nsga2"
        vectors = self._vectors(trials) if several else {number: [value] for number, value in values.items()}
        return name, space.settled(models.evolved(name, trials, vectors, seed=seed))

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
        return self.models(trials).importance(trials, standing(trials, self.goal))


def proposers(trials: Sequence[Trial]) -> dict[str, int]:
    """Who proposed how many trials; those in place of a language model that failed are counted apart."""
    found: dict[str, int] = {}
    for trial in trials:
        other = trial.note.get("instead_of")
        name = f"{trial.source} instead of {other}" if other else trial.source
        found[name] = found.get(name, 0) + 1
    return found


def standing(trials: Sequence[Trial], goal: Goal) -> dict[int, float]:
    """Number of each trial that has a score or broke -> how good it is; more is better.

    Scores of unequal lengths of training cannot be compared, but their order can, and it is what a sampler needs: those
    that got farther are better, then the better score decides. Broken trials are as bad as the worst.
    """
    groups: dict[int, list[Trial]] = {}
    broken: list[int] = []
    for trial in trials:
        if trial.broken:
            broken.append(trial.id)
        elif trial.rungs:
            groups.setdefault(max(trial.rungs), []).append(trial)
    found: dict[int, float] = {}
    for epochs, group in groups.items():
        ranks = goal.ranks([t.rungs[epochs] for t in group])
        for trial, rank in zip(group, ranks, strict=True):
            # Between two lengths there is room for every score; the trial's value does not depend on the others.
            found[trial.id] = rank if len(groups) == 1 else epochs + rank / (2 * (1 + abs(rank)))
    worst = min(found.values(), default=0.0)
    return found | dict.fromkeys(broken, worst)
