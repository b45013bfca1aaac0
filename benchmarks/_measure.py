"""Callables -> times taken in turn, peak memory, operations and peak arithmetic; and the machine they belong to."""

from __future__ import annotations

import gc
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from oneformer.cli import LARGE_PAGES

Step = Callable[[], object]
PEAK_SIDE = 2048  # rows and columns of the product whose speed stands for the machine's arithmetic


class Spread(NamedTuple):
    """Median, least and greatest of several measurements."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        return Spread(statistics.median(values), min(values), max(values))


def in_turn(sides: Mapping[str, Step], *, rounds: int, warm_up: int = 1) -> dict[str, Spread]:
    """Milliseconds of each side. All take turns in every round, so that a busy moment of the machine meets them all.

    With one thread (`--one-thread`) processor time is taken, which other programs hardly change; else wall time.
    """
    clock = processor_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warm_up + rounds):
        for name, step in sides.items():
            gc.collect()
            start = clock()
            step()
            if turn >= warm_up:
                times[name].append(1000 * (clock() - start))
    return {name: Spread.of(values) for name, values in times.items()}


def processor_time() -> float:
    """Seconds that this process and the processes it has waited for have computed."""
    waited_for = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + waited_for.ru_utime + waited_for.ru_stime


class Operations(TorchDispatchMode):
    """Counts multiplications and additions of what runs inside, backward passes too.

    torch's own counter knows products and convolutions; attention as the CPU computes it is added here. Everything
    else (norms, sums, sampling) is left out: it is bound by memory, not by arithmetic.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        with self:  # inference mode hands over whole layers, which hold products
            parts = func.decompose(*args, **(kwargs or {}))
        if parts is not NotImplemented:
            return parts
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in flop_registry:
            self.count += flop_registry[packet](*args, **(kwargs or {}), out_val=out)
        elif packet is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
            self.count += 2 * _product(args[0], args[1])
        elif packet is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward:
            self.count += 5 * _product(args[1], args[2])
        return out


def _product(q: Tensor, k: Tensor) -> int:
    """Operations of one product of all queries with all keys."""
    return 2 * q.numel() * k.shape[-2]


def operations(step: Step) -> int:
    """Multiplications and additions of one call."""
    with Operations() as counted:
        step()
    return counted.count


def product(dtype: torch.dtype) -> tuple[Step, int]:
    """A large matrix product, and its operations: timed in turn with the rest, it shows the machine's arithmetic."""
    a, b = (torch.randn(PEAK_SIDE, PEAK_SIDE).to(dtype) for _ in range(2))
    return lambda: a @ b, 2 * PEAK_SIDE**3


def floor_ms(count: int, peak: Spread) -> float:
    """The time `count` operations take at the speed of the fastest `product`."""
    return count / (2 * PEAK_SIDE**3) * peak.low


def peak_memory_mib() -> float:
    """The most memory this process has held so far."""
    status = Path("/proc/self/status")
    if status.exists():  # a child's ru_maxrss begins with what its parent held on Linux
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held / 2**20 if sys.platform == "darwin" else held / 2**10


def memory_of(script: str, *arguments: str, large_pages: bool = False) -> Spread:
    """MiB that `python script --memory-of arguments...` held at most; it prints the number as its last line.

    With the large pages that `oneformer` asks for, or as Python starts.
    """
    command = [sys.executable, script, "--memory-of", *arguments]
    env = os.environ | ({LARGE_PAGES: "1"} if large_pages else {})
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return Spread.of([float(done.stdout.split()[-1])])


def busy(seconds: float = 2.0) -> float:
    """Share of all cores that is used now, 0..1; 0 where the system does not tell (/proc/stat)."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    counts = []
    for pause in (0.0, seconds):
        time.sleep(pause)
        counts.append([int(field) for field in stat.read_text(encoding="utf-8").split("\n")[0].split()[1:9]])
    spent = [after - before for before, after in zip(*counts, strict=True)]
    idle = spent[3] + spent[4]  # the fourth field is idle time, the fifth that of waiting for a disk
    return 1 - idle / max(1, sum(spent))


def hardware() -> str:
    """Processor, cores and vector instructions: figures of different names are never compared."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (line.partition(":") for line in cpuinfo.read_text(encoding="utf-8").partition("\n\n")[0].splitlines())
        facts = {name.strip(): value.strip() for name, _, value in lines}
        model = facts.get("model name", model)
        if "cpu family" in facts:  # virtual machines call processors of several generations by one name
            model += f" family {facts['cpu family']} model {facts.get('model', '?')}"
    able: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    extras = [name for name in ("amx_bf16", "avx512_bf16") if able.get(name)]
    return ", ".join([model, f"{os.cpu_count()} cores", torch.backends.cpu.get_cpu_capability(), *extras])


def versions() -> str:
    """Python, torch and the peer."""
    return f"Python {platform.python_version()}, torch {version('torch')}, transformers {version('transformers')}"


def today() -> str:
    """The date as 2026-01-31."""
    return date.today().isoformat()
