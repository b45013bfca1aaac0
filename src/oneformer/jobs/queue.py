"""`python -m oneformer.jobs.queue FOLDER` -> starts the jobs of a folder in their turn, until none is left.

It decides nothing that its end could undo: a worker claims its job itself. So it may be killed at any moment; the next
worker that ends, or the next `oneformer jobs` command, starts another one.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from oneformer.errors import UserError
from oneformer.jobs import slots
from oneformer.jobs.alive import host
from oneformer.jobs.record import ERROR, OPEN, PENDING, Record
from oneformer.jobs.settle import settle
from oneformer.jobs.store import LOG, Store, lock_if_free

LOCK = ".queue.lock"
SHORTEST_S, LONGEST_S = 0.05, 1.0
TRIES = 3
_NOT_NOW = 75


def start_queue(store: Store) -> None:
    """Start the queue of a folder in the background, unless it runs or there is nothing for it to do."""
    if not _has_work(store):
        return
    with lock_if_free(store.root / LOCK) as free:
        if not free:
            return
    with (store.root / ".queue.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-P", "-m", "oneformer.jobs.queue", str(store.root)],
            cwd=store.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _has_work(store: Store) -> bool:
    return any(_ours(record) for record in store.records())


def _ours(record: Record) -> bool:
    """Whether a job of this machine waits or runs."""
    elsewhere = record.run is not None and record.run.process.host != host()
    return record.executor == "local" and record.state in OPEN and not elsewhere


def main(words: Sequence[str]) -> int:
    """Serve the folder, if nobody else does."""
    store = Store(words[0])
    store.tidy()
    while True:
        with lock_if_free(store.root / LOCK) as free:
            if not free:
                return 0
            _Queue(store).serve()
        # A job may have been submitted after the last look and before the lock was free, by somebody who saw it held.
        if not _has_work(store):
            return 0


class _Queue:
    """Workers that were started here, and how often a job's did not come to claim it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.starting: dict[str, subprocess.Popen[bytes]] = {}
        self.workers: list[subprocess.Popen[bytes]] = []
        self.failures: dict[str, int] = {}

    def serve(self) -> None:
        """Until no job of this machine waits or runs."""
        pause = SHORTEST_S
        while True:
            records = self.store.records()
            if not any(_ours(record) for record in records):
                return
            before = [(record.id, record.state) for record in records]
            settle(self.store, records)
            self._reap(records)
            for record in slots.startable(records, starting=self.starting):
                self._start(record)
            after = [(record.id, record.state) for record in self.store.records()]
            pause = SHORTEST_S if after != before or self.starting else min(LONGEST_S, pause * 1.5)
            time.sleep(pause)

    def _start(self, record: Record) -> None:
        folder = self.store.folder(record.id)
        with (folder / LOG).open("ab") as log:
            self.starting[record.id] = subprocess.Popen(
                [sys.executable, "-P", "-m", "oneformer.jobs.worker", str(folder)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _reap(self, records: Sequence[Record]) -> None:
        """Forget workers that have claimed their job or ended; give up on a job whose workers all break down."""
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        states = {record.id: record.state for record in records}
        for job, worker in list(self.starting.items()):
            code = worker.poll()
            if code is None and states.get(job) == PENDING:
                continue
            del self.starting[job]
            if code is None:
                self.workers.append(worker)
            elif code not in (0, _NOT_NOW):
                self._failed(job, code)

    def _failed(self, job: str, code: int) -> None:
        self.failures[job] = self.failures.get(job, 0) + 1

        def give_up(record: Record) -> bool:
            if record.state != PENDING or self.failures[job] < TRIES:
                return False
            record.end(ERROR, f"its worker ended {TRIES} times with {code} before it could begin; see its log")
            return True

        with suppress(UserError):
            self.store.change(job, give_up)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
