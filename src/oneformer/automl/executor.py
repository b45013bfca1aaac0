"""A trial's folder and an epoch -> a training that runs somewhere: the seam to other machines."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from oneformer.automl.worker import GRACE_S, LOG
from oneformer.runs.key import environment as key_environment


class Running(Protocol):
    """A training under way; what it leaves is read from its folder."""

    def over(self) -> bool:
        """Whether it has ended, in whatever way."""

    def stop(self) -> None:
        """Let it save its last step and end; returns when it is gone."""


class Executor(Protocol):
    """A place where trainings run."""

    def start(self, folder: Path, epoch: int) -> Running:
        """Train the spec in `folder` until `epoch` is finished (0: to the end)."""


@dataclass
class LocalProcess:
    """A training in a process of this machine."""

    process: subprocess.Popen[bytes]
    log: IO[bytes]

    def over(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    def stop(self) -> None:
        """Close its standard input, which it takes for the end; kill it when that does not help."""
        if self.process.stdin:
            self.process.stdin.close()
        try:
            self.process.wait(GRACE_S + 5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


@dataclass(frozen=True)
class Local:
    """Processes of this machine, which share its cores."""

    share: int = 1
    """Trainings at a time."""
    program: tuple[str, ...] = (sys.executable, "-m", "oneformer.automl.worker")
    """What is run, with the folder and the epoch as its last words."""

    def start(self, folder: Path, epoch: int) -> LocalProcess:
        """A process; its words go to `log.txt`."""
        environment = {**os.environ, **key_environment()}
        if self.share > 1:  # without a share each, they fight over the cores
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.share)))
        log = (folder / LOG).open("ab")
        process = subprocess.Popen(
            [*self.program, str(folder), str(epoch)],
            stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True,
        )  # fmt: skip
        return LocalProcess(process, log)
