"""The name of a job -> its state, log and results, and what can be done about it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from oneformer.errors import UserError
from oneformer.jobs.alive import send
from oneformer.jobs.queue import start_queue
from oneformer.jobs.record import CANCELED, COMPLETE, ENDED, PENDING, RUNNING, UNKNOWN, Record
from oneformer.jobs.settle import settle, state_of
from oneformer.jobs.store import LOG, RESULTS, Store

POLL_S = 0.1


class Job:
    """One job, as it is whenever it is asked.

    Args:
        name: its id, or the beginning of it.
        jobs: the folder of jobs; empty takes that of ONEFORMER_JOBS, else `jobs`.

    Raises:
        UserError: there is no such job.
    """

    def __init__(self, name: str, jobs: str | Path = "") -> None:
        self.store = Store(jobs)
        self.id = self.store.find(name).id

    def __repr__(self) -> str:
        return f"Job({self.id!r}, {str(self.store.root)!r})"

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.store.folder(self.id)

    @property
    def results(self) -> Path:
        """Its results folder; the action's own folder lies in it."""
        return self.folder / RESULTS

    @property
    def record(self) -> Record:
        """All that is known of it."""
        return refreshed(self.store, self.id)

    @property
    def state(self) -> str:
        """PENDING, RUNNING, COMPLETE, ERROR, CANCELED or UNKNOWN."""
        return state_of(self.store, self.record)[0]

    @property
    def message(self) -> str:
        """Why it is in its state; empty where that is plain."""
        return state_of(self.store, self.record)[1]

    @property
    def log(self) -> str:
        """What the action has said so far."""
        with suppress(OSError):
            return (self.folder / LOG).read_text(encoding="utf-8", errors="replace")
        return ""

    def wait(self, timeout_s: float | None = None) -> str:
        """Wait until it has ended, or so long; its state then."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while (state := self.state) not in (*ENDED, UNKNOWN) and (until is None or time.monotonic() < until):
            time.sleep(POLL_S)
        return state

    def follow(self, tell: Callable[[str], object]) -> str:
        """Hand over what the log says, and what is added to it, until the job has ended; its state then."""
        path, done = self.folder / LOG, 0
        while True:
            state = self.state  # before the log is read: what was said before the end is not missed
            with suppress(OSError), path.open("rb") as file:
                file.seek(done)
                said = file.read()
                # A sign of several bytes may be half there.
                text = said.decode("utf-8", "ignore" if state not in ENDED else "replace")
                done += len(text.encode("utf-8")) if state not in ENDED else len(said)
                if text:
                    tell(text)
            if state in (*ENDED, UNKNOWN):
                return state
            time.sleep(POLL_S)

    def cancel(self) -> str:
        """Take it back if it waits, ask its processes to end if it runs; its state then.

        The action gets SIGTERM, and SIGKILL if it has not ended after half a minute.
        """
        from oneformer.jobs.executors import executor_of

        given_up = self.state == UNKNOWN

        def ask(record: Record) -> bool:
            if record.state == PENDING:
                record.end(CANCELED, "it was canceled before it began")
            elif record.state == RUNNING and given_up:
                assert record.run
                record.end(CANCELED, f"it was given up: {record.run.process.host}, which ran it, does not answer")
            elif record.state == RUNNING:
                record.cancel = True
            else:
                return False
            return True

        record = self.store.change(self.id, ask)
        executor_of(record.executor).cancel(record)
        if record.state == RUNNING and record.run and record.run.process.here and record.run.process.runs():
            send(record.run.process.pid, signal.SIGTERM)
        return self.state

    def retry(self) -> None:
        """Let it wait for another run, in the same folder: training goes on from its own last checkpoint.

        Raises:
            UserError: it has not ended, or is complete.
        """
        from oneformer.jobs.executors import executor_of

        def again(record: Record) -> None:
            if record.state == COMPLETE:
                raise UserError("the job is complete: nothing is left to do", where=self.id, hint="submit it anew")
            if record.state not in ENDED:
                raise UserError(f"the job is {record.state}", where=self.id, hint="it can be retried when it has ended")
            record.again()

        record = self.store.change(self.id, again)
        executor_of(record.executor).submit(self.store, record)

    def to_dict(self) -> dict[str, Any]:
        """The record with the state as it can be told from here, and where the files are; no secrets."""
        record = self.record
        state, message = state_of(self.store, record)
        files = {"folder": str(self.folder), "log": str(self.folder / LOG), "results": str(self.results)}
        return {**record.to_dict(), "state": state, "message": message, "files": files}


def refreshed(store: Store, job: str) -> Record:
    """One record, after what is lost was written down and the queue was woken."""
    record = store.read(job)
    if record.state not in ENDED:
        all_refreshed(store)
        record = store.read(job)
    return record


def all_refreshed(store: Store) -> list[Record]:
    """Every record, after what is lost was written down and the queue was woken."""
    records = store.records()
    if any(record.state in (PENDING, RUNNING) for record in records):
        settle(store, records)
        start_queue(store)
        records = store.records()
    return records
