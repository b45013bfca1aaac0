"""What happens in a run -> `status.json`, one JSON line for each event, in TAO's form."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from oneformer.errors import UserError, without_secrets
from oneformer.runs.atomic import plain

State = Literal["STARTED", "RUNNING", "SUCCESS", "FAILURE", "SKIPPED"]
_DURATIONS = ("time_per_epoch", "time_per_step", "eta")
_PROGRESS = ("epoch", "max_epoch", "step", "max_step", *_DURATIONS)


class StatusLog:
    """Appends status lines while a run lasts.

    As a context manager it writes STARTED first, and SUCCESS or FAILURE last, whatever is raised in between; the
    exception itself goes on. Each line reaches the disk at once. When it cannot be written (a full disk), the run goes
    on and one warning is logged.

    Args:
        path: the file; lines of an earlier run stay above.
        action: the verb, named in the first and the last message.
        enabled: False writes nothing: for all processes of a run but the first.
    """

    def __init__(self, path: str | Path, action: str, *, enabled: bool = True) -> None:
        self.path = Path(path)
        self.action = action
        self.enabled = enabled
        self.kpi: dict[str, Any] = {}
        self._warned = False

    def __enter__(self) -> StatusLog:
        self.write("STARTED", f"Starting OneFormer {self.action}.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.write("SUCCESS", f"OneFormer {self.action} finished successfully.")
        else:
            self.write("FAILURE", f"OneFormer {self.action} failed: {_told(error)}", verbosity="ERROR")
        return False

    def running(
        self,
        message: str,
        *,
        kpi: Mapping[str, Any] | None = None,
        progress: Mapping[str, Any] | None = None,
        graphical: Mapping[str, Any] | None = None,
        categorical: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a RUNNING line.

        Args:
            message: what happened.
            kpi: scores; they are repeated on every later line until others replace them.
            progress: any of epoch, max_epoch, step, max_step (numbers), time_per_epoch, time_per_step, eta (seconds).
            graphical: values over an axis, such as a loss.
            categorical: values by name, such as the scores of the classes.
        """
        if kpi is not None:
            self.kpi = dict(kpi)
        extra = {"graphical": dict(graphical or {}), "categorical": dict(categorical or {})}
        self.write("RUNNING", message, extra=_progress(progress or {}) | {k: v for k, v in extra.items() if v})

    def write(
        self, state: State, message: str, *, verbosity: str = "INFO", extra: Mapping[str, Any] | None = None
    ) -> None:
        """Append one line; a fault of the disk is logged once and never raised."""
        if not self.enabled:
            return
        now = datetime.now()
        line: dict[str, Any] = {
            "date": now.strftime("%m/%d/%Y"),
            "time": now.strftime("%H:%M:%S"),
            "status": state,
            "verbosity": verbosity,
            "message": message,
        }
        line |= extra or {}
        if self.kpi:
            line["kpi"] = self.kpi
        try:
            self._append(json.dumps(plain(line), ensure_ascii=False, allow_nan=False) + "\n")
        except OSError as error:
            if not self._warned:
                logging.getLogger(__name__).warning("%s cannot be written: %s", self.path, error.strerror or error)
            self._warned = True

    def _append(self, line: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            if file.tell():
                file.seek(-1, 2)
                if file.read(1) != b"\n":  # a killed run left half a line
                    line = "\n" + line
            file.write(line.encode("utf-8"))
            file.flush()


def _progress(given: Mapping[str, Any]) -> dict[str, Any]:
    unknown = set(given) - set(_PROGRESS)
    assert not unknown, f"no progress fields: {sorted(unknown)}"
    return {k: str(timedelta(seconds=round(float(v)))) if k in _DURATIONS else v for k, v in given.items()}


def _told(error: BaseException) -> str:
    """An exception in words a user understands."""
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted"
    if isinstance(error, UserError):
        return error.message
    return f"{type(error).__name__}: {without_secrets(str(error))}" if str(error) else type(error).__name__
