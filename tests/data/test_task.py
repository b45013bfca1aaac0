"""Task draw and texts."""

from __future__ import annotations

import numpy as np
import pytest

from oneformer.data.task import TASKS, all_texts, allowed_tasks, draw_task, task_probabilities, texts_for
from oneformer.errors import SpecError
from oneformer.segments import types
from oneformer.spec.model import TaskTogglingSpec

NAMES = ("person", "sky", "dog")


def test_tasks_are_the_same_in_both_rooms() -> None:
    assert TASKS == types.TASKS


def test_tasks_are_drawn_with_the_probabilities_themselves() -> None:
    probabilities = task_probabilities({"semantic": 0.33, "instance": 0.66, "panoptic": 0.01})
    rng = np.random.default_rng(0)
    draws = [draw_task(probabilities, rng) for _ in range(20_000)]
    shares = {task: draws.count(task) / len(draws) for task in TASKS}
    assert shares == pytest.approx({"semantic": 0.33, "instance": 0.66, "panoptic": 0.01}, abs=0.012)


def test_tasks_that_are_off_are_never_drawn() -> None:
    allowed = allowed_tasks(TaskTogglingSpec(semantic_on=True, instance_on=False, panoptic_on=True))
    probabilities = task_probabilities({"semantic": 0.2, "instance": 0.6, "panoptic": 0.2}, allowed)
    assert probabilities == {"semantic": 0.5, "panoptic": 0.5}


def test_a_task_that_is_not_listed_has_probability_0() -> None:
    assert task_probabilities({"panoptic": 3})["panoptic"] == 1.0


@pytest.mark.parametrize("given", [{}, {"semantic": 0.0}, {"semantic": -1.0, "panoptic": 2.0}, {"depth": 1.0}])
def test_probabilities_that_make_no_sense_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(SpecError, match=r"dataset\.task_prob_train"):
        task_probabilities(given)


def test_texts_follow_the_order_of_classes_and_are_filled_up() -> None:
    assert texts_for("panoptic", [2, 0, 2], NAMES, num_texts=5) == [
        "a photo with a person",
        "a photo with a dog",
        "a photo with a dog",
        "a panoptic photo",
        "a panoptic photo",
    ]
    assert texts_for("instance", [], NAMES, num_texts=2) == ["an instance photo"] * 2
    assert texts_for("semantic", [1], NAMES, num_texts=2)[1] == "a semantic photo"


def test_more_objects_than_texts_are_cut() -> None:
    assert texts_for("instance", [0] * 9, NAMES, num_texts=4) == ["a photo with a person"] * 4


def test_every_text_that_can_occur_is_listed() -> None:
    possible = {t for task in TASKS for t in texts_for(task, [0, 1, 2], NAMES, num_texts=6)}
    assert possible == set(all_texts(NAMES))
