"""This machine and the jobs that run on it -> which waiting job may start, on which GPUs."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from oneformer.errors import SpecError, UserError
from oneformer.jobs.alive import host
from oneformer.jobs.record import COMPLETE, ENDED, PENDING, RUNNING, Record

GPUS, CPUS = "ONEFORMER_JOBS_GPUS", "ONEFORMER_JOBS_CPUS"
_DRIVER = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class Slots:
    """What there is to give out."""

    gpus: tuple[str, ...]
    """GPUs as CUDA_VISIBLE_DEVICES names them."""
    cpus: int

    def without(self, running: Iterable[Record]) -> Slots:
        """What is left beside these jobs."""
        taken = {gpu for record in running if record.run for gpu in record.run.gpus}
        used = sum(record.cpus for record in running)
        return Slots(tuple(gpu for gpu in self.gpus if gpu not in taken), self.cpus - used)

    def fit(self, record: Record) -> bool:
        """Whether a job fits in."""
        return record.gpus <= len(self.gpus) and record.cpus <= self.cpus


def machine() -> Slots:
    """The GPUs and processors of this machine, or as many as ONEFORMER_JOBS_GPUS and ONEFORMER_JOBS_CPUS say.

    Raises:
        SpecError: a variable holds no number.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if os.environ.get(GPUS):
        gpus = [str(number) for number in range(_number(GPUS))]
    elif visible is not None:
        gpus = [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    else:
        gpus = [str(number) for number in range(_present())]
    return Slots(tuple(gpus), max(1, _number(CPUS)) if os.environ.get(CPUS) else processors())


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _number(name: str) -> int:
    text = os.environ[name]
    if not text.isdecimal():
        raise SpecError(f"{text!r} is no number of slots", where=f"the variable {name}")
    return int(text)


def _present() -> int:
    """NVIDIA GPUs that the driver tells, without opening them."""
    with suppress(OSError):
        return len(list(_DRIVER.iterdir()))
    return 0


def check_fits(gpus: int, cpus: int) -> None:
    """Raises UserError for a job that this machine could never run."""
    there = machine()
    for kind, asked, has in (("GPUs", gpus, len(there.gpus)), ("processors", cpus, there.cpus)):
        if asked > has:
            raise UserError(f"{asked} {kind} are asked for, this machine has {has}", where="oneformer jobs submit")


def held_up(record: Record, states: dict[str, str]) -> str:
    """Why a job can never start: what it waits for ended otherwise than complete, or is gone. Empty when it may."""
    for job in record.waits_for:
        state = states.get(job, "")
        if not state:
            return f"{job}, which it waits for, is gone"
        if state in ENDED and state != COMPLETE:
            return f"{job}, which it waits for, ended as {state}"
    return ""


def ready(record: Record, states: dict[str, str]) -> bool:
    """Whether everything that it waits for is complete."""
    return all(states.get(job) == COMPLETE for job in record.waits_for)


def startable(records: Sequence[Record], *, starting: Collection[str] = ()) -> Iterator[Record]:
    """The jobs of this machine that may start now, earlier ones first.

    One that does not fit keeps its place: later ones cannot take the kind of slots that it lacks.

    Args:
        records: every job, as they were submitted.
        starting: jobs that are about to run and hold what they need.
    """
    states = {record.id: record.state for record in records}
    local = [record for record in records if record.executor == "local"]
    free = machine().without(on_this_machine(local))
    gpus, cpus = len(free.gpus), free.cpus
    for record in (r for r in local if r.id in starting and r.state == PENDING):
        gpus, cpus = gpus - record.gpus, cpus - record.cpus
    for record in local:
        if record.state != PENDING or record.id in starting or record.cancel or not ready(record, states):
            continue
        if record.gpus <= gpus and record.cpus <= cpus:
            yield record
            gpus, cpus = gpus - record.gpus, cpus - record.cpus
            continue
        gpus = 0 if record.gpus > gpus else gpus
        cpus = 0 if record.cpus > cpus else cpus


def on_this_machine(records: Iterable[Record]) -> list[Record]:
    """The running ones whose worker is here."""
    return [r for r in records if r.state == RUNNING and r.run and r.run.process.host == host()]
