"""Trials and how good each is -> the values of the next one by a sampler of Optuna: TPE, GP, CMA-ES or NSGA-II.

The ledger is the truth: samplers are given what it holds each time, and nothing of theirs is kept. Optuna's own stores
copy every trial that they are given, and its TPE translates every value of every trial for each proposal. Both would
take most of the time of a proposal, so that here trials are lent, and for TPE are rows that are made once (`tpe.py`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from typing_extensions import override

from oneformer.automl import tpe
from oneformer.automl.dimension import Dimension
from oneformer.automl.tpe import Numbers
from oneformer.automl.trial import Trial

CONSTRAINT = "computable"


class _Lent(InMemoryStorage):
    """A store that holds trials without copying them; they come before those that it makes itself."""

    def __init__(self, trials: list[FrozenTrial]) -> None:
        super().__init__()
        self._lent = trials

    @override
    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        own = super().get_all_trials(study_id, deepcopy=False, states=states)
        return [t for t in self._lent if states is None or t.state in states] + own


class _Gp(GPSampler):
    """A Gaussian process over a space that is known, and need not be looked for in all trials."""

    def __init__(self, space: dict[str, BaseDistribution], **more: Any) -> None:
        super().__init__(**more)
        self._known = space

    @override
    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        return self._known


@contextmanager
def quiet() -> Iterator[None]:
    """While open, Optuna says nothing."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass
class Models:
    """Samplers over one space.

    Args:
        dimensions: the searched keys.
        startup: trials with a score that a model needs.
        population: of a generation of NSGA-II.
    """

    dimensions: Sequence[Dimension]
    startup: int
    population: int
    _known: dict[int, tuple[tuple[Any, ...], FrozenTrial]] = field(default_factory=dict)
    _translated: dict[int, tuple[dict[str, Any], list[float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.space = {d.key: distribution(d) for d in self.dimensions}

    def learned(
        self,
        sampler: str,
        trials: Sequence[Trial],
        values: Mapping[int, float],
        *,
        seed: int,
        within: Sequence[Dimension] = (),
    ) -> dict[str, Any]:
        """The next point by TPE (`tpe`) or a Gaussian process (`gp`); more of a value is better.

        Trials without a value are under way. What cannot be computed at all breaks a constraint besides. `within` are
        the ranges that the point is drawn from, where they are not those of all trials.
        """
        dimensions = within or self.dimensions
        space = {d.key: distribution(d) for d in dimensions}
        free = {key: d for key, d in sorted(space.items()) if not d.single()}
        if sampler == "tpe":
            return self.point(tpe.proposal(free, *self._rows(trials, values, list(free)), seed=seed), dimensions)
        with quiet():
            chosen = _Gp(free, seed=seed, n_startup_trials=self.startup)
            study = optuna.create_study(storage=_Lent(self._told(trials, values)), direction="maximize", sampler=chosen)
            return self.point(study.ask(space).params, dimensions)

    def evolved(
        self, sampler: str, trials: Sequence[Trial], values: Mapping[int, Sequence[float]], *, seed: int
    ) -> dict[str, Any]:
        """The next point by CMA-ES (`cmaes`) or NSGA-II (`nsga2`), whose generations are gone through again each time.

        More of each value is better.
        """
        parts = max((len(v) for v in values.values()), default=1)
        with quiet():
            chosen: BaseSampler
            if sampler == "cmaes":
                chosen = CmaEsSampler(seed=seed, warn_independent_sampling=False)
            else:
                chosen = NSGAIISampler(seed=seed, population_size=self.population)
            study = optuna.create_study(directions=["maximize"] * parts, sampler=chosen)
            for trial in trials:
                study.enqueue_trial(self._params(trial))
                asked = study.ask()
                asked.relative_params  # noqa: B018  # it makes the sampler put the trial into a generation
                for dimension in self.dimensions:
                    _suggest(asked, dimension)
                if trial.id in values:
                    asked.set_constraint(CONSTRAINT, float(trial.state == "infeasible"))
                    study.tell(asked, list(values[trial.id]))
            return self.point(study.ask(self.space).params, self.dimensions)

    def importance(self, trials: Sequence[Trial], values: Mapping[int, float]) -> dict[str, float]:
        """How much each key matters to the values, as shares of 1 (PED-ANOVA)."""
        with quiet():
            study = optuna.create_study(direction="maximize")
            study.add_trials([t for t in self._told(trials, values) if t.state == TrialState.COMPLETE])
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))

    def told(self, trial: Trial, value: float | None) -> FrozenTrial:
        """A trial as Optuna knows it."""
        common: dict[str, Any] = {"params": self._params(trial), "distributions": self.space}
        if value is None:
            made = create_trial(state=TrialState.RUNNING, **common)
        else:
            made = create_trial(value=value, constraints={CONSTRAINT: float(trial.state == "infeasible")}, **common)
        made.number = trial.id + 1  # 0 is the number of the trial that is asked for
        return made

    def _told(self, trials: Sequence[Trial], values: Mapping[int, float]) -> list[FrozenTrial]:
        found = []
        for trial in trials:
            key = (values.get(trial.id), trial.state == "infeasible", trial.values)
            known = self._known.get(trial.id)
            if known is None or known[0] != key:
                known = self._known[trial.id] = (key, self.told(trial, key[0]))
            found.append(known[1])
        return found

    def _rows(
        self, trials: Sequence[Trial], values: Mapping[int, float], keys: Sequence[str]
    ) -> tuple[Numbers, Numbers, NDArray[np.bool_]]:
        """What TPE computes with: values of the keys (trials, keys), how good each is, and which cannot be computed."""
        rows = []
        for trial in trials:
            known = self._translated.get(trial.id)
            if known is None or (known[0] is not trial.values and known[0] != trial.values):
                params = self._params(trial)
                row = [float(kind.to_internal_repr(params[key])) for key, kind in self.space.items()]
                known = self._translated[trial.id] = (trial.values, row)
            rows.append(known[1])
        places = [list(self.space).index(key) for key in keys]
        worth = [values.get(t.id, math.nan) for t in trials]
        return np.array(rows)[:, places], np.array(worth), np.array([t.state == "infeasible" for t in trials])

    def _params(self, trial: Trial) -> dict[str, Any]:
        return {
            d.key: d.slot_of(v) if d.kind == "choice" else v for d in self.dimensions for v in [trial.values[d.key]]
        }

    def point(self, drawn: Mapping[str, Any], dimensions: Sequence[Dimension]) -> dict[str, Any]:
        """The values that stand for Optuna's; a key that is not drawn has one value only."""
        found = {}
        for d in dimensions:
            if d.key not in drawn:
                found[d.key] = d.at(0.5)
            else:
                found[d.key] = d.choices[d.slots()[drawn[d.key]]] if d.kind == "choice" else d.realised(drawn[d.key])
        return found


def _suggest(asked: optuna.Trial, dimension: Dimension) -> None:
    if dimension.kind == "choice":
        asked.suggest_categorical(dimension.key, list(range(len(dimension.slots()))))
    elif dimension.kind == "int":
        asked.suggest_int(dimension.key, int(dimension.low), int(dimension.high), log=dimension.log)
    else:
        asked.suggest_float(dimension.key, dimension.low, dimension.high, log=dimension.log)


def distribution(dimension: Dimension) -> BaseDistribution:
    """How Optuna draws a key."""
    if dimension.kind == "choice":
        return CategoricalDistribution(list(range(len(dimension.slots()))))
    if dimension.kind == "int":
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
