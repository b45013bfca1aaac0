"""Cheap things for a job to do, and what they leave behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from oneformer.jobs import Job, create_job
from oneformer.jobs.store import Store


def shell(store: Store, text: str, **wishes: Any) -> Job:
    """A job that runs a line of shell in its own folder of results."""
    return create_job("work", command=["sh", "-c", text], jobs=store.root, **wishes)


def until(true: Callable[[], object], *, seconds: float = 20.0) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
