"""What an executor does -> the one seam between jobs and machines."""

from __future__ import annotations

from typing import Protocol

from oneformer.jobs.record import Record
from oneformer.jobs.store import Store


class Executor(Protocol):
    """Whoever has the machines."""

    def check(self, record: Record) -> None:
        """Raises UserError for a job that it could never run."""

    def submit(self, store: Store, record: Record) -> None:
        """Have a worker started for a pending job when what it waits for is complete and what it needs is free.

        Raises:
            UserError: it does not take the job, which then must not stay pending.
        """

    def cancel(self, record: Record) -> None:
        """Take back what `submit` asked for; a worker that runs is told by others."""
