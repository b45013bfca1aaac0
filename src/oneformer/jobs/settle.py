"""Records that say PENDING or RUNNING -> what is true of them: lost runs and jobs that can never start are ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from oneformer.errors import UserError
from oneformer.jobs import slots
from oneformer.jobs.alive import end
from oneformer.jobs.record import CANCELED, ERROR, OPEN, PENDING, RUNNING, UNKNOWN, Record
from oneformer.jobs.store import ALIVE, PRIVATE, RECORD, Store
from oneformer.jobs.verdict import verdict

SILENT_S = 60.0
"""A worker of another machine that has not touched its file for so long does not answer."""


def settle(store: Store, records: Sequence[Record]) -> None:
    """Write down the end of runs whose worker is gone, their processes ended first, and of jobs held up for good."""
    states = {record.id: record.state for record in records}
    for record in records:
        with suppress(UserError):  # its folder was removed meanwhile
            if record.state == RUNNING and lost(record):
                assert record.run
                # What goes on without its worker could still write results: it ends before its last line is believed.
                end(record.run.token, record.run.process.pid)
                states[record.id] = store.change(record.id, lambda r: _bury(store, r)).state
    for record in records:
        with suppress(UserError):
            if record.executor != "local" and record.state in OPEN and silent(store, record):
                states[record.id] = store.change(record.id, lambda r: _give_up(store, r)).state
    for record in records:  # as they were submitted, so that a chain ends in one go
        why = slots.held_up(record, states) if record.state == PENDING else ""
        if why:
            with suppress(UserError):
                states[record.id] = store.change(record.id, lambda r, why=why: _hold_up(r, why)).state  # type: ignore[misc]


def lost(record: Record) -> bool:
    """Whether the worker of a running job was on this machine and is gone."""
    return record.run is not None and record.run.process.here and not record.run.process.runs()


def _bury(store: Store, record: Record) -> bool:
    if record.state != RUNNING or not lost(record):
        return False
    (store.folder(record.id) / PRIVATE).unlink(missing_ok=True)
    state, message = verdict(record, store.folder(record.id), None)
    record.end(state, message)
    return True


def _give_up(store: Store, record: Record) -> bool:
    from oneformer.jobs.executors import executor_of

    if record.state not in OPEN or not silent(store, record):
        return False
    why = executor_of(record.executor).gone(record)
    if why:
        record.end(ERROR, why)
    return bool(why)


def silent(store: Store, record: Record) -> bool:
    """Whether nothing was written about a job for a while."""
    return time.time() - last_beat(store, record) >= SILENT_S


def last_beat(store: Store, record: Record) -> float:
    """When a job's record or its worker's file was last written, in seconds since 1970."""
    beat = 0.0
    for name in (ALIVE, RECORD):
        with suppress(OSError):
            beat = max(beat, (store.folder(record.id) / name).stat().st_mtime)
    return beat


def _hold_up(record: Record, why: str) -> bool:
    if record.state != PENDING:
        return False
    record.end(CANCELED, why)
    return True


def state_of(store: Store, record: Record) -> tuple[str, str]:
    """The state as it can be told from here, and why: UNKNOWN for a run on a machine that does not answer."""
    if record.state != RUNNING or record.run is None or record.run.process.here:
        return record.state, record.message
    if not silent(store, record):
        return record.state, f"on {record.run.process.host}"
    return UNKNOWN, f"{record.run.process.host}, which runs it, does not answer"
