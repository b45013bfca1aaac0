"""Trainings as users start them: by torchrun, and by an orchestrator on two machines (network namespaces)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oneformer.cli import main
from train.several import ended, environment, free_port
from train.small import load, rows, small_data, words

SHORT = ("train.num_epochs=1", "dataset.train.batch_size=1")
ORCHESTRATOR = {"WORLD_SIZE": "2", "NODE_RANK": "1", "NUM_GPU_PER_NODE": "1", "MASTER_ADDR": "10.77.0.1"}


def assert_trained(folder: Path) -> None:
    """Six images over two processes are three steps, and one process told it all."""
    assert [row["step"] for row in rows(folder)] == ["1", "2", "3"]
    assert load(folder / "train" / "oneformer_model_latest.pth")["global_step"] == 3
    status = (folder / "train" / "status.json").read_text(encoding="utf-8")
    assert status.count("STARTED") == status.count("SUCCESS") == 1


@pytest.mark.parametrize(
    ("left_out", "message"),
    [("NODE_RANK", "the variable NODE_RANK is not set"), ("MASTER_ADDR", "the variable MASTER_ADDR is not set")],
)
def test_a_missing_variable_is_a_wrong_request(
    left_out: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in ORCHESTRATOR.items():
        if name != left_out:
            monkeypatch.setenv(name, value)
    assert main(["train", *words(small_data(tmp_path), tmp_path / "run", *SHORT)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_torchrun(tmp_path: Path, strategy: str) -> None:
    overrides = words(small_data(tmp_path), tmp_path / "run", *SHORT, f"train.distributed_strategy={strategy}")
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--master-port={free_port()}", "--nproc-per-node=2"]
    subprocess.run([*launcher, "-m", "oneformer", "train", *overrides], env=environment(), check=True)
    assert_trained(tmp_path / "run")


@pytest.fixture
def machines() -> Iterator[list[str]]:
    """Two network namespaces with a cable between them: 10.77.0.1 and 10.77.0.2 on `cable0` and `cable1`."""
    names = [f"oneformer{os.getpid()}n{n}" for n in (0, 1)]
    if shutil.which("ip") is None or os.geteuid():
        pytest.skip("network namespaces need the command ip and the rights of root")
    if subprocess.run(["ip", "netns", "add", names[0]], check=False, capture_output=True).returncode:
        pytest.skip("network namespaces cannot be made here")
    try:
        ip("netns", "add", names[1])
        ip("link", "add", "cable0", "netns", names[0], "type", "veth", "peer", "name", "cable1", "netns", names[1])
        for n, name in enumerate(names):
            ip("-n", name, "address", "add", f"10.77.0.{n + 1}/24", "dev", f"cable{n}")
            ip("-n", name, "link", "set", f"cable{n}", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.mark.slow
def test_two_machines_with_a_cable_between_them(tmp_path: Path, machines: list[str]) -> None:
    overrides = words(small_data(tmp_path), tmp_path / "run", *SHORT)
    processes = []
    for n, name in enumerate(machines):
        told = {**ORCHESTRATOR, "NODE_RANK": str(n), "MASTER_PORT": "29777", "GLOO_SOCKET_IFNAME": f"cable{n}"}
        command = ["ip", "netns", "exec", name, sys.executable, "-m", "oneformer", "train", *overrides]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, env=environment(**told), stdout=pipe, stderr=pipe, text=True))
    found = ended(processes)
    assert [status for status, *_ in found] == [0, 0], found
    assert_trained(tmp_path / "run")
