"""Training that runs out of memory: what it says, and that what it says fits does fit."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from oneformer import cli
from oneformer.actions import train_memory
from oneformer.actions.train import rehearse
from oneformer.errors import OutOfMemory, UserError, WorkError, no_memory
from oneformer.runs.limits import address_limit, container_limit, physical
from oneformer.train.memory import asked_bytes, gib, peak_bytes, there_is
from oneformer.train.module import TrainingModule
from oneformer.train.scoring import Scoring
from train.small import small_data, small_spec, words

MIB, GIB = 2**20, 2**30
CUDA = "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 79.10 GiB"
CPU = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 12582912 bytes."


def machine(limit: float, *, base: float, pixel: float, texts: float = 0.0) -> Callable[..., dict[str, Any]]:
    """A stand-in of a trial on a device with `limit` bytes, on which a step takes a line in images and pixels."""

    def run(message: str, *, timeout_s: float) -> dict[str, Any]:
        spec = json.loads(message)
        height, width = spec["dataset"]["augmentation"]["train_crop_size"]
        pixels = spec["dataset"]["train"]["batch_size"] * height * width
        need = base + pixel * pixels * (0.5 if spec["train"]["activation_checkpointing"] else 1.0)
        return {"fits": need <= limit, "limit": limit, "peak": min(need, limit)}

    return run


def advice(monkeypatch: pytest.MonkeyPatch, run: Any, *more: str, stage: str = "training") -> OutOfMemory:
    from oneformer.spec.load import load_spec

    monkeypatch.setattr(train_memory, "_run", run)
    spec = load_spec(None, list(more), action="train")
    return train_memory.advised(OutOfMemory(f"{stage} ran out of memory", where="optimiser step 1"), spec)


def test_the_largest_batch_that_fits_is_told_with_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    run = machine(10 * GIB, base=2 * GIB, pixel=1.5 * GIB / 1024**2)  # 5 images take 9.5 GiB
    said = advice(monkeypatch, run, "dataset.train.batch_size=16")
    assert said.exit_code == 1
    assert said.what == (
        "training ran out of memory; a batch of 16 takes about 26.0 GiB of 10.0 GiB, 1.5 GiB for each image"
    )
    assert said.hint == "dataset.train.batch_size=5 fits: it took 9.5 GiB in a trial"


def test_computing_parts_again_is_offered_where_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    run = machine(10 * GIB, base=2 * GIB, pixel=1.5 * GIB / 1024**2)
    said = advice(monkeypatch, run, "dataset.train.batch_size=8")
    assert said.hint.endswith(", or train.activation_checkpointing=true fits: it took 8.0 GiB in a trial")


def test_of_single_images_the_largest_crop_that_fits_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    run = machine(5 * GIB, base=2 * GIB, pixel=8 * GIB / 1024**2)  # 3/8 of the pixels fit
    said = advice(monkeypatch, run, "dataset.train.batch_size=1", "train_crop_size=[1024,1280]")
    told = re.match(r"dataset\.augmentation\.train_crop_size=\[(\d+),(\d+)\] fits", said.hint)
    assert told is not None
    height, width = int(told[1]), int(told[2])
    step = train_memory.STEP
    assert (height % step, width % step) == (0, 0)
    assert height * width <= 3 / 8 * 1024**2 < (height + step) * (width + step * 2)
    assert "more than 5.0 GiB of 5.0 GiB" in said.what


def test_a_batch_that_does_not_fit_even_with_one_image_takes_a_smaller_crop_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = advice(monkeypatch, machine(5 * GIB, base=2 * GIB, pixel=8 * GIB / 1024**2), "dataset.train.batch_size=2")
    assert re.match(r"dataset.train.batch_size=1 dataset.augmentation.train_crop_size=\[608,608\] fits", said.hint)


def test_where_nothing_fits_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    said = advice(monkeypatch, machine(1 * GIB, base=2 * GIB, pixel=1.0), "dataset.train.batch_size=2")
    assert re.match(r"nothing of \d smaller settings fits: a smaller preset", said.hint)


def test_a_validation_has_a_batch_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(message: str, *, timeout_s: float) -> dict[str, Any]:
        data = json.loads(message)["dataset"]
        assert data["val"]["annotations"] == "val.json"
        return {"fits": data["val"]["batch_size"] <= 3, "limit": GIB, "peak": data["val"]["batch_size"] * 300 * MIB}

    more = ("dataset.val.batch_size=8", "dataset.val.annotations=val.json")
    said = advice(monkeypatch, run, *more, stage="validation")
    assert said.hint.startswith("dataset.val.batch_size=3 fits: it took 0.9 GiB")


def test_trials_that_take_too_long_or_fail_by_themselves_end_with_what_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []

    def slow(message: str, *, timeout_s: float) -> dict[str, Any]:
        seen.append(json.loads(message)["dataset"]["train"]["batch_size"])
        if len(seen) > 1:
            raise TimeoutError("no time is left")
        return {"fits": True, "limit": GIB, "peak": 0.5 * GIB}

    assert advice(monkeypatch, slow, "dataset.train.batch_size=8").hint.startswith("dataset.train.batch_size=4 fits")

    def broken(message: str, *, timeout_s: float) -> dict[str, Any]:
        raise UserError("a trial failed: no driver")

    said = advice(monkeypatch, broken, "dataset.train.batch_size=8")
    assert said.hint.startswith("a smaller preset, dataset.train.batch_size or dataset.augmentation.train_crop_size")


def test_a_trial_is_alone_takes_no_weights_and_counts_as_too_large_when_it_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from oneformer.spec.load import load_spec

    told: dict[str, Any] = {}

    def run(*_: Any, **more: Any) -> subprocess.CompletedProcess[str]:
        told.update(spec=json.loads(more["input"]), env=more["env"])
        return subprocess.CompletedProcess([], -signal.SIGKILL, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("LOCAL_RANK", "3")
    given = ["train.num_gpus=8", "train.gpu_ids=[4,5,6,7,0,1,2,3]", "train.pretrained_model=a.pth", "results_dir=r"]
    trials = train_memory.Trials(load_spec(None, given, action="train"), "training", 1e12)
    assert not trials.fit({"dataset.train.batch_size": 3})
    train = told["spec"]["train"]
    assert (train["num_gpus"], train["gpu_ids"], train["pretrained_model"]) == (1, [4], "")
    assert told["spec"]["dataset"]["train"]["batch_size"] == 3 and "LOCAL_RANK" not in told["env"]


@pytest.mark.parametrize(("text", "size"), [(CUDA, 1.5 * GIB), (CPU, 12 * MIB), ("out of memory", 0)])
def test_what_torch_says_is_understood(text: str, size: float) -> None:
    assert no_memory(RuntimeError(text)) and asked_bytes(RuntimeError(text)) == size


def test_other_faults_are_none_of_memory() -> None:
    assert not any(
        map(no_memory, (RuntimeError("shapes do not match"), ValueError("out of memory"), WorkError("full")))
    )
    assert no_memory(MemoryError()) and no_memory(torch.OutOfMemoryError(CUDA))
    assert no_memory(WorkError(f"process 2 of 2 failed:\n    {CUDA}"))


def test_limits_and_peaks_are_numbers_of_this_machine() -> None:
    cpu = torch.device("cpu")
    ballast = torch.ones(16 * MIB)  # 64 MiB
    assert peak_bytes(cpu) > ballast.nbytes
    assert 0 < there_is(cpu) <= physical()
    assert all(limit >= 0 for limit in (address_limit(), container_limit()))
    assert (gib(3 * GIB), gib(52 * MIB)) == ("3.0 GiB", "52 MiB")


@pytest.mark.parametrize("stage", ["training", "validation"])
def test_a_fit_without_memory_ends_with_what_fits_and_a_failure_in_its_status(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError(CUDA)

    owner, name = (TrainingModule, "training_step") if stage == "training" else (Scoring, "count")
    monkeypatch.setattr(owner, name, failing)
    monkeypatch.setattr(train_memory, "_run", lambda *_, **__: {"fits": True, "limit": 4 * GIB, "peak": 3 * GIB})
    more = ("train.num_epochs=1", "train.iters_per_epoch=1", "dataset.train.batch_size=2", "dataset.val.batch_size=2")
    assert cli.main(["train", *words(small_data(tmp_path), tmp_path, *more)]) == cli.FAILED
    said = capsys.readouterr().err
    key = {"training": "train", "validation": "val"}[stage]
    assert f"{stage} ran out of memory with" in said and "1.5 GiB more asked for" in said
    assert f"hint: dataset.{key}.batch_size=1 fits: it took 3.0 GiB in a trial" in said
    last = json.loads((tmp_path / "train" / "status.json").read_text().splitlines()[-1])
    assert last["status"] == "FAILURE" and f"dataset.{key}.batch_size=1 fits" in last["message"]


def test_a_rehearsal_trains_and_keeps_nothing(tmp_path: Path) -> None:
    rehearse(small_spec(small_data(tmp_path), tmp_path / "results"), 2)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("verb", ["evaluate", "inference"])
def test_other_commands_name_what_takes_less(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError(CUDA)

    monkeypatch.setattr(cli, "_function", lambda _: failing)
    assert cli.main([verb, "preset=nano"]) == cli.FAILED
    said = capsys.readouterr().err
    assert f"hint: {verb}.batch_size=1" in said and "fault of the program" not in said


@pytest.mark.slow
def test_what_is_told_to_fit_does_and_one_more_does_not(tmp_path: Path) -> None:
    """With a real limit on addresses, a real allocator that gives up, and the command again with what it said."""
    data = small_data(tmp_path)
    more = ("train.num_epochs=1", "dataset.augmentation.train_crop_size=[512,512]", "dataset.val.batch_size=1")

    def train(batch: int, name: str) -> subprocess.CompletedProcess[str]:
        given = words(data, tmp_path / name, *more, f"dataset.train.batch_size={batch}")
        limit = int(1.45 * GIB)
        code = f"import resource, sys; resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))\n"
        code += f"from oneformer.cli import main; sys.exit(main(['train', *{given!r}]))"
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    done = train(6, "first")
    told = re.search(r"hint: dataset\.train\.batch_size=(\d) fits", done.stderr)
    assert done.returncode == cli.FAILED and told is not None, done.stderr
    assert "DefaultCPUAllocator" not in done.stderr and "takes about" in done.stderr
    again = train(int(told[1]), "second")
    assert again.returncode == cli.DONE, again.stderr
