"""A worker of Ray Train -> one process of a training: started, watched, ended, and what became of it.

Run as a program, this file is that process: its standard input has the spec, and closes when it is to end.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any

from oneformer.errors import UserError, UserErrors, WorkError, without_secrets
from oneformer.runs.atomic import plain, write_json
from oneformer.runs.key import using
from oneformer.runs.parent import end_with_parent
from oneformer.spec.tree import from_dict

if TYPE_CHECKING:
    from oneformer.spec import ExperimentSpec

LOOK_S = 0.5
GRACE_S = 60.0  # for a training to save its last step
PATIENCE_S = 15.0
"""A process whose connection to another one broke waits so long for Ray to find that other one's worker gone."""
SAID = 8
"""Lines of a process that are told when it ends without a word of its own."""


def work(told: Mapping[str, Any]) -> None:
    """What Ray Train runs in each worker: start a process of the training and watch it. Raises where that fails."""
    import ray
    from ray import train
    from ray.train.collective import broadcast_from_rank_zero

    rank, count = train.get_context().get_world_rank(), train.get_context().get_world_size()
    first = broadcast_from_rank_zero([ray.util.get_node_ip_address(), _free_port()] if rank == 0 else None)
    variables = _variables(rank, count, address=first[0], port=first[1])
    with _Process(told, variables) as process:
        while process.runs():
            if ray.get(told["notes"].look.remote([] if rank else process.take())):
                process.end()
            time.sleep(LOOK_S)
        answer = {**process.answer(), "host": socket.gethostname()}
    ray.get([told["notes"].look.remote([] if rank else process.take()), told["notes"].answer.remote(rank, answer)])
    if "faults" in answer:
        _wait_for_others(answer)
        raise RuntimeError(answer["faults"][0]["what"])


def _wait_for_others(answer: Mapping[str, Any]) -> None:
    """Where only a connection broke, another worker is at fault: Ray ends this one when it has found that."""
    from oneformer.train.launch import BROKE

    if all(BROKE in one["what"] for one in answer["faults"]):
        time.sleep(PATIENCE_S)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _variables(rank: int, count: int, *, address: str, port: int) -> dict[str, str]:
    from oneformer.train.world import World

    place = World(nodes=count, per_node=1, node=rank, local=0, address=address, port=port)
    return place.variables(0, port)


class _Process:
    """A process of the training, and what it says. It ends when this is closed."""

    def __init__(self, told: Mapping[str, Any], variables: Mapping[str, str]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name) / "answer.json"
        self.last: deque[str] = deque(maxlen=SAID)
        self.new: deque[str] = deque(maxlen=10_000)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "oneformer.actions.train_worker", str(self.file)],
            cwd=told["cwd"], env={**os.environ, **variables}, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        assert self.process.stdin and self.process.stdout
        self.reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self.reader.start()
        with suppress(BrokenPipeError):  # it has ended already, which is told in its own words
            self.process.stdin.write(json.dumps(told["spec"]) + "\n")
            self.process.stdin.flush()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self.last.append(line.rstrip("\n"))
            self.new.append(line.rstrip("\n"))

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        try:
            self.process.wait(GRACE_S + 5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()

    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def end(self) -> None:
        """Let it save its last step and end."""
        assert self.process.stdin
        with suppress(OSError):
            self.process.stdin.close()

    def take(self) -> list[str]:
        """What it has said since the last call."""
        return [self.new.popleft() for _ in range(len(self.new))]

    def answer(self) -> dict[str, Any]:
        """What became of it."""
        self.reader.join(5)
        with suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8"))
            return found
        from oneformer.train.launch import ended_by

        code = self.process.returncode
        said = "\n    ".join(self.last) or f"it ended with {code} and said nothing"
        return _faulty(WorkError(ended_by(-code) if code < 0 else f"its process failed:\n    {said}"))


def _faulty(*errors: UserError) -> dict[str, Any]:
    told = ({"what": e.what, "where": e.where, "hint": e.hint, "exit_code": e.exit_code} for e in errors)
    return {"faults": list(told)}


def outcome(spec: ExperimentSpec) -> dict[str, Any]:
    """Train as one process of several; what `Notes.answer` takes."""
    from oneformer.actions.train import run

    try:
        with using(spec.encryption_key):
            done = run(spec)
        return {"done": {"told": plain(done.to_dict()), "text": done.table()}}
    except UserErrors as several:
        return _faulty(*several.errors)
    except UserError as error:
        return _faulty(error)
    except KeyboardInterrupt as error:
        return {"interrupted": str(error)}
    except Exception as error:
        import traceback

        traceback.print_exc()
        return _faulty(WorkError(f"{type(error).__name__}: {without_secrets(str(error))}"))


def _ended(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt("stopped")


def main(file: Path) -> None:
    """Train the spec that standard input has as JSON, and write to `file` what became of it."""
    from oneformer.runs.log import set_up_logging
    from oneformer.spec import ExperimentSpec

    signal.signal(signal.SIGTERM, _ended)
    spec = from_dict(ExperimentSpec, json.loads(sys.stdin.readline()))
    end_with_parent(GRACE_S)
    set_up_logging(verbose=spec.train.verbose)
    write_json(file, outcome(spec))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
