"""The confusion matrix counts every scored pixel once, and its scores have defined values everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from oneformer.metrics.miou import IGNORED, ConfusionMatrix

NAMES = ("a", "b", "c")


def test_scores_of_a_small_image_by_hand() -> None:
    confusion = ConfusionMatrix(3)
    truth = np.array([[0, 0, 0, 0], [1, 1, IGNORED, IGNORED]])
    predicted = np.array([[0, 0, 0, 1], [1, 2, 0, 2]])
    image = confusion.update(predicted, truth)
    scores = confusion.compute(NAMES)
    assert scores["per_class"]["a"]["IoU"] == pytest.approx(100 * 3 / 4)
    assert scores["per_class"]["b"]["IoU"] == pytest.approx(100 * 1 / 3)
    assert scores["per_class"]["c"] == {"IoU": None, "Acc": None, "pixels": 0}
    assert scores["mIoU"] == pytest.approx(100 * (3 / 4 + 1 / 3) / 2) == image
    assert scores["fwIoU"] == pytest.approx(100 * (4 * 3 / 4 + 2 * 1 / 3) / 6)
    assert scores["mAcc"] == pytest.approx(100 * (3 / 4 + 1 / 2) / 2)
    assert scores["pAcc"] == pytest.approx(100 * 4 / 6)


def test_an_image_of_void_only_changes_nothing() -> None:
    confusion = ConfusionMatrix(3)
    assert confusion.update(np.zeros((4, 4), int), np.full((4, 4), IGNORED)) is None
    scores = confusion.compute(NAMES)
    assert [scores[key] for key in ("mIoU", "fwIoU", "mAcc", "pAcc")] == [None] * 4
    assert all(values["IoU"] is None for values in scores["per_class"].values())


def test_one_class_is_right_everywhere() -> None:
    confusion = ConfusionMatrix(1)
    assert confusion.update(np.zeros((4, 4), int), np.zeros((4, 4), int)) == 100.0
    assert confusion.compute(["only"])["mIoU"] == 100.0


def test_counts_do_not_overflow_32_bits() -> None:
    confusion = ConfusionMatrix(1)
    confusion.merge([np.array([[2**40]]), np.array([[1]])])
    assert confusion.compute(["only"])["per_class"]["only"]["pixels"] == 2**40 + 1


def test_a_class_outside_the_list_is_our_own_fault() -> None:
    with pytest.raises(AssertionError, match="out of range"):
        ConfusionMatrix(2).update(np.array([[2]]), np.array([[0]]))
