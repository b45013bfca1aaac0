"""Trials and what they have reached -> the values of the next one: the spec's own, spread, random, or learned.

A proposal follows from the seed, the number of the trial and the trials before it, so that a search that was killed
proposes what an unbroken one would have. Models are Optuna's, built anew from the ledger each time.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from oneformer.automl.dimension import Dimension
from oneformer.automl.schedule import Worth
from oneformer.automl.space import Space
from oneformer.automl.trial import Trial
from oneformer.errors import MissingExtra

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

LEARNING = ("tpe", "gp")
TRIES = 20  # to find a point that was not there before


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
        sampler: `random`, `qmc` (evenly spread points), `tpe` or `gp` (which learn).
        seed: of all draws.
        worth: of a score; more is better.
        random_share: of the trials that a learning sampler leaves to chance.
    """

    space: Space
    sampler: str
    seed: int
    worth: Worth
    random_share: float = 0.0

    @property
    def startup(self) -> int:
        """Trials with a score that a model needs; until then points are spread evenly."""
        return 2 + len(self.space.dimensions) // 2

    def need(self) -> None:
        """Raises MissingExtra when the sampler learns and Optuna is not installed: before anything is trained."""
        if self.sampler in LEARNING and not find_spec("optuna"):
            raise MissingExtra("optuna", extra="automl", needed_for=f"automl.sampler {self.sampler}")

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

    def _drawn(self, trials: Sequence[Trial], rng: np.random.Generator) -> tuple[str, dict[str, Any]]:
        if self.sampler == "random" or rng.random() < self.random_share:
            return "random", self.space.draw(rng.random)
        scored = sum(bool(t.rungs) and not t.broken for t in trials)
        if self.sampler == "qmc" or scored < self.startup:
            places = iter(self._spread(len(trials)))
            return "qmc", self.space.draw(lambda: next(places))
        return self.sampler, self._learned(trials, int(rng.integers(2**31)))

    def _spread(self, number: int) -> list[float]:
        from scipy.stats.qmc import Sobol

        with warnings.catch_warnings():  # of balance, which needs a power of two
            warnings.simplefilter("ignore", UserWarning)
            points = Sobol(len(self.space.dimensions), scramble=True, seed=np.random.default_rng(self.seed))
            return [min(float(p), 1 - 1e-12) for p in points.random(number)[-1]]

    def _learned(self, trials: Sequence[Trial], seed: int) -> dict[str, Any]:
        self.need()
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = optuna.create_study(direction="maximize", sampler=self._model(seed))
            study.add_trials(self._told(trials))
            asked = study.ask({d.key: distribution(d) for d in self.space.dimensions}).params
        return {d.key: _value(d, asked[d.key]) for d in self.space.dimensions}

    def importance(self, trials: Sequence[Trial]) -> dict[str, float]:
        """How much each key matters, as shares of 1 (PED-ANOVA); {} with too few scores, or without Optuna."""
        if sum(bool(t.rungs) and not t.broken for t in trials) < max(8, 2 * len(self.space.dimensions)):
            return {}
        if not find_spec("optuna"):
            return {}
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = optuna.create_study(direction="maximize")
            study.add_trials([t for t in self._told(trials) if t.state == optuna.trial.TrialState.COMPLETE])
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))

    def _model(self, seed: int) -> BaseSampler:
        from optuna.samplers import GPSampler, TPESampler

        if self.sampler == "gp":
            return GPSampler(seed=seed, n_startup_trials=self.startup)
        return TPESampler(seed=seed, n_startup_trials=self.startup, multivariate=True)

    def _told(self, trials: Sequence[Trial]) -> list[FrozenTrial]:
        """The trials as Optuna knows them: those that got farther are better, then the better score decides.

        Scores of unequal lengths of training cannot be compared, but their order can, and it is what a sampler needs.
        Broken trials are the worst of all, and what cannot be computed at all breaks a constraint besides.
        """
        from optuna.trial import TrialState, create_trial

        distributions = {d.key: distribution(d) for d in self.space.dimensions}
        told = []
        values = self._values(trials)
        for trial in trials:
            params = {d.key: _asked(d, trial.values[d.key]) for d in self.space.dimensions}
            common: dict[str, Any] = {"params": params, "distributions": distributions}
            if trial.id in values:
                constraint = {"computable": float(trial.state == "infeasible")}
                told.append(create_trial(value=values[trial.id], constraints=constraint, **common))
            else:
                told.append(create_trial(state=TrialState.RUNNING, **common))
        return told

    def _values(self, trials: Sequence[Trial]) -> dict[int, float]:
        scored = [t for t in trials if t.rungs and not t.broken]
        lengths = {t.epochs for t in scored}
        if len(lengths) == 1:
            found = {t.id: self.worth(t.rungs[t.epochs].score) for t in scored}
        else:
            ordered = sorted(scored, key=lambda t: (t.epochs, self.worth(t.rungs[t.epochs].score), -t.id))
            found = {t.id: float(place) for place, t in enumerate(ordered)}
        worst = min(found.values(), default=0.0)
        return found | {t.id: worst for t in trials if t.broken}


def distribution(dimension: Dimension) -> BaseDistribution:
    """How Optuna draws a key."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.kind == "choice":
        return CategoricalDistribution(list(range(len(dimension.slots()))))
    if dimension.kind == "int":
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _asked(dimension: Dimension, value: Any) -> Any:
    return dimension.slot_of(value) if dimension.kind == "choice" else value


def _value(dimension: Dimension, asked: Any) -> Any:
    return dimension.choices[dimension.slots()[asked]] if dimension.kind == "choice" else dimension.realised(asked)
