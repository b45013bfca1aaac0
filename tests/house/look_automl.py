"""A spec -> what a search would make of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from automl.pretended import Pretended
from house.world import World
from oneformer import cli
from oneformer.automl.advise import advisor_of
from oneformer.automl.brain import brain_of
from oneformer.automl.controller import Controller
from oneformer.automl.endpoint import Silent
from oneformer.automl.ledger import Ledger
from oneformer.automl.objective import goal_of
from oneformer.automl.prompt import asked
from oneformer.automl.schedule import Hyperband, Step
from oneformer.automl.space import space_of
from oneformer.automl.study import folder_of, study_of
from oneformer.automl.trial import Rung, Trial
from oneformer.spec import ExperimentSpec


def searched(spec: ExperimentSpec, _: World) -> dict[str, Any]:
    """The searched keys with their ranges."""
    return space_of(spec).to_dict()


def planned(spec: ExperimentSpec, _: World) -> Any:
    """The size of the search, and its trials when the spec's own values are the best."""
    brain = brain_of(spec.automl, space_of(spec), goal=goal_of(spec.automl, "PQ"), whole=9)
    trials: list[Trial] = []
    while (step := brain.schedule.next(trials)) and len(trials) < 12:
        if step.trial is None:
            proposal = brain.proposal(trials, step)
            trials.append(Trial(len(trials), dict(proposal.values), proposal.source, step.bracket, step.origin))
        trial = step.trial or trials[-1]
        metrics = {"PQ": 10.0 - trial.id, "size_mib": float(trial.id)}
        trial.rungs[step.epoch] = Rung(step.epoch, metrics["PQ"], 1.0, 1, metrics)
        trial.state = "paused" if step.epoch < 9 else "done"
    return brain.goal.name, brain.schedule.expected(), [(t.values, t.source, list(t.rungs)) for t in trials]


def given_up(spec: ExperimentSpec, _: World) -> bool:
    """Whether a trial is given up that would end a little below the best."""
    brain = brain_of(spec.automl, space_of(spec), goal=goal_of(spec.automl, "PQ"), whole=9)
    assert isinstance(brain.schedule, Hyperband) and brain.schedule.hopeless
    best = Trial(0, {}, "own", state="done", rungs={9: Rung(9, 60.0, 1.0, 1)})
    other = Trial(1, {}, "random", state="paused", curve={e: 57.0 - 20.0 / e for e in (1, 2, 3)})
    return brain.schedule.hopeless(other, [best, other])


def advised(spec: ExperimentSpec, _: World) -> Any:
    """What a language model that never answers is asked, how often, and who proposes in its place."""
    waits: list[float] = []
    with mock.patch.dict(os.environ, {"OTHER_KEY": "word"}):
        advisor = advisor_of(
            spec.automl.llm, needed_for="llm", faults=lambda _: [], tell=lambda *_: None, wait=waits.append
        )
    brain = brain_of(spec.automl, space_of(spec), goal=goal_of(spec.automl, "PQ"), whole=9, advisor=advisor)
    request = advisor.endpoint.request(asked(brain.proposer.space, brain.goal, [], ranges=False, notes=advisor.notes))
    with mock.patch("oneformer.automl.endpoint.Endpoint.ask", side_effect=Silent("nobody is there")):
        trials: list[Trial] = []
        for number in range(6):
            proposal = brain.proposal(trials, Step(None, 1))
            trials.append(Trial(number, dict(proposal.values), proposal.source, note=dict(proposal.note)))
    told = request.full_url, request.headers, request.data, advisor.endpoint.timeout_s
    return told, waits, [(t.source, t.note) for t in trials]


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
    """A search whose trainings last no time: its trials, how many ran at once, and whose checkpoints made room."""
    spec.results_dir, spec.train.num_epochs = str(world.fresh()), 3
    study = study_of(spec)
    study.folder.mkdir(parents=True)
    with Ledger(study.folder) as ledger:
        study.agree(ledger)
        executor = Pretended(faults={0: 1})
        Controller(study, ledger, executor).run()
        trials = [(t.values, t.state, t.retries, sorted(t.rungs)) for t in ledger.trials.values()]
        dropped = [number for _, what, number, _ in ledger.events() if what == "checkpoint dropped"]
    return trials, executor.most, executor.metrics, dropped
