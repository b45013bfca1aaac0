"""The record of a search -> a journal that Optuna and optuna-dashboard open; the ledger stays the truth.

Trials have their numbers, and Optuna's states: one that has reached the end is complete, one that waits at a rung is
pruned there, one that failed or cannot be computed has failed, with the reason among its attributes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study as OptunaStudy
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from oneformer.automl.brain import Brain
from oneformer.automl.dimension import Dimension
from oneformer.automl.ledger import Ledger
from oneformer.automl.models import distribution, quiet
from oneformer.automl.study import Study
from oneformer.automl.trial import Trial
from oneformer.runs.atomic import plain

NAME = "oneformer"
STATES = {
    "waiting": TrialState.WAITING,
    "running": TrialState.RUNNING,
    "paused": TrialState.PRUNED,
    "done": TrialState.COMPLETE,
    "failed": TrialState.FAIL,
    "infeasible": TrialState.FAIL,
}
Times = Mapping[int, tuple[datetime, datetime]]
"""Number of a trial -> when it first began and when it was last heard of, in local time as Optuna keeps it."""


def mirror(study: Study, brain: Brain, ledger: Ledger, target: Path) -> Path:
    """Write all trials into a file, whole or not at all; an older one is replaced. Returns its path."""
    part = target.with_suffix(".part")
    part.unlink(missing_ok=True)
    trials = list(ledger.trials.values())
    space = brain.proposer.hull(trials)
    spread = {d.key: _spread(d) for d in space.dimensions}
    times = _times(ledger)
    try:
        with quiet():  # the names of objectives are still called experimental
            made = _empty(part, brain)
            made.set_user_attr("algorithm", study.spec.automl.algorithm)
            made.add_trials([_told(trial, brain, spread, times) for trial in trials])
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _empty(path: Path, brain: Brain) -> OptunaStudy:
    """A study without trials in a journal: an SQLite file of Optuna's takes thirty times as long to fill."""
    goal = brain.goal
    ways = [p.maximise for p in goal.parts] if goal.pareto else [goal.more]
    names = [p.metric for p in goal.parts] if goal.pareto else [goal.name]
    directions = [StudyDirection.MAXIMIZE if more else StudyDirection.MINIMIZE for more in ways]
    storage = JournalStorage(JournalFileBackend(str(path)))
    made = optuna.create_study(storage=storage, study_name=NAME, directions=directions)
    made.set_metric_names(names)
    return made


def _times(ledger: Ledger) -> Times:
    found: dict[int, tuple[datetime, datetime]] = {}
    for at, _, number, _ in ledger.events():
        if number is not None:
            now = datetime.fromtimestamp(at)  # Optuna's columns have no zone
            found[number] = found.get(number, (now, now))[0], now
    return found


def _spread(d: Dimension) -> BaseDistribution:
    """How Optuna draws a key, choices by their own values."""
    return CategoricalDistribution([_word(c) for c in d.choices]) if d.kind == "choice" else distribution(d)


def _word(choice: Any) -> Any:
    """A choice as Optuna keeps it: lists and tables as text."""
    return choice if isinstance(choice, str | int | float | None) else json.dumps(plain(choice))


def _told(trial: Trial, brain: Brain, spread: Mapping[str, BaseDistribution], times: Times) -> FrozenTrial:
    """A trial with its values, what it had reached on the way, and what else is known of it."""
    goal, state = brain.goal, STATES[trial.state]
    values: list[float] | None = None
    if trial.rungs and state in (TrialState.COMPLETE, TrialState.PRUNED):
        rung = trial.rungs[trial.epochs]
        values = [rung.metrics[p.metric] for p in goal.parts] if goal.pareto else [rung.score]
    curve = {epoch: rung.score for epoch, rung in trial.rungs.items()} if goal.parts else dict(trial.curve)
    made = create_trial(
        state=state,
        values=values,
        params={d: _word(trial.values[d]) for d in spread},
        distributions=dict(spread),
        intermediate_values=curve,
        user_attrs=_attributes(trial),
    )
    begun, last = times[trial.id]
    made.datetime_start = None if state == TrialState.WAITING else begun
    made.datetime_complete = last if state.is_finished() else None
    return made


def _attributes(trial: Trial) -> dict[str, Any]:
    """What Optuna has no column for."""
    told: dict[str, Any] = {"from": trial.source, "state": trial.state, "epochs": trial.epochs, **trial.note}
    if trial.reason:
        told["reason"] = trial.reason
    if trial.origin:
        told["comes from trial"] = trial.origin.trial
    if trial.rungs:
        told |= trial.rungs[trial.epochs].metrics
    return {key: plain(value) for key, value in told.items()}
