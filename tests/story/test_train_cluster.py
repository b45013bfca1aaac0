"""A training by the workers of a Ray cluster: what torchrun gives, the cause named when one is lost, and going on."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oneformer import cli
from oneformer.actions import train_worker
from oneformer.actions.cluster import share
from oneformer.actions.train_cluster import _end_status, _for_worker, cause
from oneformer.actions.train_worker import _Process, _variables, outcome
from oneformer.errors import SpecError, WorkError
from oneformer.runs import StatusLog
from oneformer.train.checkpoint import LATEST, checkpoint_name
from oneformer.train.devices import choose_devices
from oneformer.train.launch import BROKE
from ray_cluster import ray_cluster
from train.several import environment, free_port
from train.small import load, small_data, small_spec, unequal, words

TWO = ("train.num_gpus=2", "dataset.train.batch_size=1")


def faulty(*what: str, where: str = "", exit_code: int = 1) -> dict[str, Any]:
    told = [{"what": one, "where": where, "hint": "", "exit_code": exit_code} for one in what]
    return {"faults": told, "host": "far"}


class Lost(Exception):
    """What Ray Train raises."""

    def __init__(self, *ranks: int) -> None:
        super().__init__("Training failed due to worker errors:\n...")
        self.worker_failures = {rank: RuntimeError("The actor died unexpectedly\nThe actor is dead") for rank in ranks}


@pytest.mark.parametrize(
    ("answers", "lost", "said"),
    [
        ({0: faulty("no images", where="dataset.train", exit_code=2)}, (0,), "dataset.train: no images"),
        ({1: faulty("no GPU")}, (1,), "process 2 of 3 on far: no GPU"),
        ({0: faulty(BROKE), 2: faulty("its process was ended by SIGKILL")}, (0, 2), "process 3 of 3 on far: its process"),
        ({0: faulty(BROKE)}, (0, 1), "worker 2 of 3 is lost: The actor died unexpectedly"),
        ({}, (2,), "worker 3 of 3 is lost"),
        ({0: faulty(BROKE), 1: faulty(BROKE)}, (0, 1), BROKE),
        ({1: faulty("one", "two")}, (1,), "[2/2] process 2 of 3 on far: two"),
        ({}, (), "Ray Train has failed: Training failed due to worker errors:"),
    ],
)  # fmt: skip
def test_of_several_faults_the_one_that_ended_the_others_is_told(answers: Any, lost: Any, said: str) -> None:
    assert said in cause(answers, Lost(*lost), 3).message


def test_a_fault_of_the_request_is_one_here_too() -> None:
    assert cause({1: faulty("no images", exit_code=2)}, Lost(1), 2).exit_code == 2
    assert cause({}, Lost(1), 2).exit_code == 1
    own = SpecError("as it is")
    assert cause({}, own, 2) is own


def test_each_worker_is_a_machine_with_one_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = small_spec(small_data(tmp_path), tmp_path, "train.num_gpus=2", "train.num_nodes=2")
    each, count, _ = share(asked.train, {"CPU": 4.0}, threads=1, key="train")
    assert (each, count) == ({"num_cpus": 1}, 4)
    with pytest.raises(SpecError, match="4 workers of 1 processors are asked for, the cluster has room for 3"):
        share(asked.train, {"CPU": 3.0}, threads=1, key="train")
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in _variables(3, 4, address="10.0.0.1", port=1234).items():
        monkeypatch.setenv(name, value)
    found = choose_devices(_for_worker(asked, 4, gpu=False).train)
    assert (found.world_size, found.world.rank, found.world.address, found.ids) == (4, 3, "10.0.0.1", (0,))


def test_faults_of_the_request_are_told_in_plain_types_and_nothing_of_the_key(tmp_path: Path) -> None:
    spec = small_spec(small_data(tmp_path), tmp_path, f"dataset.train.annotations={tmp_path / 'none.json'}")
    answer = json.loads(json.dumps(outcome(replace(spec, encryption_key="a long walk"))))
    assert str(tmp_path / "none.json") in {fault["where"] for fault in answer["faults"]}
    assert {fault["exit_code"] for fault in answer["faults"]} == {2}
    assert "a long walk" not in str(answer)


def test_a_process_that_dies_is_told_by_its_signal_or_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for code, said in (("os.kill(os.getpid(), 9)", "SIGKILL"), ("sys.exit('no luck')", "no luck")):
        program = tmp_path / "python"
        program.write_text(f"#!{sys.executable}\nimport os, sys\nsys.stdin.readline()\n{code}\n", encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setattr(train_worker.sys, "executable", str(program))
        with _Process({"spec": {}, "cwd": str(tmp_path)}, {}) as process:
            while process.runs():
                time.sleep(0.05)
        monkeypatch.undo()
        assert said in process.answer()["faults"][0]["what"]


def test_the_status_ends_although_the_process_that_writes_it_was_killed(tmp_path: Path) -> None:
    spec = small_spec(small_data(tmp_path), tmp_path)
    log = StatusLog(tmp_path / "train" / "status.json", "train")
    _end_status(spec, WorkError("nothing has begun"))
    assert not log.path.exists()
    log.write("STARTED", "begun")
    for _ in range(2):
        _end_status(spec, WorkError("worker 2 of 2 is lost"))
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [line["status"] for line in lines] == ["STARTED", "FAILURE"] and "worker 2 of 2" in lines[1]["message"]


def test_without_ray_it_is_told_what_to_install_and_a_dry_run_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    given = ["train", "--cluster", "auto", *words(small_data(tmp_path), tmp_path / "run")]
    assert cli.main(given) == cli.WRONG_REQUEST
    assert 'pip install "oneformer[ray]"' in capsys.readouterr().err
    assert cli.main([*given, "--dry-run"]) == cli.DONE
    assert not (tmp_path / "run").exists()


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two processors on this machine."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with ray_cluster(monkeypatch) as module:
        yield module


def trained(data: Any, folder: Path, *more: str) -> int:
    return cli.main(["train", "--cluster", "auto", *words(data, folder, *TWO, *more)])


def assert_equal(one: Path, other: Path) -> None:
    first, second = (load(folder / "train" / LATEST) for folder in (one, other))
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert unequal(first[part], second[part], part) == []


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_workers_give_what_torchrun_does_to_the_last_bit(
    ray: Any, tmp_path: Path, strategy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data, more = small_data(tmp_path), ("train.num_epochs=2", f"train.distributed_strategy={strategy}")
    assert trained(data, tmp_path / "ray", *more) == cli.DONE
    out, err = capsys.readouterr()
    assert "trained: 2 epochs, 6 steps" in out and "2 x cpu" in err and "epoch 2/2 done" in err
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--master-port={free_port()}", "--nproc-per-node=2"]
    overrides = words(data, tmp_path / "torchrun", *TWO, *more)
    subprocess.run([*launcher, "-m", "oneformer", "train", *overrides], env=environment(), check=True)
    assert_equal(tmp_path / "ray", tmp_path / "torchrun")
    assert (tmp_path / "ray" / "train" / "status.json").read_text().count("STARTED") == 1


def when_there(file: Path, action: Any) -> threading.Thread:
    def wait() -> None:
        until = time.monotonic() + 300
        while not file.exists() and time.monotonic() < until:
            time.sleep(0.01)
        action()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def processes(word: bytes) -> list[int]:
    """Those of the cluster or of its trainings whose command line holds a word."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if word in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return sorted(found)


