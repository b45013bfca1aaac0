"""A command and a world -> the other processes of this machine, beside this one, which becomes the first of them."""

from __future__ import annotations

import _thread
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import IO

import torch

from oneformer.errors import WorkError
from oneformer.runs.status import StatusLog
from oneformer.train.world import World

GRACE_S = 60
READY = "ready"
CHILD = "ONEFORMER_CHILD_RANK"
INTERRUPTED = 130
LOOK_S = 0.5
LOST = re.compile(r"connection (reset|closed) by peer|broken pipe|read error|remote process exited", re.IGNORECASE)
BROKE = "the connection to another process of this run broke"
PATIENCE_S = 3.0
"""A collective that a process is missing from mostly fails by itself, which also saves what can be saved."""
ENDING_S = 10.0
"""A connection breaks before the process at its other end is gone."""
LAST_S = 30.0
"""After this long in a call that does not come back (NCCL's do not), the process is ended from inside."""


@dataclass
class _Child:
    """Another rank, and what it has said on its standard error."""

    process: subprocess.Popen[str]
    words: IO[str]
    name: str

    @property
    def failed(self) -> bool:
        """Whether it has ended otherwise than well, or because the user stopped it."""
        return self.process.poll() not in (None, 0, INTERRUPTED)

    def failure(self) -> WorkError:
        """What became of it, in its own last words."""
        self.words.seek(0)
        lines = [line for line in self.words.read().splitlines() if line.strip()]
        code = self.process.poll() or 0
        if code < 0:
            return WorkError(f"{self.name} was {ended_by(-code)}")
        told = "\n    ".join(lines[-6:]) or f"it ended with {code} and said nothing"
        return WorkError(f"{self.name} failed:\n    {told}")


def ended_by(number: int) -> str:
    """`ended by SIGTERM`, and what a signal may mean."""
    memory = "; the system does that when memory runs out" if number == signal.SIGKILL else ""
    with suppress(ValueError):
        return f"ended by {signal.Signals(number).name}{memory}"
    return f"ended by signal {number}"


@contextmanager
def ranks(
    command: Sequence[str], place: World, *, message: str, status: StatusLog | None = None
) -> Iterator[Callable[[], None]]:
    """While open, children run `command` as the other processes of this machine, and torch's variables are set.

    Gives a function to be called by every process when it is about to join the others: in the first one of a machine it
    waits for all children, so that one that fails on the way is told at once, not after the half hour of torch's own
    rendezvous. Each child gets `message` on its standard input. Nothing is started for a single process, or when a
    launcher such as torchrun has started this one. Children are ended with this process, and this process ends within
    seconds of a child that fails; where that must be done the hard way, `status` gets its last line first.

    Raises:
        WorkError: a child failed; its last words are told.
    """
    if place.size == 1:
        yield _nothing
        return
    before = dict(os.environ)
    children: list[_Child] = []
    watch = _Watch(children, status)
    try:
        if place.local is not None:
            os.environ.update(place.variables(place.local, place.port))
            yield _say_ready if CHILD in before else _nothing
            return
        _start_all(children, command, place, message)
        watch.start()
        yield partial(_meet, children)
        for child in children:
            if child.process.wait(GRACE_S) not in (0, INTERRUPTED):
                raise child.failure()
    except (Exception, KeyboardInterrupt) as error:
        lost = isinstance(error, RuntimeError) and LOST.search(str(error)) is not None
        failed = _failed(children, within_s=ENDING_S if lost else 0.0)
        mine = isinstance(error, WorkError) or (isinstance(error, KeyboardInterrupt) and not watch.interrupted)
        if failed and not mine:
            raise failed[0].failure() from error
        if lost:
            raise WorkError(BROKE, hint="that process, or its machine, says why") from error
        raise
    finally:
        watch.done.set()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # or the next training here would wait for ranks that are gone
        os.environ.clear()
        os.environ.update(before)
        for child in children:
            _end(child)


def _failed(children: Sequence[_Child], *, within_s: float) -> list[_Child]:
    """The children that have failed; where one must have, it gets some time to come to its end."""
    until = time.monotonic() + within_s
    while not (failed := [child for child in children if child.failed]):
        if not children or time.monotonic() >= until:
            break
        time.sleep(0.05)
    return failed


def _nothing() -> None:
    """A single process, or one of an outer launcher, waits for nobody here."""


def _say_ready() -> None:
    """A child has come so far; from now on it ends with its parent, for whom nobody else would look."""
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(1)


def _meet(children: Sequence[_Child]) -> None:
    for child in children:
        assert child.process.stdout is not None
        if child.process.stdout.readline().strip() != READY:  # the stream ends with the process
            child.process.wait(GRACE_S)
            raise child.failure()


def _start_all(children: list[_Child], command: Sequence[str], place: World, message: str) -> None:
    """Start the other processes of this machine and become the first of them."""
    if place.nodes == 1:
        place = replace(place, port=_free_port())
    # Without a share each, the processes fight over the cores.
    share = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // place.per_node)))}
    before = dict(os.environ)
    for local in range(1, place.per_node):
        variables = place.variables(local, place.port)
        name = f"process {int(variables['RANK']) + 1} of {place.size}"
        children.append(_start(command, {**before, **share, **variables, CHILD: "1"}, message, name=name))
    os.environ.update(share | place.variables(0, place.port))


def _start(command: Sequence[str], environment: dict[str, str], message: str, *, name: str) -> _Child:
    words = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  # open as long as the child
    pipe = subprocess.PIPE
    process = subprocess.Popen(list(command), env=environment, stdin=pipe, stdout=pipe, stderr=words, text=True)
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it has ended already, which is told in its own words
        process.stdin.write(message)
        process.stdin.close()
    return _Child(process, words, name)


class _Watch(threading.Thread):
    """Looks whether a child has failed, and gets this process out of a call that waits for it for ever."""

    def __init__(self, children: Sequence[_Child], status: StatusLog | None) -> None:
        super().__init__(daemon=True)
        self.children, self.status = children, status
        self.done = threading.Event()
        self.interrupted = False
        self._in_main = threading.current_thread() is threading.main_thread()

    def run(self) -> None:
        """Until `done`, or the end of the process."""
        while not self.done.wait(LOOK_S):
            if failed := [child for child in self.children if child.failed]:
                break
        else:
            return
        if self.done.wait(PATIENCE_S) or not self._in_main:
            return
        self.interrupted = True
        _thread.interrupt_main()
        if self.done.wait(LAST_S):
            return
        error = failed[0].failure()
        sys.stderr.write(f"error: {error.message}\n")
        if self.status is not None:
            self.status.write("FAILURE", error.message, verbosity="ERROR")
        for child in self.children:
            _end(child)
        os._exit(error.exit_code)


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
