"""`accelerator`, `num_gpus`, `gpu_ids` and `num_nodes` -> the devices that an action runs on, or why it cannot."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch

from oneformer.errors import SpecError
from oneformer.train.world import World, world

if TYPE_CHECKING:
    from oneformer.spec import EvaluateSpec, InferenceSpec, TrainSpec


@dataclass(frozen=True)
class Devices:
    """Where an action runs."""

    accelerator: str
    """"gpu" or "cpu"."""
    ids: tuple[int, ...]
    """GPUs of this machine, or the numbers of its CPU processes."""
    world: World

    @property
    def world_size(self) -> int:
        """Processes of all machines."""
        return self.world.size

    @property
    def device(self) -> torch.device:
        """That of this process."""
        own = self.ids[self.world.local or 0]
        return torch.device("cuda", own) if self.accelerator == "gpu" else torch.device("cpu")

    def trainer_arguments(self, strategy: str, *, unused: bool) -> dict[str, Any]:
        """What Lightning's Trainer takes; `strategy` is ddp or fsdp, `unused` when some parameters get no gradient."""
        gpu = self.accelerator == "gpu"
        arguments: dict[str, Any] = {
            "accelerator": self.accelerator,
            "devices": list(self.ids) if gpu else len(self.ids),
            "num_nodes": self.world.nodes,
        }
        backend = "nccl" if gpu else "gloo"
        together: dict[str, Any] = {"process_group_backend": backend, "timeout": timedelta(minutes=30)}
        if self.world.size > 1 and strategy == "fsdp":
            from oneformer.train.sharded import Sharded

            arguments["strategy"] = Sharded(self.world, **together)
        elif self.world.size > 1:
            from lightning.pytorch.strategies import DDPStrategy

            from oneformer.train.cluster import Cluster

            arguments["strategy"] = DDPStrategy(
                cluster_environment=Cluster(self.world),
                find_unused_parameters=unused,
                gradient_as_bucket_view=True,
                **together,
            )
        return arguments


def choose_devices(section: TrainSpec | EvaluateSpec | InferenceSpec, *, key: str = "train") -> Devices:
    """The devices that an action's section asks for.

    Raises:
        SpecError: there are fewer GPUs than asked for, several machines without a launcher, or the launcher says
            something else than the spec.
    """
    if getattr(section, "distributed_strategy", "ddp") == "fsdp" and section.precision == "fp16":
        raise SpecError("fp16 does not go with fsdp", where=f"{key}.precision", hint=f"set {key}.precision=bf16")
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    accelerator = ("gpu" if present else "cpu") if section.accelerator == "auto" else section.accelerator
    if accelerator == "cpu":
        found = world(section.num_gpus, section.num_nodes, key=key)
        return Devices("cpu", tuple(range(found.per_node)), found)
    # Where count and list disagree the longer one is meant, as in TAO; the list then only says how many.
    count = max(section.num_gpus, len(section.gpu_ids))
    found = world(count, section.num_nodes, key=key)
    listed = len(set(section.gpu_ids)) == found.per_node
    ids = tuple(section.gpu_ids) if listed else tuple(range(found.per_node))
    if present <= max(ids):
        have = {0: "no GPU that torch can use", 1: "1 GPU (number 0)"}.get(present, f"{present} GPUs (0-{present - 1})")
        wanted = f"GPUs {', '.join(map(str, ids))}" if len(ids) > 1 else f"GPU {ids[0]}"
        raise SpecError(
            f"{wanted} asked for, but this machine has {have}",
            where=f"{key}.num_gpus" if len(ids) > 1 else f"{key}.gpu_ids",
            hint=f"set {key}.num_gpus={present}" if present else f"set {key}.accelerator=cpu",
        )
    return Devices("gpu", ids, found)


def this_rank() -> int:
    """The number of this process among all, where the processes of a run are together; 0 when it is alone."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return int(os.environ["RANK"]) if several else 0
