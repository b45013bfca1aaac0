"""Devices that are not there are refused by name."""

from __future__ import annotations

import pytest
import torch

from oneformer.errors import UserError
from oneformer.spec import EvaluateSpec
from oneformer.spec.train import TrainSpec
from oneformer.train.devices import Devices, choose_devices
from oneformer.train.world import World


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "NNODES"):
        monkeypatch.delenv(name, raising=False)


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_auto_takes_a_gpu_when_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    assert choose_devices(TrainSpec()) == Devices("cpu", (0,), World())
    gpus(monkeypatch, 2)
    assert choose_devices(TrainSpec()) == Devices("gpu", (0,), World())


def test_number_and_list_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 4)
    assert choose_devices(TrainSpec(num_gpus=3)).ids == (0, 1, 2)
    assert choose_devices(TrainSpec(num_gpus=2, gpu_ids=[1, 3])).ids == (1, 3)
    assert choose_devices(TrainSpec(gpu_ids=[2, 3])).ids == (2, 3)
    assert choose_devices(TrainSpec(gpu_ids=[3])).ids == (3,)


@pytest.mark.parametrize(
    ("there", "train", "message"),
    [
        (2, TrainSpec(num_gpus=8), "GPUs 0, 1, 2, 3, 4, 5, 6, 7 asked for, but this machine has 2 GPUs (0-1)"),
        (1, TrainSpec(gpu_ids=[1]), "GPU 1 asked for, but this machine has 1 GPU (number 0)"),
        (0, TrainSpec(accelerator="gpu"), "this machine has no GPU that torch can use"),
        (1, TrainSpec(num_nodes=2), "no launcher started this process"),
        (1, TrainSpec(distributed_strategy="fsdp", precision="fp16"), "fp16 does not go with fsdp"),
    ],
)
def test_what_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, there: int, train: TrainSpec, message: str
) -> None:
    gpus(monkeypatch, there)
    with pytest.raises(UserError) as error:
        choose_devices(train)
    assert message in error.value.what


def test_on_the_cpu_the_number_counts_processes() -> None:
    devices = choose_devices(TrainSpec(accelerator="cpu", num_gpus=3))
    assert (devices.world_size, devices.device.type) == (3, "cpu")


def test_a_launcher_may_say_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 4)
    for name, value in World(2, 4, 1, None, "a", 1).variables(2, 1).items():
        monkeypatch.setenv(name, value)
    devices = choose_devices(TrainSpec())
    assert (devices.ids, devices.world.rank, devices.device.index) == ((0, 1, 2, 3), 6, 2)
    evaluate = EvaluateSpec(gpu_ids=[3, 2, 1, 0])
    assert choose_devices(evaluate, key="evaluate").device.index == 1
    with pytest.raises(UserError, match=r"evaluate\.num_gpus"):
        choose_devices(EvaluateSpec(num_gpus=2), key="evaluate")
