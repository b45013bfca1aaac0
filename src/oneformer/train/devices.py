"""`accelerator`, `num_gpus`, `gpu_ids` and `num_nodes` -> the devices that a fit runs on, or why it cannot."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch

from oneformer.errors import UserError

if TYPE_CHECKING:
    from oneformer.spec.train import TrainSpec


@dataclass(frozen=True)
class Devices:
    """Where a fit runs."""

    accelerator: str
    """"gpu" or "cpu"."""
    ids: tuple[int, ...]
    """GPUs of this machine, or the numbers of its CPU processes."""
    nodes: int

    @property
    def world_size(self) -> int:
        """Processes of all machines."""
        return len(self.ids) * self.nodes

    @property
    def device(self) -> torch.device:
        """The first device, for questions about its abilities."""
        return torch.device("cuda", self.ids[0]) if self.accelerator == "gpu" else torch.device("cpu")

    def trainer_arguments(self, *, unused: bool) -> dict[str, Any]:
        """What Lightning's Trainer takes; `unused` when some trained parameters get no gradient."""
        gpu = self.accelerator == "gpu"
        arguments: dict[str, Any] = {
            "accelerator": self.accelerator,
            "devices": list(self.ids) if gpu else len(self.ids),
            "num_nodes": self.nodes,
        }
        if self.world_size > 1:
            from lightning.pytorch.strategies import DDPStrategy

            arguments["strategy"] = DDPStrategy(
                process_group_backend="nccl" if gpu else "gloo",
                find_unused_parameters=unused,
                gradient_as_bucket_view=True,
                timeout=timedelta(minutes=30),
            )
        return arguments


def choose_devices(train: TrainSpec) -> Devices:
    """The devices that the spec asks for.

    Raises:
        UserError: there are fewer GPUs than asked for, or several machines without a launcher.
    """
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    accelerator = ("gpu" if present else "cpu") if train.accelerator == "auto" else train.accelerator
    if train.num_nodes > 1 and not launched_from_outside():
        raise UserError(
            f"train.num_nodes is {train.num_nodes}, but this process was not started by a launcher",
            where="train.num_nodes",
            hint="start it on every machine with torchrun --nnodes=... --nproc-per-node=... -m oneformer train -e ...",
        )
    if train.distributed_strategy == "fsdp":
        raise UserError(
            "fsdp is not available yet", where="train.distributed_strategy", hint="use train.distributed_strategy=ddp"
        )
    if accelerator == "cpu":
        return Devices("cpu", tuple(range(train.num_gpus)), train.num_nodes)
    # Where count and list disagree the longer one is meant, as in TAO; the list then only says how many.
    count = max(train.num_gpus, len(train.gpu_ids))
    ids = tuple(train.gpu_ids) if len(set(train.gpu_ids)) == count else tuple(range(count))
    if present <= max(ids):
        have = {0: "no GPU that torch can use", 1: "1 GPU (number 0)"}.get(present, f"{present} GPUs (0-{present - 1})")
        wanted = f"GPUs {', '.join(map(str, ids))}" if len(ids) > 1 else f"GPU {ids[0]}"
        raise UserError(
            f"{wanted} asked for, but this machine has {have}",
            where="train.num_gpus" if train.num_gpus > 1 else "train.gpu_ids",
            hint="train.accelerator=cpu trains without a GPU" if not present else f"train.num_gpus={present}",
        )
    return Devices("gpu", ids, train.num_nodes)


def launched_from_outside() -> bool:
    """Whether torchrun, Slurm or `launch.ranks` started this process as one of several."""
    return "LOCAL_RANK" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ


def this_rank() -> int:
    """The number of this process among all; 0 when it is alone."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))
