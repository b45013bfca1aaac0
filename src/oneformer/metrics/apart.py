"""Outputs and truths of several data sets -> the scores of each and those of all of their images together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from oneformer.data.loader import share
from oneformer.metrics.evaluator import Evaluator, State
from oneformer.metrics.scores import Scores
from oneformer.segments.types import TASKS, Outputs

if TYPE_CHECKING:
    from oneformer.data.batch import Batch
    from oneformer.data.labels import LabelMap
    from oneformer.spec.model import TestSpec


class ApartEvaluator:
    """An `Evaluator` for each data set, told apart by the order in which images come.

    Each image is post-processed once; the scores of all are those of the sums of what was counted, so they are what
    one evaluator would have found, to the last bit.

    Args:
        labels: names and thing flags of the classes.
        tasks: which of `TASKS` to score.
        test: thresholds of post-processing (`model.test`).
        sets: the data set of each image of all ranks, in file order; one name, or none, makes one evaluator.
    """

    def __init__(
        self, labels: LabelMap, *, tasks: Sequence[str] = TASKS, test: TestSpec, sets: Sequence[str] = ()
    ) -> None:
        self._make = lambda: Evaluator(labels, tasks=tasks, test=test)
        self._sets = list(sets)
        self._each = {name: self._make() for name in dict.fromkeys(sets or [""])}
        self._mine: list[str] = self._sets
        self._place: dict[str, int] = {}

    def start(self, rank: int = 0, world_size: int = 1, *, batch_size: int = 1) -> None:
        """Forget everything counted; what comes now are the images of a rank, see `data.loader.share`."""
        self._mine = share(self._sets, batch_size=batch_size, rank=rank, world_size=world_size)
        self._place = {}
        for evaluator in self._each.values():
            evaluator.reset()

    def update(self, task: str, outputs: Outputs, batch: Batch) -> None:
        """Count the next images of this rank, see `Evaluator.update`."""
        if len(self._each) == 1:
            next(iter(self._each.values())).update(task, outputs, batch)
            return
        start = self._place.get(task, 0)
        self._place[task] = start + len(batch)
        names = self._mine[start : start + len(batch)]
        assert len(names) == len(batch), "more images than were told of"
        for name in dict.fromkeys(names):
            places = [place for place, own in enumerate(names) if own == name]
            self._each[name].update(task, outputs, batch, only=places)

    def state(self) -> State:
        """What was counted so far, to be merged elsewhere."""
        return {name: evaluator.state() for name, evaluator in self._each.items()}

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Replaces what was counted here by the sum of `states`: those of all ranks, this one's own among them."""
        for name, evaluator in self._each.items():
            evaluator.merge([state[name] for state in states])

    def compute(self) -> Scores:
        """The scores of all images, and of each data set where there are several."""
        if len(self._each) == 1:
            return next(iter(self._each.values())).compute()
        whole = self._make()
        states = {name: evaluator.state() for name, evaluator in self._each.items()}
        for name, state in states.items():  # two data sets may have photos of one name and id
            state["images"] = {f"{name}/{key}": value for key, value in state["images"].items()}
        whole.merge(list(states.values()))
        return replace(whole.compute(), apart={name: own.compute() for name, own in self._each.items()})
