"""Clipping is seen in the gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from oneformer.spec.train import ClipGradientsSpec, TrainSpec
from oneformer.train.clip import clip_gradients


def clipped(**values: Any) -> tuple[float, list[torch.Tensor]]:
    """Norm before, and the gradients (3, 4) and (12,) after; their common norm is 13."""
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 4.0]), torch.tensor([12.0])
    outer = {k: values.pop(k) for k in list(values) if k.startswith("clip_grad_")}
    train = TrainSpec(clip_gradients=ClipGradientsSpec(**values), **outer)
    before = clip_gradients(parameters, train)
    return float(before), [p.grad for p in parameters[:2]]


def norm(grads: list[torch.Tensor], order: float = 2.0) -> float:
    return float(torch.cat(grads).norm(order))


def test_full_model_limits_the_norm_of_all_gradients_together() -> None:
    before, grads = clipped(clip_value=1.3)
    assert before == pytest.approx(13.0)
    assert norm(grads) == pytest.approx(1.3, rel=1e-5)
    assert grads[1] == pytest.approx(1.2, rel=1e-5)


def test_gradients_below_the_limit_stay() -> None:
    assert norm(clipped(clip_value=20.0)[1]) == pytest.approx(13.0)


def test_disabled_leaves_the_gradients_alone() -> None:
    before, grads = clipped(enabled=False, clip_value=1.0)
    assert (before, norm(grads)) == (pytest.approx(13.0), pytest.approx(13.0))


def test_norm_limits_each_tensor() -> None:
    grads = clipped(clip_type="norm", clip_value=2.0)[1]
    assert [float(g.norm()) for g in grads] == pytest.approx([2.0, 2.0], rel=1e-5)


def test_value_limits_each_number() -> None:
    grads = clipped(clip_type="value", clip_value=3.5)[1]
    assert torch.cat(grads).tolist() == [3.0, 3.5, 3.5]


def test_the_order_of_the_norm_is_heeded() -> None:
    assert norm(clipped(clip_value=6.0, norm_type=float("inf"))[1], float("inf")) == pytest.approx(6.0, rel=1e-5)


@pytest.mark.parametrize(("first", "second", "left"), [(1.0, 0.5, 0.5), (0.5, 1.0, 0.5)])
def test_the_smaller_of_two_limits_wins(first: float, second: float, left: float) -> None:
    assert norm(clipped(clip_value=first, clip_grad_norm=second)[1]) == pytest.approx(left, rel=1e-4)


def test_the_second_limit_acts_alone_and_in_its_own_kind() -> None:
    grads = clipped(enabled=False, clip_grad_norm=2.0, clip_grad_type="value")[1]
    assert torch.cat(grads).tolist() == [2.0, 2.0, 2.0]
