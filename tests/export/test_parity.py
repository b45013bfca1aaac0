"""What counts as the same: a thousandth of a logit, or, with rounded products, what people see."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from oneformer.engines.base import EngineInfo
from oneformer.export.images import Images, generated, ready
from oneformer.export.parity import TOLERANCE, Parity, compare
from oneformer.segments import Outputs
from oneformer.spec import ModelSpec
from predict.fake import LABELS, MEAN, STD

INFO = EngineInfo(MEAN, STD, 64, 128, ModelSpec())


class Fake:
    """An engine of one product; `change` is what it does to its logits."""

    def __init__(self, name: str, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.labels, self.info, self.name, self.change = LABELS, INFO, name, change

    def __repr__(self) -> str:
        return self.name

    def outputs(self, images: Tensor, tasks: Sequence[str]) -> dict[str, Outputs]:
        masks = torch.nn.functional.avg_pool2d(images, 4).repeat(1, 4, 1, 1)  # (B, 12, h, w)
        classes = masks.flatten(2).mean(2)[:, :, None] * torch.arange(5)
        return {task: Outputs(self.change(classes, images), masks) for task in tasks}


def compared(
    other: Callable[[Tensor, Tensor], Tensor], mine: Callable[[Tensor, Tensor], Tensor], **more: bool
) -> Parity:
    batches = [ready(generated((64, 96), seed=seed), INFO, name="") for seed in range(2)]
    exact = more.get("exact", True)
    sides = Fake("mine", mine), Fake("yours", other)
    return compare(*sides, Images(batches, "two scenes"), tasks=("semantic", "panoptic"), exact=exact)  # type: ignore[arg-type]


def as_it_is(classes: Tensor, _: Tensor) -> Tensor:
    return classes


def off(by: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda classes, _: classes + by


def test_a_thousandth_is_the_same_and_more_is_not() -> None:
    assert compared(off(0.9 * TOLERANCE), as_it_is).faults == []
    (fault,) = compared(off(1.5 * TOLERANCE), as_it_is).faults
    assert fault.startswith("pred_logits differ by up to 0.0015, allowed is 0.001")


def test_rounded_products_must_not_change_what_people_see() -> None:
    found = compared(lambda classes, _: classes.flip(2), as_it_is, exact=False)
    assert any("pixels with the same class" in fault for fault in found.faults)


@pytest.mark.parametrize("nothing", [float("nan"), float("inf")])
def test_no_numbers_are_never_the_same(nothing: float) -> None:
    for mine in (as_it_is, off(nothing)):
        assert compared(off(nothing), mine).faults
        assert compared(off(nothing), mine, exact=False).faults


def test_rounded_products_are_judged_by_what_people_see() -> None:
    found = compared(off(0.5), as_it_is, exact=False)
    assert found.faults == []
    assert found.to_dict()["tolerance"] is None
