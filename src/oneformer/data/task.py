"""Task probabilities and the objects of a photo -> the task of a training sample and the texts that describe it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from oneformer.errors import SpecError

if TYPE_CHECKING:
    from oneformer.spec.model import TaskTogglingSpec

TASKS = ("semantic", "instance", "panoptic")
# What the text list is filled up with (oneformer-model.md 1.3).
FILLERS = {"semantic": "a semantic photo", "instance": "an instance photo", "panoptic": "a panoptic photo"}


def allowed_tasks(toggling: TaskTogglingSpec) -> tuple[str, ...]:
    """The tasks that are switched on, in the order of TASKS."""
    return tuple(task for task in TASKS if getattr(toggling, f"{task}_on"))


def task_probabilities(
    probabilities: Mapping[str, float], allowed: Sequence[str] = TASKS, *, key: str = "dataset.task_prob_train"
) -> dict[str, float]:
    """Probabilities of the allowed tasks, scaled to sum 1. Raises SpecError when none is left or one is no probability.

    A task that is not listed has probability 0. The numbers are probabilities, not cumulative thresholds
    (oneformer-model.md 1.13 tells how the two were confused).
    """
    unknown = sorted(set(probabilities) - set(TASKS))
    if unknown:
        raise SpecError(f"unknown task {unknown[0]!r}", where=key, hint=f"tasks are {', '.join(TASKS)}")
    kept = {task: float(probabilities.get(task, 0.0)) for task in TASKS if task in allowed}
    total = sum(kept.values())
    if any(not 0 <= p < float("inf") for p in kept.values()) or total <= 0:
        hint = (
            f"give at least one of {', '.join(allowed) or 'the tasks'} a probability above 0 (see model.task_toggling)"
        )
        raise SpecError(f"no task can be drawn from {dict(probabilities)}", where=key, hint=hint)
    return {task: p / total for task, p in kept.items()}


def probabilities_by_labels(
    probabilities: Mapping[str, float], allowed: Sequence[str], labelled: Iterable[tuple[str, ...]]
) -> dict[tuple[str, ...], dict[str, float]]:
    """For photos with labels for some tasks each: those tasks -> the probabilities of the ones that may be drawn.

    Raises SpecError when a photo's tasks are all switched off or improbable.
    """
    found = {}
    for tasks in labelled:
        drawn = [task for task in allowed if task in tasks]
        if not any(probabilities.get(task, 0.0) > 0 for task in drawn) and len(tasks) < len(TASKS):
            raise SpecError(
                f"the data has labels for the {' and '.join(tasks)} task only, which is never drawn",
                where="dataset.task_prob_train",
                hint=f"give {tasks[0]} a probability above 0 and switch model.task_toggling.{tasks[0]}_on on",
            )
        found[tasks] = task_probabilities(probabilities, drawn)
    return found


def draw_task(probabilities: Mapping[str, float], rng: np.random.Generator) -> str:
    """One task, drawn with probabilities that sum to 1."""
    tasks = list(probabilities)
    return tasks[int(rng.choice(len(tasks), p=[probabilities[task] for task in tasks]))]


def object_text(class_name: str) -> str:
    """The text of one object (oneformer-model.md 1.3)."""
    return f"a photo with a {class_name}"


def texts_for(task: str, class_ids: Sequence[int], class_names: Sequence[str], *, num_texts: int) -> list[str]:
    """Exactly `num_texts` texts: one for each object in the order of class ids, then the task's filler.

    `class_ids` holds one entry per object of the task's target. Objects beyond `num_texts` get no text.
    """
    texts = [object_text(class_names[class_id]) for class_id in sorted(class_ids)][:num_texts]
    return texts + [FILLERS[task]] * (num_texts - len(texts))


def all_texts(class_names: Sequence[str]) -> list[str]:
    """Every text that `texts_for` can give, to be encoded ahead."""
    return [*(object_text(name) for name in class_names), *FILLERS.values()]
