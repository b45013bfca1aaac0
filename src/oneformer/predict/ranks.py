"""The devices an action asks for -> as many processes, each with a device and a number, joined on the first."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from oneformer.spec.tree import to_dict
from oneformer.train.devices import choose_devices
from oneformer.train.launch import ranks

if TYPE_CHECKING:
    from oneformer.runs.status import StatusLog
    from oneformer.spec import ExperimentSpec

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


@contextmanager
def group(spec: ExperimentSpec, action: str, *, status: StatusLog | None = None) -> Iterator[Rank]:
    """Start the processes that the action's section asks for; every one of them runs the action up to here and beyond.

    Under an outer launcher (torchrun) nothing is started and the launcher's processes are taken. When a process fails,
    the others end within seconds, and `status` says why.
    """
    devices = choose_devices(getattr(spec, action), key=action)
    place = devices.world
    command = [sys.executable, "-m", f"oneformer.actions.{action}"]
    threads = torch.get_num_threads()
    name = str(devices.device)
    with ranks(command, place, message=json.dumps(to_dict(spec)), status=status) as meet:
        if place.size == 1:
            yield Rank(0, 1, name)
            return
        meet()
        # Scores and file lists are gathered, never tensors of a GPU: gloo does for both.
        dist.init_process_group("gloo", timeout=LONGEST)
        torch.set_num_threads(max(1, threads // place.per_node))
        try:
            yield Rank(dist.get_rank(), place.size, name)
        finally:
            torch.set_num_threads(threads)


def is_first(spec: ExperimentSpec, action: str) -> bool:
    """Whether this process is the one that writes and tells. Raises SpecError, see `choose_devices`."""
    return choose_devices(getattr(spec, action), key=action).world.first
