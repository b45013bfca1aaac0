"""Which checkpoint is the best."""

from __future__ import annotations

import pytest

from oneformer.errors import UserError
from oneformer.train.best import Best, resolve_metric


@pytest.mark.parametrize(
    ("tasks", "metric"),
    [
        (("semantic", "instance", "panoptic"), "PQ"),
        (("semantic", "instance"), "mIoU"),
        (("instance",), "AP"),
        ((), "train_loss"),
    ],
)
def test_auto_takes_the_widest_score_there_is(tasks: tuple[str, ...], metric: str) -> None:
    assert resolve_metric("auto", tasks) == metric


def test_a_score_of_a_task_that_is_not_validated_is_refused() -> None:
    with pytest.raises(UserError, match="the panoptic task is not validated"):
        resolve_metric("PQ_things", ("semantic",))


def test_scores_rise_and_losses_fall() -> None:
    best = Best("mIoU")
    assert [best.improved_by({"mIoU": v}, i) for i, v in enumerate((1.0, 2.0, 1.5, 2.0, float("nan"), 3.0))] == [
        True, True, False, True, False, True,
    ]  # fmt: skip
    assert (best.value, best.step) == (3.0, 5)
    loss = Best("train_loss")
    assert [loss.improved_by({"train_loss": v}, 0) for v in (3.0, 2.0, 2.5)] == [True, True, False]
