"""Several processes, however they are started, train as one would; when one is killed the others end and say so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from oneformer.errors import WorkError
from oneformer.train.launch import ranks
from oneformer.train.world import World
from train.small import small_data, words

RUN = Path(__file__).with_name("rank_run.py")
PLAIN = ("model.one_former.dropout=0", "model.backbone.swin.drop_path_rate=0", "train.num_epochs=1")


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(RUN.parents[1]), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def test_two_processes_with_one_image_each_are_one_process_with_two(tmp_path: Path) -> None:
    """As an orchestrator of two machines starts them, on loopback."""
    data = small_data(tmp_path)
    alone = words(data, tmp_path / "one", *PLAIN, "dataset.train.batch_size=2")
    several = words(data, tmp_path / "two", *PLAIN, "dataset.train.batch_size=1")
    started = two_machines(tmp_path, several)
    subprocess.run([sys.executable, str(RUN), str(tmp_path / "single"), *alone], env=environment(), check=True)
    assert [process.communicate(timeout=120) and process.returncode for process in started] == [0, 0]
    expected, *found = (
        torch.load(tmp_path / name / "steps.pt", weights_only=True) for name in ("single", "rank0", "rank1")
    )
    assert [len(steps) for steps in (expected, *found)] == [3, 3, 3]
    # Later steps begin from weights that differ by what the optimiser makes of rounding.
    assert sum(steps[0]["loss"] for steps in found) / 2 == pytest.approx(expected[0]["loss"], rel=1e-5)
    theirs = expected[0]["gradients"]
    whole = torch.cat([value.flatten() for value in theirs.values()])
    for steps in found:
        assert steps[0]["gradients"].keys() == theirs.keys()
        own = torch.cat([steps[0]["gradients"][name].flatten() for name in theirs])
        # Measured 9e-5: an untrained network in float32 makes that much of its rounding.
        assert float((own - whole).norm() / whole.norm()) < 3e-4


def two_machines(folder: Path, overrides: list[str]) -> list[subprocess.Popen[str]]:
    """Both processes, as an orchestrator starts one on each of two machines."""
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [
        subprocess.Popen(
            [sys.executable, str(RUN), str(folder / f"rank{n}"), *overrides],
            env=environment(**meeting, NODE_RANK=str(n)),
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in (0, 1)
    ]


def test_processes_that_draw_different_seeds_are_refused(tmp_path: Path) -> None:
    overrides = words(small_data(tmp_path), tmp_path / "two", *PLAIN, "train.seed=-1")
    for process in two_machines(tmp_path, overrides):
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 1
        assert "the processes have different seeds" in said and "train.seed" in said


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_killed_process_ends_the_first_one_which_names_it() -> None:
    code = "import os,time; print('ready', flush=True); time.sleep(1); os.kill(os.getpid(), 9)"
    start = time.monotonic()
    with (
        pytest.raises(WorkError, match="process 2 of 2 was ended by SIGKILL"),
        ranks([sys.executable, "-c", code], World(per_node=2), message="") as meet,
    ):
        meet()
        while time.monotonic() - start < 60:
            time.sleep(0.05)
    assert time.monotonic() - start < 20


def test_the_others_end_with_the_first_process(tmp_path: Path) -> None:
    inner = (
        "from oneformer.train.launch import _say_ready\nimport os,time\n"
        f"open({str(tmp_path / 'pid')!r},'w').write(str(os.getpid()))\n_say_ready()\ntime.sleep(100)"
    )
    outer = (
        "import sys,time\nfrom oneformer.train.launch import ranks\nfrom oneformer.train.world import World\n"
        f"with ranks([sys.executable,'-c',{inner!r}], World(per_node=2), message='') as meet:\n"
        "    meet(); print('met', flush=True); time.sleep(100)"
    )
    first = subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None and first.stdout.readline() == "met\n"
    pid = int((tmp_path / "pid").read_text())
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").exists() and time.monotonic() < until:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.1)
    assert time.monotonic() < until
