"""Several processes, however they are started, train as one would; when one is killed the others end and say so."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from oneformer.errors import WorkError
from oneformer.train.checkpoint import LATEST, checkpoint_name
from oneformer.train.launch import ranks
from oneformer.train.world import World
from tiny import TinyDataset
from train.several import RUN, as_machines, ended, environment
from train.small import SMALL, load, small_data, unequal, words

PLAIN = ("model.one_former.dropout=0", "model.backbone.swin.drop_path_rate=0", "train.num_epochs=1")
RESNET = ("model.backbone.name=resnet50", "model.backbone.resnet.norm=batch")


def unscored(data: TinyDataset, results: Path, *more: str) -> list[str]:
    """Overrides of a small training in float64 that scores nothing."""
    return ["--float64", *data.overrides("train"), *SMALL, f"results_dir={results}", *PLAIN, *more]


def steps(folder: Path) -> Any:
    return torch.load(folder / "steps.pt", weights_only=True)


def alone(folder: Path, data: TinyDataset, *more: str) -> Any:
    """The steps of one process with two images."""
    overrides = unscored(data, folder / "one", "dataset.train.batch_size=2", *more)
    subprocess.run([sys.executable, str(RUN), str(folder / "single"), *overrides], env=environment(), check=True)
    return steps(folder / "single")


def assert_equal_steps(found: list[Any], expected: Any) -> None:
    """Loss and gradients of each step, also of those that begin from the optimiser's results."""
    assert len(expected) == 3
    for i, step in enumerate(expected):
        assert sum(one[i]["loss"] for one in found) / len(found) == pytest.approx(step["loss"], rel=1e-12)
        whole = torch.cat([value.flatten() for value in step["gradients"].values()])
        for one in found:
            assert one[i]["gradients"].keys() == step["gradients"].keys()
            own = torch.cat([one[i]["gradients"][name].flatten() for name in step["gradients"]])
            # Measured 4e-12 (4e-11 with batch normalisation). An untrained network makes 1e4 times its rounding out of
            # it, which in float32 comes to 9e-5: no bound there could tell rounding from a mistake.
            assert float((own - whole).norm() / whole.norm()) < 1e-9
            assert one[i]["norm"] == pytest.approx(step["norm"], rel=1e-9)


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_two_processes_with_one_image_each_are_one_process_with_two(tmp_path: Path, strategy: str) -> None:
    """As an orchestrator of two machines starts them, on loopback; the network as a copy on each, or split."""
    data = small_data(tmp_path)
    more = ("dataset.train.batch_size=1", f"train.distributed_strategy={strategy}")
    found = as_machines(tmp_path, unscored(data, tmp_path / "two", *more))
    expected = alone(tmp_path, data)
    said = ended(found)
    assert [status for status, *_ in said] == [0, 0], said[0][2]
    assert "Warning" not in said[0][2]
    assert_equal_steps([steps(tmp_path / f"rank{n}") for n in (0, 1)], expected)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_batch_normalisation_is_by_the_images_of_all_processes(tmp_path: Path, strategy: str) -> None:
    data = small_data(tmp_path)
    more = ("dataset.train.batch_size=1", f"train.distributed_strategy={strategy}", *RESNET)
    found = ended(as_machines(tmp_path, unscored(data, tmp_path / "two", *more)))
    assert [status for status, *_ in found] == [0, 0], found[0][2]
    expected = alone(tmp_path, data, *RESNET)
    assert_equal_steps([steps(tmp_path / f"rank{n}") for n in (0, 1)], expected)
    one, two = (load(tmp_path / name / "train" / LATEST)["state_dict"] for name in ("one", "two"))
    for name in one:
        if "running_" in name:
            assert torch.allclose(two[name], one[name], rtol=1e-8), name


