"""The devices an action asks for -> as many processes, each with a device and a number, joined on the first."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from oneformer.errors import SpecError
from oneformer.spec.tree import to_dict
from oneformer.train.launch import ranks

if TYPE_CHECKING:
    from oneformer.spec import EvaluateSpec, ExperimentSpec, InferenceSpec

LONGEST = timedelta(hours=24)  # the first to be done waits for the last; a process that dies is noticed at once


@dataclass(frozen=True)
class Rank:
    """This process among `world_size`; the first one writes and tells."""

    number: int
    world_size: int
    device: str

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and tells."""
        return self.number == 0

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes in their order, on the first process; an empty list on the others."""
        if self.world_size == 1:
            return [value]
        found: list[Any] | None = [None] * self.world_size if self.first else None
        dist.gather_object(value, found, dst=0)
        return found or []


def this_rank() -> int:
    """The number of this process among those of a launcher; 0 when it is alone."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def group(spec: ExperimentSpec, action: str) -> Iterator[Rank]:
    """Start the processes that the action's section asks for; every one of them runs the action up to here and beyond.

    Under an outer launcher (torchrun) nothing is started and the launcher's processes are taken.
    """
    section = getattr(spec, action)
    devices = devices_of(section, key=action)
    command = [sys.executable, "-m", f"oneformer.actions.{action}"]
    threads = torch.get_num_threads()
    with ranks(command, len(devices), message=json.dumps(to_dict(spec))) as meet:
        world_size = int(os.environ.get("WORLD_SIZE", "1"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= len(devices):
            raise SpecError(
                f"the launcher started process {local + 1} on this machine, but {action}.num_gpus is {len(devices)}",
                where=f"{action}.num_gpus",
                hint="start as many processes on each machine as it says",
            )
        if world_size == 1:
            yield Rank(0, 1, devices[local])
            return
        meet()
        # Scores and file lists are gathered, never tensors of a GPU: gloo does for both.
        dist.init_process_group("gloo", timeout=LONGEST)
        torch.set_num_threads(max(1, threads // len(devices)))
        try:
            yield Rank(dist.get_rank(), world_size, devices[local])
        finally:
            torch.set_num_threads(threads)


def devices_of(section: EvaluateSpec | InferenceSpec, *, key: str) -> tuple[str, ...]:
    """The devices of this machine's processes: `cpu` once per process, or `cuda:N` each.

    Where `num_gpus` and `gpu_ids` disagree the longer one is meant, as in training. Raises SpecError when a GPU is
    asked for that is not there, or several machines without a launcher.
    """
    if section.num_nodes > 1 and "LOCAL_RANK" not in os.environ:
        raise SpecError(
            f"{section.num_nodes} machines are asked for, but no launcher started this process",
            where=f"{key}.num_nodes",
            hint=f"on every machine: torchrun --nnodes=... --nproc-per-node=... -m oneformer {key} -e ...",
        )
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if section.accelerator == "cpu" or (section.accelerator == "auto" and not present):
        return ("cpu",) * section.num_gpus
    count = max(section.num_gpus, len(section.gpu_ids))
    ids = section.gpu_ids if len(set(section.gpu_ids)) == count else range(count)
    if max(ids) >= present:
        have = f"torch sees {present}" if present else "there is none that torch can use"
        where = f"{key}.gpu_ids" if present else f"{key}.accelerator"
        hint = f"GPUs are numbered 0 to {present - 1}" if present else f"set {key}.accelerator=cpu"
        raise SpecError(f"GPU {max(ids)} is asked for, but {have}", where=where, hint=hint)
    return tuple(f"cuda:{i}" for i in ids)
