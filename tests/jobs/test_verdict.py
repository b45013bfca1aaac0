"""What an exit code, status lines and a log say together about a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oneformer.jobs.alive import Process
from oneformer.jobs.record import CANCELED, COMPLETE, ERROR, Record, Run
from oneformer.jobs.verdict import last_words, status_file, verdict


def record(*, cancel: bool = False, status_from: int = 0) -> Record:
    run = Run(Process.this(), "t", [], status_from)
    return Record(id="a", action="train", order=0, state="RUNNING", run=run, cancel=cancel)


def say(folder: Path, *states: str) -> int:
    path = status_file(folder, "train")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for state in states:
            file.write(json.dumps({"status": state, "message": f"said {state}"}) + "\n")
    return path.stat().st_size


@pytest.mark.parametrize(
    ("states", "code", "state", "message"),
    [
        (("STARTED", "SUCCESS"), 0, COMPLETE, ""),
        (("STARTED", "SUCCESS"), None, COMPLETE, ""),  # nobody saw the end, but the action said so itself
        (("STARTED", "SUCCESS"), 1, ERROR, "it ended with exit code 1 and said nothing"),
        (("STARTED", "FAILURE"), 1, ERROR, "said FAILURE"),
        (("STARTED", "FAILURE"), 0, ERROR, "said FAILURE"),
        (("STARTED", "RUNNING"), -9, ERROR, "it was ended by SIGKILL"),
        (("STARTED", "RUNNING"), None, ERROR, "its process was killed from outside"),
        ((), 0, COMPLETE, ""),
        ((), None, ERROR, "its process was killed from outside"),
    ],
)
def test_each_end_has_its_state(
    states: tuple[str, ...], code: int | None, state: str, message: str, tmp_path: Path
) -> None:
    say(tmp_path, *states)
    assert verdict(record(), tmp_path, code) == (state, message)


def test_the_lines_of_an_earlier_run_say_nothing_about_this_one(tmp_path: Path) -> None:
    start = say(tmp_path, "STARTED", "SUCCESS")
    assert verdict(record(status_from=start), tmp_path, None)[0] == ERROR
    say(tmp_path, "STARTED", "SUCCESS")
    assert verdict(record(status_from=start), tmp_path, None)[0] == COMPLETE


def test_half_a_line_is_passed_over(tmp_path: Path) -> None:
    say(tmp_path, "STARTED", "SUCCESS")
    with status_file(tmp_path, "train").open("a") as file:
        file.write('{"status": "FAIL')
    assert verdict(record(), tmp_path, None)[0] == COMPLETE


def test_a_canceled_run_is_canceled_unless_it_was_done_already(tmp_path: Path) -> None:
    say(tmp_path, "STARTED", "FAILURE")
    assert verdict(record(cancel=True), tmp_path, 130)[0] == CANCELED
    say(tmp_path, "SUCCESS")
    assert verdict(record(cancel=True), tmp_path, 0)[0] == COMPLETE


def test_a_restart_of_the_machine_is_told(tmp_path: Path) -> None:
    lost = record()
    assert lost.run
    lost.run.process = Process(lost.run.process.host, "before", 1, "1")
    assert verdict(lost, tmp_path, None) == (ERROR, "the machine was restarted while it ran")


def test_the_last_error_of_the_log_is_the_reason(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("error: old\nwork\nerror: no space left\n  hint: free some\n")
    assert last_words(tmp_path / "log.txt") == "no space left\n  hint: free some"
    assert verdict(record(), tmp_path, 1) == (ERROR, "no space left\n  hint: free some")
