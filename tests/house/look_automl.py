"""A spec -> what a search would make of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from automl.pretended import Pretended
from house.world import World
from oneformer import cli
from oneformer.automl.brain import Goal, brain_of
from oneformer.automl.controller import Controller
from oneformer.automl.ledger import Ledger
from oneformer.automl.space import space_of
from oneformer.automl.study import folder_of, study_of
from oneformer.automl.trial import Rung, Trial
from oneformer.spec import ExperimentSpec


def searched(spec: ExperimentSpec, _: World) -> dict[str, Any]:
    """The searched keys with their ranges."""
    return space_of(spec).to_dict()


def planned(spec: ExperimentSpec, _: World) -> Any:
    """The size of the search, and its trials when the spec's own values are the best."""
    brain = brain_of(spec.automl, space_of(spec), goal=Goal("PQ", maximise=True), whole=9)
    trials: list[Trial] = []
    while (step := brain.schedule.next(trials)) and len(trials) < 12:
        if step.trial is None:
            proposal = brain.proposer.next(trials)
            trials.append(Trial(len(trials), dict(proposal.values), proposal.source, step.bracket))
        trial = step.trial or trials[-1]
        trial.rungs[step.epoch] = Rung(step.epoch, 10.0 - trial.id, 1.0, 1)
        trial.state = "paused" if step.epoch < 9 else "done"
    return brain.schedule.expected(), [(t.values, t.source, list(t.rungs)) for t in trials]


def folder(spec: ExperimentSpec, _: World) -> Any:
    """Where the search lies."""
    return folder_of(spec)


def command(spec: ExperimentSpec, _: World) -> str:
    """The command that `oneformer train` stands for."""
    return cli._by_policy(spec.automl_policy)


@contextmanager
def pretending() -> Iterator[None]:
    """While open, the trainings of `automl run` last no time, and the first breaks off once."""
    with mock.patch("oneformer.automl.executor.Local", lambda share: Pretended(faults={0: 1})):
        yield


def ran(spec: ExperimentSpec, world: World) -> Any:
    """A search whose trainings last no time: its trials, how many ran at once, and how often one was tried."""
    spec.results_dir, spec.train.num_epochs = str(world.fresh()), 3
    study = study_of(spec)
    study.folder.mkdir(parents=True)
    with Ledger(study.folder) as ledger:
        study.agree(ledger)
        executor = Pretended(faults={0: 1})
        Controller(study, ledger, executor).run()
        trials = [(t.values, t.state, t.retries, sorted(t.rungs)) for t in ledger.trials.values()]
    return trials, executor.most, executor.metrics
