"""What an executor does -> the one seam between jobs and machines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from oneformer.errors import SpecError, UserError, WorkError
from oneformer.jobs.record import COMPLETE, ENDED, Record
from oneformer.jobs.store import Store


class Executor(Protocol):
    """Whoever has the machines."""

    options: Mapping[str, str]
    """What can be said to it with `--options`, and what it means."""
    chains: bool
    """It takes jobs that wait for others."""

    def check(self, store: Store, record: Record) -> None:
        """Raises UserError for a job that it could never run."""

    def submit(self, store: Store, record: Record) -> None:
        """Have a worker started for a pending job when what it waits for is complete and what it needs is free.

        Raises:
            UserError: it does not take the job, which then must not stay pending.
        """

    def gone(self, record: Record) -> str:
        """Why no worker will end this open job any more; empty while one may."""

    def cancel(self, record: Record) -> None:
        """Take back what `submit` asked for; a worker that runs is told by others."""


def check_options(executor: Executor, record: Record) -> None:
    """Raises SpecError for options that the executor does not know."""
    for name in record.options:
        if name not in executor.options:
            known = ", ".join(executor.options) or "none"
            raise SpecError(f"{record.executor} has no option {name}", where="--options", hint=f"it has {known}")


def check_one_machine(record: Record) -> None:
    """Raises UserError for a job that needs several machines."""
    if record.nodes > 1:
        hint = "slurm and kubernetes do"
        raise UserError(
            f"{record.executor} does not run a job on {record.nodes} machines", where="num_nodes", hint=hint
        )


def no_order(record: Record) -> UserError:
    """The error for a job that would have to wait for others, with an executor that starts jobs at once."""
    hint = "submit it when what it waits for is complete"
    return UserError(f"{record.executor} keeps no order of jobs: it starts them at once", hint=hint)


def open_dependencies(store: Store, record: Record) -> list[Record]:
    """What a job waits for and is not complete, all of it with the same executor. Raises UserError."""
    found = [other for other in map(store.read, record.waits_for) if other.state != COMPLETE]
    for other in found:
        if other.executor != record.executor or (not other.external and other.state not in ENDED):
            what = f"{other.id}, which it waits for, is no job of {record.executor}"
            raise UserError(what, hint="submit it when that one is complete, or all of a chain to one executor")
    return found


def worker_command(store: Store, record: Record, *, log: bool = False) -> list[str]:
    """What runs the job's worker; its exit code says how the job ended.

    Args:
        store: where the jobs lie.
        record: the job.
        log: the worker writes the job's log itself, where nobody else puts what it says there.
    """
    module = "oneformer.jobs.member" if record.nodes > 1 else "oneformer.jobs.worker"
    words = [record.python or "python", "-P", "-m", module, str(store.folder(record.id)), "--tell"]
    return [*words, "--log"] if log else words


def run_tool(command: Sequence[str], *, given: str = "") -> str:
    """What another program says. Raises UserError when it is not there, WorkError when it fails."""
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError as error:
        raise UserError(f"there is no {command[0]} on this machine", where=f"--executor, {sys.platform}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WorkError(f"{command[0]} does not answer: {error}") from error
    if done.returncode:
        raise WorkError(f"{Path(command[0]).name} failed: {(done.stderr or done.stdout).strip()[:500]}")
    return done.stdout.strip()
