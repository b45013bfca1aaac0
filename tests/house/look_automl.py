"""A spec -> what a search would make of it."""

from __future__ import annotations

from typing import Any

from house.world import World
from oneformer.automl.brain import Goal, brain_of
from oneformer.automl.space import space_of
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
