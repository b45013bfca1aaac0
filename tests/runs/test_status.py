"""status.json: STARTED first, SUCCESS or FAILURE last, whatever happens in between."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from oneformer.errors import DataError, WorkError
from oneformer.runs import StatusLog


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_run_that_ends_well_says_started_and_success(tmp_path: Path) -> None:
    with StatusLog(tmp_path / "status.json", "train") as status:
        status.running("working")
    assert [line["status"] for line in lines_of(status.path)] == ["STARTED", "RUNNING", "SUCCESS"]


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        KeyboardInterrupt("terminated"),
        SystemExit(3),
        MemoryError(),
        RuntimeError("CUDA out of memory"),
        AssertionError(),
        KeyError("a"),
        GeneratorExit(),
        DataError("two masks are missing", where="x.json"),
        WorkError("the loss is NaN"),
    ],
    ids=repr,
)
def test_whatever_is_raised_the_last_line_is_failure_and_the_error_goes_on(
    tmp_path: Path, error: BaseException
) -> None:
    status = StatusLog(tmp_path / "status.json", "train")
    with pytest.raises(type(error)) as caught, status:
        raise error
    assert caught.value is error
    last = lines_of(status.path)[-1]
    assert last["status"] == "FAILURE"
    assert last["message"].startswith("OneFormer train failed: ")
    assert last["message"] != "OneFormer train failed: "


def test_leaving_with_exit_code_zero_is_success(tmp_path: Path) -> None:
    status = StatusLog(tmp_path / "status.json", "train")
    with pytest.raises(SystemExit), status:
        raise SystemExit(0)
    assert lines_of(status.path)[-1]["status"] == "SUCCESS"


def test_every_line_has_taos_fields(tmp_path: Path) -> None:
    with StatusLog(tmp_path / "status.json", "train") as status:
        progress = {"epoch": 1, "max_epoch": 3, "step": 10, "max_step": 30, "time_per_epoch": 61.4, "eta": 3725}
        status.running("epoch", progress=progress, graphical={"loss": 0.5}, categorical={"IoU": {"cat": 0.1}})
    for line in lines_of(status.path):
        assert list(line)[:5] == ["date", "time", "status", "verbosity", "message"]
    middle = lines_of(status.path)[1]
    assert (middle["epoch"], middle["max_epoch"], middle["step"], middle["max_step"]) == (1, 3, 10, 30)
    assert (middle["time_per_epoch"], middle["eta"]) == ("0:01:01", "1:02:05")
    assert middle["graphical"] == {"loss": 0.5}
    assert middle["categorical"] == {"IoU": {"cat": 0.1}}


def test_kpi_stays_on_every_line_until_it_is_replaced(tmp_path: Path) -> None:
    with StatusLog(tmp_path / "status.json", "train") as status:
        status.running("a", kpi={"mIoU": 0.1})
        status.running("b")
        status.running("c", kpi={"PQ": 0.2})
    kpis = [line.get("kpi") for line in lines_of(status.path)]
    assert kpis == [None, {"mIoU": 0.1}, {"mIoU": 0.1}, {"PQ": 0.2}, {"PQ": 0.2}]


def test_numbers_that_json_does_not_know_become_null(tmp_path: Path) -> None:
    import numpy as np

    with StatusLog(tmp_path / "status.json", "train") as status:
        status.running(
            "a", kpi={"nan": float("nan"), "inf": float("inf"), "np": np.float32(0.5), "array": np.arange(2)}
        )
    assert lines_of(status.path)[-1]["kpi"] == {"nan": None, "inf": None, "np": 0.5, "array": [0, 1]}


def test_a_second_run_goes_on_below_the_first(tmp_path: Path) -> None:
    for _ in range(2):
        with StatusLog(tmp_path / "status.json", "train"):
            pass
    assert [line["status"] for line in lines_of(tmp_path / "status.json")] == ["STARTED", "SUCCESS"] * 2


def test_half_a_line_of_a_killed_run_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    path.write_text('{"date": "01/0', encoding="utf-8")
    with StatusLog(path, "train"):
        pass
    whole = path.read_text(encoding="utf-8").splitlines()[1:]
    assert [json.loads(line)["status"] for line in whole] == ["STARTED", "SUCCESS"]


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    with StatusLog(tmp_path / "status.json", "train", enabled=False) as status:
        status.running("a")
    assert not status.path.exists()


def test_a_full_disk_hides_no_error_and_stops_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    status = StatusLog(tmp_path / "status.json", "train")
    monkeypatch.setattr(status, "_append", full)
    with pytest.raises(ValueError, match="the real one"), status:
        status.running("goes on")
        raise ValueError("the real one")


def test_each_line_is_on_disk_when_the_process_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from oneformer.runs import StatusLog\n"
        "with StatusLog(sys.argv[1], 'train') as s:\n"
        "    s.running('last words')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "status.json"
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert [line["message"] for line in lines_of(path)] == ["Starting OneFormer train.", "last words"]
