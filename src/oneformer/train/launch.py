"""A command and a number of processes -> ranks 1, 2, ... beside this process, which becomes rank 0."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO

import torch

from oneformer.errors import WorkError

GRACE_S = 60
READY = "ready"
CHILD = "ONEFORMER_CHILD_RANK"


@dataclass
class _Child:
    """Another rank, and what it has said on its standard error."""

    process: subprocess.Popen[str]
    words: IO[str]
    name: str

    def failure(self) -> WorkError:
        """What became of it, in its own last words."""
        self.words.seek(0)
        lines = [line for line in self.words.read().splitlines() if line.strip()]
        told = "\n    ".join(lines[-6:]) or f"it ended with {self.process.poll()} and said nothing"
        return WorkError(f"{self.name} failed:\n    {told}")


@contextmanager
def ranks(command: Sequence[str], processes: int, *, message: str) -> Iterator[Callable[[], None]]:
    """While open, `processes` - 1 children run `command` as the other ranks of one machine, and this process is rank 0.

    Gives a function to be called by every rank when it is about to join the others: on rank 0 it waits for all
    children, so that one that fails on the way is told at once, not after the half hour of torch's own rendezvous.
    Each child gets `message` on its standard input. Nothing is started for a single process or when a launcher such as
    torchrun has started this one. Children are ended with this process.

    Raises:
        WorkError: a child failed; its last words are told.
    """
    if processes == 1 or "LOCAL_RANK" in os.environ:
        yield _say_ready if CHILD in os.environ else _nothing
        return
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(processes),
        "NODE_RANK": "0",
        # Without a share each, the processes fight over the cores.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes))),
    }
    children: list[_Child] = []
    before = dict(os.environ)
    try:
        for rank in range(1, processes):
            environment = {**before, **shared, **_rank(rank), CHILD: "1"}
            children.append(_start(command, environment, message, name=f"process {rank + 1} of {processes}"))
        os.environ.update(shared | _rank(0))
        yield partial(_meet, children)
        for child in children:
            if child.process.wait(GRACE_S):
                raise child.failure()
    except Exception as error:
        failed = [child for child in children if child.process.poll() not in (None, 0)]
        if failed and not isinstance(error, WorkError):
            raise failed[0].failure() from error
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # or the next training here would wait for ranks that are gone
        os.environ.clear()
        os.environ.update(before)
        for child in children:
            _end(child)


def _nothing() -> None:
    """A single process, or one of an outer launcher, waits for nobody here."""


def _say_ready() -> None:
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()


def _meet(children: Sequence[_Child]) -> None:
    for child in children:
        assert child.process.stdout is not None
        if child.process.stdout.readline().strip() != READY:  # the stream ends with the process
            child.process.wait(GRACE_S)
            raise child.failure()


def _rank(rank: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank)}


def _start(command: Sequence[str], environment: dict[str, str], message: str, *, name: str) -> _Child:
    words = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  # open as long as the child
    pipe = subprocess.PIPE
    process = subprocess.Popen(list(command), env=environment, stdin=pipe, stdout=pipe, stderr=words, text=True)
    assert process.stdin is not None
    process.stdin.write(message)
    process.stdin.close()
    return _Child(process, words, name)


def _end(child: _Child) -> None:
    if child.process.poll() is None:
        child.process.terminate()
        try:
            child.process.wait(10)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
    if child.process.stdout is not None:
        child.process.stdout.close()
    child.words.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
