"""What is known of one job <-> JSON: what was asked for, its state, and the process that runs it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from oneformer.errors import UserError
from oneformer.jobs.alive import Process

FORMAT = 1
PENDING, RUNNING, COMPLETE, ERROR, CANCELED, UNKNOWN = (
    "PENDING", "RUNNING", "COMPLETE", "ERROR", "CANCELED", "UNKNOWN",
)  # fmt: skip
OPEN = (PENDING, RUNNING)
ENDED = (COMPLETE, ERROR, CANCELED)
"""UNKNOWN is never written: it is what can be said of a run on a machine that does not answer."""


@dataclass
class Run:
    """One run of a job's action."""

    process: Process
    """Its worker, which leads a process group."""
    token: str
    """What the environment of all of its processes carries."""
    gpus: list[str] = field(default_factory=list)
    """GPUs it holds, as CUDA names them."""
    status_from: int = 0
    """Where its lines begin in status.json, in bytes; earlier runs wrote those before."""


@dataclass
class Record:
    """One job."""

    id: str
    action: str
    order: int
    """Nanoseconds since 1970 when it was submitted: earlier ones go first."""
    state: str = PENDING
    message: str = ""
    """Why it is in its state, where that is not plain."""
    parent: str = ""
    """Job whose model it works on; it has to be complete first."""
    after: list[str] = field(default_factory=list)
    """Jobs that have to be complete first."""
    executor: str = "local"
    external: str = ""
    """What the executor's own system calls the job."""
    options: dict[str, str] = field(default_factory=dict)
    """What was said to the executor."""
    gpus: int = 0
    cpus: int = 1
    nodes: int = 1
    """Machines; GPUs and processors are those of each."""
    python: str = ""
    """Interpreter that it was submitted with, for executors that write it into a script."""
    cwd: str = ""
    """Folder it was submitted from, which relative paths of the spec start at."""
    command: list[str] = field(default_factory=list)
    """What to run in place of the action, where the action is none of ours."""
    seal: str = ""
    """That the command is this user's own (`jobs/seal.py`)."""
    named: list[str] = field(default_factory=list)
    """Keys set by overrides: what is filled in does not replace them."""
    checkpoint: str = "best"
    ptm: str = ""
    infer: dict[str, Any] = field(default_factory=dict)
    """Key -> function, beside or in place of the table's."""
    inferred: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Key -> function, value and job it came from, of the last run."""
    cancel: bool = False
    attempt: int = 1
    started: str = ""
    ended: str = ""
    exit_code: int | None = None
    run: Run | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    """State, message, start and end of earlier runs."""

    @property
    def waits_for(self) -> list[str]:
        """Every job that has to be complete first."""
        return list(dict.fromkeys([*filter(None, [self.parent]), *self.after]))

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    def end(self, state: str, message: str = "", *, exit_code: int | None = None) -> None:
        """Note how it ended, now."""
        self.state, self.message, self.exit_code, self.ended = state, message, exit_code, now()

    def again(self) -> None:
        """Make it wait for another run."""
        kept = ("state", "message", "attempt", "started", "ended", "exit_code")
        self.history.append({name: getattr(self, name) for name in kept})
        self.state, self.message, self.started, self.ended = PENDING, "", "", ""
        self.cancel, self.exit_code, self.run, self.external = False, None, None, ""
        self.attempt += 1


def from_dict(stored: Mapping[str, Any], *, where: str) -> Record:
    """The inverse of `Record.to_dict`. Raises UserError for what no version of ours wrote."""
    try:
        found = dict(stored)
        if found.pop("format") != FORMAT:
            raise UserError(f"the record has format {stored['format']}, this version reads {FORMAT}", where=where)
        run = found.pop("run")
        if run is not None:
            run = Run(**{**run, "process": Process(**run["process"])})
        record = Record(**found, run=run)
        if record.state not in (*OPEN, *ENDED):
            raise ValueError(f"there is no state {record.state}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the record of the job is broken: {error}", where=where) from error
    return record


def now() -> str:
    """The time here, to the millisecond, with its zone."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