def number_of(pid: int) -> str:
    """RANK of a process of a training."""
    told = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next(one.decode().partition("=")[2] for one in told if one.startswith(b"RANK="))


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "process"])
def test_a_lost_worker_ends_all_by_name_and_the_same_command_goes_on(
    ray: Any, tmp_path: Path, victim: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = small_data(tmp_path)
    kept = ("train.checkpoint_interval=1", "train.checkpoint_interval_unit=step", "train.num_epochs=40")
    began: list[float] = []

    def kill() -> None:
        (pid,) = (pid for pid in processes(b"oneformer.actions.train_worker") if number_of(pid) == "1")
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        began.append(time.monotonic())
        os.kill(parent if victim == "worker" else pid, signal.SIGKILL)

    when_there(tmp_path / "torn" / "train" / checkpoint_name(0, 2), kill)
    assert trained(data, tmp_path / "torn", *kept) == cli.FAILED
    assert time.monotonic() - began[0] < 60
    err = capsys.readouterr().err
    named = "worker 2 of 2 is lost" if victim == "worker" else "process 2 of 2 on "
    assert named in err and (victim == "worker" or "ended by SIGKILL" in err)
    assert json.loads((tmp_path / "torn" / "train" / "status.json").read_text().splitlines()[-1])["status"] == "FAILURE"
    until = time.monotonic() + 70
    while processes(b"oneformer.actions.train_worker") and time.monotonic() < until:
        time.sleep(0.1)
    assert not processes(b"oneformer.actions.train_worker")
    end = ("train.stop_at_epoch=8", "train.resume_training_checkpoint_path=auto")
    assert trained(data, tmp_path / "torn", *kept, *end) == cli.DONE
    assert trained(data, tmp_path / "whole", *kept, *end) == cli.DONE
    assert_equal(tmp_path / "torn", tmp_path / "whole")


@pytest.mark.slow
def test_ctrl_c_ends_all_of_it_to_go_on_with_and_no_secret_is_left_anywhere(
    ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    word = f"a walk {secrets.token_hex(8)}"
    monkeypatch.setenv("ONEFORMER_ENCRYPTION_KEY", word)
    data, folder = small_data(tmp_path), tmp_path / "run" / "train"
    asked: list[float] = []

    def ask() -> None:
        asked.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    when_there(folder / checkpoint_name(0, 3), ask)
    assert trained(data, tmp_path / "run", "train.num_epochs=200", "train.validation_interval=200") == cli.INTERRUPTED
    assert time.monotonic() - asked[0] < 30  # both processes came to the end of one step; none had to be killed
    err = capsys.readouterr().err
    told = re.search(r"stopped after step (\d+); train.resume_training_checkpoint_path=auto goes on", err)
    assert told and list(folder.glob(f"model_epoch_*_step_{int(told[1]):05d}.pth"))
    assert not processes(b"oneformer.actions.train_worker")
    assert json.loads((folder / "status.json").read_text().splitlines()[-1])["status"] == "FAILURE"
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    for file in (*session.rglob("*"), *(tmp_path / "run").rglob("*")):
        if file.is_file() and not file.is_symlink():
            assert word.encode() not in file.read_bytes(), file
