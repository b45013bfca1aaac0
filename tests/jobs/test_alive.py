"""Processes are told apart by number, start time and boot, and what a run has started is found and ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from oneformer.jobs import alive
from oneformer.jobs.alive import MARK, Process, began, end, members


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    env = {**os.environ, MARK: "abc"}
    process = subprocess.Popen(["sleep", "60"], env=env, start_new_session=True)
    yield process
    process.kill()
    process.wait()


def identity(pid: int) -> Process:
    return replace(Process.this(), pid=pid, began=began(pid))


def test_this_process_runs() -> None:
    assert Process.this().here and Process.this().runs()


def test_a_number_that_was_given_out_again_is_another_process(sleeper: subprocess.Popen[bytes]) -> None:
    known = identity(sleeper.pid)
    assert known.runs()
    assert not replace(known, began=str(int(known.began) - 1)).runs()


def test_nothing_of_an_earlier_boot_runs(sleeper: subprocess.Popen[bytes]) -> None:
    assert not replace(identity(sleeper.pid), boot="before").runs()


def test_what_is_left_of_a_dead_process_does_not_run(sleeper: subprocess.Popen[bytes]) -> None:
    known = identity(sleeper.pid)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # dead, and its number still taken
    assert not known.runs()


def test_a_name_with_brackets_and_blanks_does_not_shift_the_fields(tmp_path: Path) -> None:
    odd = tmp_path / "a) S (1 2"
    odd.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(odd), "30"])
    try:
        assert began(process.pid).isdigit() and int(began(process.pid)) >= int(began(os.getpid()))
    finally:
        process.kill()
        process.wait()


def test_the_marked_processes_are_found_whatever_group_they_are_in(sleeper: subprocess.Popen[bytes]) -> None:
    assert members("abc", 1) == [sleeper.pid]
    assert members("abcd", 1) == [] and members("ab", 1) == []


def test_one_that_does_not_end_when_asked_is_killed() -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    env = {**os.environ, MARK: "deaf"}
    process = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline()
    assert end("deaf", 1, grace_s=0.2) == 1
    assert process.wait(timeout=10) == -9


def test_without_proc_the_same_is_found_with_ps(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(alive, "PROC", tmp_path)
    known = identity(sleeper.pid)
    assert known.began and known.runs()
    assert members("abc", sleeper.pid) == [sleeper.pid]
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not known.runs()
