"""`python -m oneformer.jobs.member FOLDER --tell` -> this machine's part of a job that runs on several machines.

The machine with the number 0 runs the job's worker, which claims the job and fills in its spec. The others wait for
that, run the same action on the same spec, and end with it. Which machine this is says NODE_RANK, or SLURM_NODEID.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from oneformer.errors import UserError
from oneformer.jobs import worker
from oneformer.jobs.record import RUNNING, Record
from oneformer.jobs.resolve import START
from oneformer.jobs.store import LOG, RESULTS, Store
from oneformer.runs.away import KEPT

RANKS = ("NODE_RANK", "SLURM_NODEID")
LONGEST_S = 900.0
"""For the first machine to begin: it may still be fetching its container image."""
POLL_S = 1.0


def number() -> int:
    """This machine among those of the job. Raises UserError when no variable says it."""
    for name in RANKS:
        if os.environ.get(name, "").isdecimal():
            return int(os.environ[name])
    raise UserError("no variable says which machine this is", where=" or ".join(RANKS))


def main(words: Sequence[str]) -> int:
    """Run the worker on the first machine, its action on the others; the exit code."""
    rank = number()
    if rank == 0:
        return worker.main(words)
    folder = Path(words[0]).absolute()
    if "--log" in words:
        worker.to_log(folder / LOG)
    return _Member(Store(folder.parent), folder.name).work()


class _Member:
    """One of the further machines."""

    def __init__(self, store: Store, job: str) -> None:
        self.store, self.job, self.folder = store, job, store.folder(job)
        self.asked = False
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(name, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True

    def work(self) -> int:
        """Wait for the first machine, run the action, end with it."""
        command = self._command()
        if not command:
            return worker.FAILED
        record = self.store.read(self.job)
        variables = {**os.environ, KEPT: str(self.folder / RESULTS)}
        child = subprocess.Popen(command, cwd=record.cwd or None, env=variables, stdin=subprocess.DEVNULL)
        kill_at = 0.0
        while True:
            with suppress(subprocess.TimeoutExpired):
                return child.wait(timeout=POLL_S)
            if not kill_at and (self.asked or not self._runs()):
                kill_at = time.monotonic() + float(os.environ.get(worker.GRACE, worker.GRACE_S))
                child.terminate()
            elif kill_at and time.monotonic() > kill_at:
                child.kill()

    def _runs(self) -> bool:
        try:
            record = self.store.read(self.job)
        except UserError:  # storage that several machines share may fail for a moment
            return True
        return record.state == RUNNING and not record.cancel

    def _command(self) -> list[str]:
        """What the first machine runs, once it does; nothing when it has given up, or does not come."""
        until = time.monotonic() + LONGEST_S
        attempt = self.store.read(self.job).attempt
        while time.monotonic() < until and not self.asked:
            record = self.store.read(self.job)
            if record.attempt != attempt or (record.state != RUNNING and record.ended):
                return []
            if command := self._started(record):
                return command
            time.sleep(POLL_S)
        return []

    def _started(self, record: Record) -> list[str]:
        with suppress(OSError, ValueError):
            told = json.loads((self.folder / START).read_text(encoding="utf-8"))
            if record.run and told["token"] == record.run.token:
                return [sys.executable, "-P", "-m", "oneformer", record.action, "-e", str(self.folder / told["spec"])]
        return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
