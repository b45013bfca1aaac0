"""An allocation that failed in a fit -> how much was in use and asked for; this machine -> how much there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from oneformer.errors import OutOfMemory
from oneformer.runs.limits import address_limit, container_limit, physical
from oneformer.train.progress import memory_mib

if TYPE_CHECKING:
    import lightning.pytorch as pl

_GIB = 2**30
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": _GIB}
_ASKED = re.compile(r"tried to allocate ([\d.]+) (bytes|KiB|MiB|GiB)", re.IGNORECASE)


def ran_out(error: BaseException, trainer: pl.Trainer, module: Any) -> OutOfMemory:
    """The fault in numbers: where it happened, what was in use, what was asked for in addition."""
    used = memory_mib(module.device) * 2**20
    more = asked_bytes(error)
    what = f"{module.stage} ran out of memory with {gib(used)} in use" + (
        f" and {gib(more)} more asked for" if more else ""
    )
    return OutOfMemory(what, where=f"optimiser step {trainer.global_step + 1}")


def asked_bytes(error: BaseException) -> float:
    """The size of the allocation that failed, bytes; 0 where the message does not tell."""
    found = _ASKED.search(str(error))
    unit = {name.lower(): size for name, size in _UNITS.items()}
    return float(found[1]) * unit[found[2].lower()] if found else 0.0


def gib(size: float) -> str:
    """Bytes for people."""
    return f"{size / _GIB:.1f} GiB" if size >= _GIB / 10 else f"{size / 2**20:.0f} MiB"


def peak_bytes(device: torch.device) -> float:
    """The most that this process has held so far: reserved on a GPU; on a CPU what its limit counts.

    That is all addresses where `ulimit -v` sets a limit, else what lies in memory.
    """
    if device.type == "cuda":
        return float(torch.cuda.max_memory_reserved(device))
    name = "VmPeak" if address_limit() else "VmHWM"
    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:  # no Linux
        return memory_mib(device) * 2**20
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return float(found[1]) * 2**10 if found else memory_mib(device) * 2**20


def there_is(device: torch.device) -> float:
    """The memory that a process may take at most, bytes: the GPU's, or the smallest limit on the CPU; 0 if unknown."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return float(min([size for size in (address_limit(), container_limit(), physical()) if size], default=0))
