"""A pending job -> a process of this machine, when enough of its GPUs and processors are free."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from oneformer.jobs.executors.base import check_one_machine
from oneformer.jobs.queue import start_queue
from oneformer.jobs.record import Record
from oneformer.jobs.slots import check_fits
from oneformer.jobs.store import Store


class Local:
    """The queue of the folder of jobs."""

    options: Mapping[str, str] = MappingProxyType({})
    chains = True

    def check(self, store: Store, record: Record) -> None:  # noqa: ARG002 - as the seam says
        """Raises UserError when this machine has less than the job needs."""
        check_one_machine(record)
        check_fits(record.gpus, record.cpus)

    def submit(self, store: Store, record: Record) -> None:  # noqa: ARG002 - the queue finds it in the store
        """Wake the queue."""
        start_queue(store)

    def gone(self, record: Record) -> str:  # noqa: ARG002 - as the seam says
        """Nothing: the queue looks after its jobs itself."""
        return ""

    def cancel(self, record: Record) -> None:
        """Nothing: a job that is not pending is not started."""
