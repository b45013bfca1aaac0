"""A script and its words -> as many processes of it as a launcher starts, each with the variables of one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
RUN = Path(__file__).with_name("rank_run.py")


def environment(**more: str) -> dict[str, str]:
    """That of this process, with the tests' folder to import from and one thread."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def free_port() -> int:
    """Nobody listens there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def as_ranks(script: Path, words: list[str], *, count: int) -> list[subprocess.Popen[str]]:
    """`count` processes as torchrun starts them."""
    port = str(free_port())
    told = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [_start([str(script), *words], environment(**told, RANK=str(n), LOCAL_RANK=str(n))) for n in range(count)]


def as_machines(folder: Path, words: list[str], *, count: int = 2, **more: str) -> list[subprocess.Popen[str]]:
    """One process of `rank_run.py` for each machine, as an orchestrator starts them; they note in `folder/rank<n>`."""
    told = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **more}
    return [
        _start([str(RUN), str(folder / f"rank{n}"), *words], environment(**told, NODE_RANK=str(n)))
        for n in range(count)
    ]


def _start(words: list[str], variables: dict[str, str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *words], env=variables, stdout=pipe, stderr=pipe, text=True)


def ended(processes: list[subprocess.Popen[str]], *, within_s: float = 600) -> list[tuple[int, str, str]]:
    """Exit status, output and errors of each."""
    told = [process.communicate(timeout=within_s) for process in processes]
    return [(process.returncode, *words) for process, words in zip(processes, told, strict=True)]
