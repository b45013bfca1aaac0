"""A process of some machine -> whether it still runs; a mark in the environment -> the processes that carry it.

A process number alone names nothing: numbers are given out again, and after a restart of the machine all of them are.
Number, start time and boot of the machine together name one process for good.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MARK = "ONEFORMER_JOB_RUN"
"""Variable that every process of a run inherits, whatever session or group it moves to."""
PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One process, told apart from every other one that has had or will have its number."""

    host: str
    boot: str
    pid: int
    began: str

    @classmethod
    def this(cls) -> Process:
        """The process that asks."""
        return cls(host(), boot(), os.getpid(), began(os.getpid()))

    @property
    def here(self) -> bool:
        """Whether it belongs to this machine, now or before a restart."""
        return self.host == host()

    def runs(self) -> bool:
        """Whether it still runs; only to be asked where `here` is true."""
        return self.boot == boot() and self.began != "" and self.began == began(self.pid)


def host() -> str:
    """The name of this machine."""
    return socket.gethostname()


@cache
def boot() -> str:
    """What changes with each start of this machine."""
    with suppress(OSError):
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    return _told(["sysctl", "-n", "kern.boottime"])


def began(pid: int) -> str:
    """When a process was started, in the machine's own count; empty when there is none, or only its remains."""
    if (PROC / "self").exists():
        try:
            # The name in brackets may hold anything, brackets and blanks included: count from behind the last one.
            fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] in "ZX" else fields[19]
    said = _told(["ps", "-o", "stat=,lstart=", "-p", str(pid)])
    return "" if said.startswith("Z") else said.partition(" ")[2].strip()


def _told(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def members(token: str, group: int) -> list[int]:
    """Processes of this machine that carry the token in `MARK`.

    Without /proc it is those of the process group that a worker leads, which misses any that have left it.
    """
    if not (PROC / "self").exists():
        rows = [line.split() for line in _told(["ps", "-axo", "pid=,pgid="]).splitlines()]
        return [int(pid) for pid, of in rows if int(of) == group]
    wanted = f"{MARK}={token}".encode()
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended meanwhile, or belongs to somebody else
                if wanted in (entry / "environ").read_bytes().split(b"\0") and began(int(entry.name)):
                    found.append(int(entry.name))
    return found


def end(token: str, group: int, *, but: Collection[int] = (), grace_s: float = 5.0) -> int:
    """Ask the processes that carry the token to end, kill those that do not within `grace_s`; how many there were."""
    seen: set[int] = set()
    until = time.monotonic() + grace_s
    while left := [pid for pid in members(token, group) if pid not in but]:
        late = time.monotonic() >= until
        for pid in left:
            if pid not in seen or late:
                send(pid, signal.SIGKILL if late else signal.SIGTERM)
        seen.update(left)
        time.sleep(0.05)
    return len(seen)


def send(pid: int, number: signal.Signals) -> None:
    """A signal to a process that may have ended meanwhile."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
