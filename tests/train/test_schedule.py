"""The learning rate moves as the schedule says, on a real optimiser."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch

from oneformer.spec.train import OptimSpec
from oneformer.train.schedule import Schedule


def rates(spec: OptimSpec, total: int, *, per_epoch: int = 10, used: list[float] | None = None) -> list[float]:
    """Learning rate of each step of a training, for a peak of 1."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=1.0)
    clock = iter([0.0, *used]) if used else None
    now = [0.0]
    schedule = Schedule(optimizer, spec, total_steps=total, steps_per_epoch=per_epoch, time_used=lambda: now[0])
    seen = []
    for _ in range(total):
        seen.append(optimizer.param_groups[0]["lr"])
        parameter.grad = torch.ones(1)
        optimizer.step()
        if clock is not None:
            now[0] = next(clock, 1.0)
        schedule.step()
    return seen


def spec(kind: str = "Warmuppoly", **values: Any) -> OptimSpec:
    return OptimSpec(lr_scheduler=kind, **{"warmup_iters": 0, **values})  # type: ignore[arg-type]


def test_poly_falls_with_its_power_over_the_whole_training() -> None:
    assert rates(spec(power=0.9), 20) == pytest.approx([(1 - t / 20) ** 0.9 for t in range(20)])


def test_the_warm_up_is_linear_from_its_factor() -> None:
    seen = rates(spec("constant", warmup_iters=10, warmup_factor=0.1), 30)
    assert seen[:10] == pytest.approx([0.1 + 0.9 * t / 10 for t in range(10)])
    assert seen[10:] == [1.0] * 20


def test_multistep_drops_at_iterations_which_win_over_epochs() -> None:
    seen = rates(spec("MultiStep", steps=[5, 15], milestones=[1], gamma=0.5), 20)
    assert seen == [1.0] * 5 + [0.5] * 10 + [0.25] * 5


def test_multistep_drops_after_epochs() -> None:
    seen = rates(spec("MultiStep", milestones=[1], gamma=0.1), 20, per_epoch=12)
    assert seen == [1.0] * 12 + [0.1] * 8


def test_drops_behind_the_end_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert rates(spec("MultiStep", milestones=[88, 96]), 20) == [1.0] * 20
    assert "never drops: train.optim.milestones" in caplog.text


def test_cosine_ends_at_the_floor() -> None:
    seen = rates(spec("cosine", min_lr_frac=0.2), 50)
    assert seen == pytest.approx([0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * t / 50)) for t in range(50)])
    assert min(seen) >= 0.2


def test_a_warm_up_longer_than_the_training_is_shortened(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        seen = rates(spec(warmup_iters=1000), 50)
    assert "shortened to 5" in caplog.text
    assert max(seen) == seen[5]


def test_a_time_limit_squeezes_the_schedule() -> None:
    seen = rates(spec("cosine"), 1000, used=[0.01 * i for i in range(1, 101)])
    assert seen[100] == pytest.approx(0.0, abs=1e-3)
    assert seen[50] == pytest.approx(0.5, abs=0.02)


def test_a_long_warm_up_ends_within_a_tenth_of_the_time_limit() -> None:
    seen = rates(spec("constant", warmup_iters=900), 1000, used=[0.01 * i for i in range(1, 101)])
    assert seen[5] < 0.6
    assert seen[12] == 1.0


def test_a_restored_schedule_goes_on_where_it_was() -> None:
    def make() -> Schedule:
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        return Schedule(optimizer, spec(warmup_iters=3), total_steps=20, steps_per_epoch=10)

    whole, first = make(), make()
    for _ in range(12):
        whole.optimizer.step()
        whole.step()
    for _ in range(7):
        first.optimizer.step()
        first.step()
    second = make()
    second.load_state_dict(first.state_dict())
    assert second.optimizer.param_groups[0]["lr"] == first.optimizer.param_groups[0]["lr"]
    for _ in range(5):
        second.optimizer.step()
        second.step()
    assert second.get_last_lr() == whole.get_last_lr()
