"""Trials and how good each is -> the values of the next one by a sampler of Optuna: TPE, GP, CMA-ES or NSGA-II.

The ledger is the truth: samplers are given what it holds each time, and nothing of theirs is kept. Optuna's own stores
copy every trial that they are given, and its TPE translates every value of every trial for each proposal. Both would
take most of the time of a proposal, so that here trials are lent, and are translated once.
"""

from __future__ import annotations

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
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from typing_extensions import override

from oneformer.automl.dimension import Dimension
from oneformer.automl.trial import Trial

CONSTRAINT = "computable"
Row = list[float]


class _Lent(InMemoryStorage):
    """A store that holds trials without copying them; they come before those that it makes itself."""

    def __init__(self, trials: list[FrozenTrial]) -> None:
        super().__init__()
        self._lent = trials

    @override
    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        own = super().get_all_trials(study_id, deepcopy=False, states=states)
        return [t for t in self._lent if states is None or t.state in states] + own


class _Known(BaseSampler):
    """A sampler over a space that is known, and need not be looked for in all trials."""

    def __init__(self, space: dict[str, BaseDistribution], **more: Any) -> None:
        super().__init__(**more)
        self._known = space

    @override
    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        return self._known


class _Tpe(_Known, TPESampler):
    """TPE over translated trials: number of each -> its values as Optuna computes with them, in the order of `keys`."""

    def __init__(
        self, space: dict[str, BaseDistribution], keys: Sequence[str], rows: dict[int, Row], **more: Any
    ) -> None:
        super().__init__(space, **more)
        self._keys, self._rows = keys, rows

    @override
    def _get_internal_repr(self, trials: Any, search_space: Any, study: Any) -> dict[str, NDArray[Any]]:
        # Should Optuna call this no longer, proposals take longer and are the same (tests/automl/test_models.py).
        rows = np.array([self._rows[t.number] for t in trials], dtype=np.float64).reshape(len(trials), len(self._keys))
        columns = dict(zip(self._keys, rows.T.copy(), strict=True))  # (trials,) each
        choice = CategoricalDistribution
        return {
            k: columns[k].astype(np.int64) if isinstance(d, choice) else columns[k] for k, d in search_space.items()
        }


class _Gp(_Known, GPSampler):
    """A Gaussian process."""


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
    _rows: dict[int, tuple[dict[str, Any], Row]] = field(default_factory=dict)

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
        with quiet():
            more: dict[str, Any] = {"seed": seed, "n_startup_trials": self.startup}
            chosen: BaseSampler
            if sampler == "gp":
                chosen, told = _Gp(free, **more), self._told(trials, values)
            else:
                chosen = _Tpe(free, list(self.space), self._translated(trials), multivariate=True, **more)
                # It looks at broken constraints alone, and finds them slowly where they are kept.
                told = self._told(trials, values, kept=False)
            study = optuna.create_study(storage=_Lent(told), direction="maximize", sampler=chosen)
            return self.point(study.ask(space), dimensions)

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
            return self.point(study.ask(self.space), self.dimensions)

    def importance(self, trials: Sequence[Trial], values: Mapping[int, float]) -> dict[str, float]:
        """How much each key matters to the values, as shares of 1 (PED-ANOVA)."""
        with quiet():
            study = optuna.create_study(direction="maximize")
            study.add_trials([t for t in self._told(trials, values) if t.state == TrialState.COMPLETE])
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))

    def told(self, trial: Trial, value: float | None, *, kept: bool = True) -> FrozenTrial:
        """A trial as Optuna knows it; `kept`: it says so, too, where the constraint is kept."""
        common: dict[str, Any] = {"params": self._params(trial), "distributions": self.space}
        if value is None:
            made = create_trial(state=TrialState.RUNNING, **common)
        else:
            broken = trial.state == "infeasible"
            made = create_trial(
                value=value, constraints={CONSTRAINT: float(broken)} if kept or broken else None, **common
            )
        made.number = trial.id + 1  # 0 is the number of the trial that is asked for
        return made

    def _told(self, trials: Sequence[Trial], values: Mapping[int, float], *, kept: bool = True) -> list[FrozenTrial]:
        found = []
        for trial in trials:
            key = (values.get(trial.id), trial.state == "infeasible", kept, trial.values)
            known = self._known.get(trial.id)
            if known is None or known[0] != key:
                known = self._known[trial.id] = (key, self.told(trial, key[0], kept=kept))
            found.append(known[1])
        return found

    def _translated(self, trials: Sequence[Trial]) -> dict[int, Row]:
        """Number of each trial, as Optuna knows it -> its values as TPE computes with them, in the order of `space`."""
        found = {}
        for trial in trials:
            known = self._rows.get(trial.id)
            if known is None or (known[0] is not trial.values and known[0] != trial.values):
                params = self._params(trial)
                row = [float(d.to_internal_repr(params[key])) for key, d in self.space.items()]
                known = self._rows[trial.id] = (trial.values, row)
            found[trial.id + 1] = known[1]
        return found

    def _params(self, trial: Trial) -> dict[str, Any]:
        return {
            d.key: d.slot_of(v) if d.kind == "choice" else v for d in self.dimensions for v in [trial.values[d.key]]
        }

    def point(self, asked: optuna.Trial, dimensions: Sequence[Dimension]) -> dict[str, Any]:
        """The values that a trial of Optuna has been given."""
        drawn = ((d, asked.params[d.key]) for d in dimensions)
        return {d.key: d.choices[d.slots()[v]] if d.kind == "choice" else d.realised(v) for d, v in drawn}


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
