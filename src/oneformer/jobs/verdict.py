"""An ended run's exit code, status lines and log -> the state of its job, and why."""

from __future__ import annotations

import json
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from oneformer.jobs import search
from oneformer.jobs.record import CANCELED, COMPLETE, ERROR, Record
from oneformer.jobs.store import LOG, RESULTS

_TAIL = 64 * 1024


def status_file(folder: Path, action: str) -> Path:
    """Where the job's action writes its status lines."""
    return (search.folder_of(folder) if search.is_search(folder, action) else folder / RESULTS / action) / "status.json"


def size(path: Path) -> int:
    """Bytes of a file; 0 when there is none."""
    with suppress(OSError):
        return path.stat().st_size
    return 0


def last_status(path: Path, start: int = 0) -> dict[str, Any]:
    """The last whole status line behind `start` bytes; empty when there is none."""
    with suppress(OSError):
        with path.open("rb") as file:
            file.seek(max(start, size(path) - _TAIL))
            lines = file.read().splitlines()
        for line in reversed(lines):
            with suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict) and "status" in found:
                    return found
    return {}


def verdict(record: Record, folder: Path, code: int | None) -> tuple[str, str]:
    """State and message of a run that is over.

    Args:
        record: its job.
        folder: where it lies.
        code: the action's exit code, negative for a signal; None when nobody was there to see it.
    """
    start = record.run.status_from if record.run else 0
    said = last_status(status_file(folder, record.action), start)
    succeeded, failed = said.get("status") == "SUCCESS", said.get("status") == "FAILURE"
    if code is None and search.is_search(folder, record.action) and not search.handed_over(folder):
        succeeded = False  # lost between its end and the handing over of its best, which another run makes good
    if succeeded and code in (0, None):
        return COMPLETE, ""
    if record.cancel:
        return CANCELED, "it was canceled while it ran"
    if code == 0 and not failed:
        return COMPLETE, ""
    if failed:
        return ERROR, str(said.get("message", ""))
    if code is None:
        return ERROR, _lost(record)
    return ERROR, last_words(folder / LOG) or _told(code)


def _lost(record: Record) -> str:
    from oneformer.jobs.alive import boot

    if record.run and record.run.process.boot != boot():
        return "the machine was restarted while it ran"
    return "its process was killed from outside"


def _told(code: int) -> str:
    if code >= 0:
        return f"it ended with exit code {code} and said nothing"
    with suppress(ValueError):
        return f"it was ended by {signal.Signals(-code).name}"
    return f"it was ended by signal {-code}"


def last_words(log: Path) -> str:
    """The last error that the log tells, hint included; empty without one."""
    with suppress(OSError):
        with log.open("rb") as file:
            file.seek(max(0, size(log) - _TAIL))
            lines = file.read().decode("utf-8", "replace").splitlines()
        starts = [number for number, line in enumerate(lines) if line.startswith("error: ")]
        if starts:
            return "\n".join(lines[starts[-1] :]).removeprefix("error: ").strip()[:2000]
    return ""