@pytest.mark.slow
def test_a_checkpoint_of_split_networks_goes_on_anywhere(tmp_path: Path) -> None:
    """Split for an epoch, then a copy on each process, then one process: as if it had been one process throughout."""
    data = small_data(tmp_path)
    long = ("train.num_epochs=3", "train.ema.enabled=true", "train.accumulate_grad_batches=2")
    alone(tmp_path, data, *long)
    results, auto = tmp_path / "two", "train.resume_training_checkpoint_path=auto"
    for pause, strategy in (("1", "fsdp"), ("2", "ddp")):
        more = (*long, "dataset.train.batch_size=1", f"train.stop_at_epoch={pause}", auto)
        found = ended(as_machines(tmp_path, unscored(data, results, *more, f"train.distributed_strategy={strategy}")))
        assert [status for status, *_ in found] == [0, 0], found[0][2]
    overrides = unscored(data, results, *long, "dataset.train.batch_size=2", auto)
    subprocess.run([sys.executable, str(RUN), str(tmp_path / "end"), *overrides], env=environment(), check=True)
    expected, found_state = (load(tmp_path / name / "train" / LATEST) for name in ("one", "two"))
    assert found_state["global_step"] == expected["global_step"] == 6
    for part in ("state_dict", "ema_state_dict"):
        assert list(found_state[part]) == list(expected[part])
        for name, value in expected[part].items():
            assert torch.allclose(found_state[part][name], value, rtol=1e-5, atol=1e-7), f"{part} {name}"


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_killed_training_of_two_processes_goes_on_as_if_nothing_had_been(tmp_path: Path, strategy: str) -> None:
    data = small_data(tmp_path)
    kept = ("train.checkpoint_interval=1", "train.checkpoint_interval_unit=step", "train.num_epochs=2")
    two = (*kept, "train.num_gpus=2", "dataset.train.batch_size=1", f"train.distributed_strategy={strategy}")
    whole, torn = ([sys.executable, "-m", "oneformer", "train", *words(data, tmp_path / n, *two)] for n in "ab")
    subprocess.run(whole, env=environment(), check=True)
    process = subprocess.Popen(torn, env=environment(), stderr=subprocess.PIPE, text=True)
    second = tmp_path / "b" / "train" / checkpoint_name(0, 2)
    while not second.exists():
        assert process.poll() is None
        time.sleep(0.01)
    start = time.monotonic()
    other = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    subprocess.run(["kill", "-KILL", other[0]], check=True)
    said = process.communicate(timeout=100)[1]
    assert process.returncode == 1 and time.monotonic() - start < 60
    assert "process 2 of 2 was ended by SIGKILL" in said
    assert "process 2 of 2 was ended by SIGKILL" in (tmp_path / "b" / "train" / "status.json").read_text()
    subprocess.run([*torn, "train.resume_training_checkpoint_path=auto"], env=environment(), check=True)
    one, other_state = (load(tmp_path / n / "train" / LATEST) for n in "ab")
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert unequal(one[part], other_state[part], part) == []


def test_all_processes_stop_after_the_same_step_when_one_is_told_to_end(tmp_path: Path) -> None:
    kept = ("train.checkpoint_interval=1", "train.checkpoint_interval_unit=step", "train.num_epochs=200")
    processes = as_machines(tmp_path, unscored(small_data(tmp_path), tmp_path / "two", *kept))
    while not (tmp_path / "two" / "train" / checkpoint_name(0, 2)).exists():
        assert processes[0].poll() is None
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    told = [text for *_, text in ended(processes, within_s=60)]
    said = [re.findall(r"stopped after step (\d+)", text) for text in told]
    step = load(tmp_path / "two" / "train" / LATEST)["global_step"]
    assert said == [[str(step)]] * 2, told


def test_processes_that_draw_different_seeds_are_refused(tmp_path: Path) -> None:
    overrides = words(small_data(tmp_path), tmp_path / "two", *PLAIN, "train.seed=-1")
    for status, _, said in ended(as_machines(tmp_path, overrides)):
        assert status == 1
        assert "the processes have different seeds" in said and "train.seed" in said


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


def test_a_process_that_is_lost_is_waited_for_so_that_it_can_be_named() -> None:
    code = "import os,time; print('ready', flush=True); time.sleep(2); os.kill(os.getpid(), 9)"
    with (
        pytest.raises(WorkError, match="process 2 of 2 was ended by SIGKILL"),
        ranks([sys.executable, "-c", code], World(per_node=2), message="") as meet,
    ):
        meet()
        raise RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error [::1]:5: Connection reset by peer")


def test_a_process_of_another_machine_that_is_lost_is_told_in_words() -> None:
    place = World(nodes=2, node=1, address="127.0.0.1", port=1)
    with (
        pytest.raises(WorkError, match="the connection to another process of this run broke"),
        ranks([], place, message="") as meet,
    ):
        meet()
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.0.0.1]:4000")


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
