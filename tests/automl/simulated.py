"""A search without trainings: a function says what a trial scores, and time passes event by event."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from oneformer.automl.brain import Brain, brain_of
from oneformer.automl.dimension import Dimension
from oneformer.automl.objective import Goal, goal_of
from oneformer.automl.space import Space
from oneformer.automl.trial import Rung, Trial
from oneformer.spec import AutomlSpec

PLANE = Space(
    (
        Dimension("train.optim.lr", "float", 1e-3, 1e-5, 1e-1, log=True),
        Dimension("model.one_former.dropout", "float", 0.1, 0.0, 0.5),
        Dimension("model.one_former.dec_layers", "int", 6, 2, 10),
        Dimension("train.optim.lr_scheduler", "choice", "cosine", choices=("cosine", "Warmuppoly", "constant")),
    ),
    {},
)
Score = Callable[[dict[str, Any], int], float | str | dict[str, float]]
"""(values, epochs) -> the score, or all objectives, or the state in which the trial ends."""


def brain(algorithm: str, *, maximise: bool = True, whole: int = 27, space: Space = PLANE, **more: Any) -> Brain:
    automl = AutomlSpec(algorithm=algorithm, **more)
    goal = goal_of(automl) if automl.objectives else Goal("PQ" if maximise else "train_loss", maximise)
    return brain_of(automl, space, goal=goal, whole=whole)


@dataclass
class Search:
    """What a search did."""

    trials: list[Trial] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)
    """(trial, epoch) in the order of their starts."""
    busy: float = 0.0
    """Share of the workers' time in which they worked."""

    @property
    def epochs(self) -> int:
        return sum(t.spent for t in self.trials)


def run(
    mind: Brain,
    score: Score,
    *,
    workers: int = 1,
    seconds: Callable[[Trial, int], float] = lambda trial, epochs: float(epochs),
    stop: Callable[[Search], bool] = lambda done: False,
    curve: Callable[[dict[str, Any], int], float] | None = None,
) -> Search:
    """Until the schedule has nothing left; `curve` is the score after each epoch, where rungs alone are too few."""
    done, running, now, order = Search(), [], 0.0, 0
    worked = 0.0
    while True:
        while len(running) < workers and not stop(done) and (step := mind.schedule.next(done.trials)):
            trial = step.trial
            if trial is None:
                proposal = mind.proposal(done.trials, step)
                trial = Trial(len(done.trials), dict(proposal.values), proposal.source, step.bracket, step.origin)
                trial.note = dict(proposal.note)
                done.trials.append(trial)
            assert trial.state in ("waiting", "paused") and step.epoch > trial.epochs
            done.steps.append((trial.id, step.epoch))
            trial.state, trial.target = "running", step.epoch
            took = seconds(trial, step.epoch - trial.epochs)
            worked += took
            order += 1
            heapq.heappush(running, (now + took, order, trial))
        if not running:
            done.busy = worked / (now * workers) if now else 0.0
            return done
        now, _, trial = heapq.heappop(running)
        found = score(trial.values, trial.target)
        if isinstance(found, str):
            trial.state = found
        else:
            place = 1 + sum(len(t.rungs) for t in done.trials)
            metrics = found if isinstance(found, dict) else {mind.goal.metric: found}
            value = metrics[mind.goal.metric]
            trial.rungs[trial.target] = Rung(trial.target, mind.goal.score(value, metrics), 1.0, place, metrics)
            trial.curve |= {e: curve(trial.values, e) for e in range(1, trial.target)} if curve else {}
            trial.curve[trial.target] = value
            trial.state = "done" if trial.target == mind.schedule.rungs[-1] else "paused"
        trial.target = 0
