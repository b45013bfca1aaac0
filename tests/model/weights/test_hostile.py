"""Files of strangers: refused with one message and exit code 2, no code run, memory bounded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GROWN_MIB = (
    400  # more than the largest file of the zoo (65 MiB) some times over, and far less than what the files claim
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process with limited memory said to each file."""
    tests = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": str(tests), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(Path(__file__).with_name("zoo.py")), str(tmp_path_factory.mktemp("zoo"))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=env, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_zoo_is_large(told: dict[str, Any]) -> None:
    assert len(told["seen"]) > 90


def test_no_code_is_run_and_nothing_is_written(told: dict[str, Any]) -> None:
    assert [seen["path"] for seen in told["seen"] if seen["ran"]] == []


def test_each_is_refused_with_one_clear_message_and_exit_code_two(told: dict[str, Any]) -> None:
    wrong = []
    for seen in told["seen"]:
        for step in ("inspect", "convert", "load"):
            if step == "inspect" and seen["inspectable"]:
                continue
            answer = seen.get(step, {"code": 0, "err": "it was opened"})
            lines = [line for line in answer["err"].splitlines() if line and not line.startswith("  ")]
            plain = "Traceback" not in answer["err"] and "fault of the program" not in answer["err"]
            named = Path(seen["path"]).name in answer["err"]
            if answer["code"] != 2 or len(lines) != 1 or not plain or not named:
                wrong.append((seen["path"], step, answer))
    assert wrong == [], "\n".join(map(str, wrong))


def test_the_message_says_what_is_wrong(told: dict[str, Any]) -> None:
    wrong = [(s["path"], s["convert"]["err"]) for s in told["seen"] if s["says"] not in s["convert"]["err"]]
    assert wrong == [], "\n".join(map(str, wrong))


def test_memory_stays_that_of_the_files(told: dict[str, Any]) -> None:
    print(f"grown by {told['grown_mib']:.0f} MiB")
    assert told["grown_mib"] < GROWN_MIB
