"""A folder of jobs for each test, whose processes are gone when the test ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from oneformer.jobs.alive import PROC
from oneformer.jobs.record import RUNNING
from oneformer.jobs.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty folder of jobs, on a machine of two processors and no GPU."""
    monkeypatch.setenv("ONEFORMER_JOBS_CPUS", "2")
    monkeypatch.setenv("ONEFORMER_JOBS_GPUS", "0")
    monkeypatch.setenv("ONEFORMER_JOBS_GRACE", "0.5")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    store = Store(tmp_path / "jobs")
    yield store
    for pid in processes_of(store):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 10
    while processes_of(store) and time.monotonic() < until:
        time.sleep(0.02)


def processes_of(store: Store) -> list[int]:
    """Queue, workers and actions of a folder of jobs."""
    tokens = [f"ONEFORMER_JOB_RUN={r.run.token}".encode() for r in store.records() if r.run and r.state == RUNNING]
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            ours = b"oneformer.jobs.queue" in words or b"oneformer.jobs.worker" in words
            here = any(word.startswith(str(store.root).encode()) for word in words)
            marked = tokens and set(tokens) & set((entry / "environ").read_bytes().split(b"\0"))
            if (ours and here) or marked:
                found.append(int(entry.name))
    return found
