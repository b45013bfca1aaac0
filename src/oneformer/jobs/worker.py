"""`python -m oneformer.jobs.worker FOLDER` -> one run of one job: claimed, started, watched, its end noted."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO

from oneformer.errors import UserError
from oneformer.jobs import search, slots
from oneformer.jobs.alive import MARK, Process, end, members, send
from oneformer.jobs.queue import start_queue
from oneformer.jobs.record import COMPLETE, ERROR, PENDING, RUNNING, Record, Run, now
from oneformer.jobs.seal import check_seal
from oneformer.jobs.store import ALIVE, LOG, RESULTS, Store
from oneformer.jobs.verdict import size, status_file, verdict
from oneformer.runs.away import KEPT

NOT_NOW, FAILED = 75, 1
"""Exit codes of a worker whose job another one runs or that has no slots yet, and with `--tell` of a failed job."""
BEAT_S = 1.0
GRACE_S = 30.0
GRACE = "ONEFORMER_JOBS_GRACE"


def main(words: Sequence[str]) -> int:
    """Run the job of a folder, once: of several workers one claims it, the others leave."""
    folder = Path(words[0]).absolute()
    store = Store(folder.parent)
    record = claim(store, folder.name)
    if record is None:
        return NOT_NOW
    if "--log" in words:
        to_log(folder / LOG)
    _Worker(store, record).work()
    start_queue(store)
    # A scheduler that waits for success looks at the exit code.
    return FAILED if "--tell" in words and store.read(record.id).state != COMPLETE else 0


def to_log(path: Path) -> None:
    """Send what this process and those it starts say to a file, where nobody does that from outside."""
    with path.open("ab") as log:
        for number in (1, 2):
            os.dup2(log.fileno(), number)


def claim(store: Store, job: str) -> Record | None:
    """Make a pending job this process's own, if what it waits for is complete and what it needs is free."""
    with store.locked():
        record = store.read(job)
        records = store.records()
        if record.state != PENDING or record.cancel or not slots.ready(record, {r.id: r.state for r in records}):
            return None
        gpus: list[str] = []
        if record.executor == "local":
            free = slots.machine().without(slots.on_this_machine(r for r in records if r.executor == "local"))
            if not free.fit(record):
                return None
            gpus = list(free.gpus[: record.gpus])
        start = size(status_file(store.folder(job), record.action))
        record.run = Run(Process.this(), secrets.token_hex(8), gpus, start)
        record.state, record.started, record.message = RUNNING, now(), ""
        store.write(record)
        return record


class _Worker:
    """One claimed run."""

    def __init__(self, store: Store, record: Record) -> None:
        assert record.run, "a claimed job has a run"
        self.store, self.record, self.run = store, record, record.run
        self.folder = store.folder(record.id)
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True

    def work(self) -> None:
        """From the claimed job to its end, whatever happens."""
        code: int | None = None
        try:
            code = self._act()
        except UserError as error:
            self._say(f"error: {error.message}")
            self._finish(ERROR, error.message, 2)
            return
        except OSError as error:
            self._finish(ERROR, f"it cannot be started: {error}", None)
            return
        self.record = self.store.read(self.record.id)  # somebody may have asked to cancel it
        state, message = verdict(self.record, self.folder, code)
        self._finish(state, message, code)

    def _act(self) -> int:
        """Run the action; its exit code."""
        if self.record.command:
            check_seal(self.record)
            return self._watch(self.record.command)
        from oneformer.jobs.resolve import prepared

        with prepared(self.store, self.record) as command:
            code = self._watch(command)
            if code == 0 and not self._stopping() and search.is_search(self.folder, self.record.action):
                code = self._hand_over(command)
            return code

    def _hand_over(self, command: Sequence[str]) -> int:
        """Score the best checkpoint of a search again and copy it to where other jobs find it; the exit code."""
        told = search.folder_of(self.folder) / search.VERIFIED
        with told.open("w", encoding="utf-8") as file:
            self._watch(search.closing(command, json_out=True), out=file)  # what it found is judged by who takes it
        return 1 if self._stopping() else self._watch(search.closing(command, json_out=False))

    def _stopping(self) -> bool:
        return self.asked or self._canceled()

    def _watch(self, command: Sequence[str], *, out: IO[str] | None = None) -> int:
        """The exit code of a command whose processes are all ended when this returns."""
        child = subprocess.Popen(
            command, cwd=self.record.cwd or None, env=self._environment(), stdin=subprocess.DEVNULL, stdout=out
        )
        grace, kill_at = float(os.environ.get(GRACE, GRACE_S)), 0.0
        while True:
            with suppress(subprocess.TimeoutExpired):
                code = child.wait(timeout=BEAT_S if not kill_at else 0.1)
                break
            (self.folder / ALIVE).touch()
            if not kill_at and self._stopping():
                kill_at = time.monotonic() + grace
                self._send(signal.SIGTERM)
            elif kill_at and time.monotonic() > kill_at:
                self._send(signal.SIGKILL)
        end(self.run.token, os.getpid(), but=(os.getpid(),), grace_s=min(grace, 5.0))
        return code

    def _environment(self) -> dict[str, str]:
        more = {MARK: self.run.token, "ONEFORMER_JOB": self.record.id, KEPT: str(self.folder / RESULTS)}
        if self.record.executor == "local":
            if self.record.gpus:
                more["CUDA_VISIBLE_DEVICES"] = ",".join(self.run.gpus)
            elif "CUDA_VISIBLE_DEVICES" not in os.environ and slots.machine().gpus:
                more["CUDA_VISIBLE_DEVICES"] = ""  # it did not ask for a GPU, and others hold them
            if self.record.cpus < slots.processors():
                more["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(self.record.cpus))
        return {**os.environ, **more}

    def _canceled(self) -> bool:
        with suppress(UserError):
            return self.store.read(self.record.id).cancel
        return False

    def _send(self, number: signal.Signals) -> None:
        for pid in members(self.run.token, os.getpid()):
            if pid != os.getpid():
                send(pid, number)

    def _say(self, text: str) -> None:
        with (self.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(text + "\n")

    def _finish(self, state: str, message: str, code: int | None) -> None:
        def note(record: Record) -> bool:
            if record.state != RUNNING or record.run is None or record.run.token != self.run.token:
                return False  # it was given up meanwhile
            record.end(state, message, exit_code=code)
            return True

        self.store.change(self.record.id, note)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
