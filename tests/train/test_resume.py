"""A training that was killed goes on as if nothing had happened, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from oneformer.errors import CheckpointError, UserError
from oneformer.train.checkpoint import LATEST, checkpoint_name
from tiny import TinyDataset
from train.small import load, rows, small_data, train_small, unequal, words

EMA = (
    "train.ema.enabled=true",
    "train.ema.decay=0.9",
    "train.checkpoint_interval_unit=step",
    "train.checkpoint_interval=2",
)
# Dies for good in the middle of its ninth step: no handler runs, nothing is flushed.
KILLED = """
import os, signal, sys
from oneformer.actions.train import run
from oneformer.spec.load import load_spec
from oneformer.train.module import TrainingModule
step = TrainingModule.training_step
def die(self, batch, index):
    loss = step(self, batch, index)
    if self.global_step == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return loss
TrainingModule.training_step = die
run(load_spec(None, sys.argv[1:], action="train"))
"""
LAST = checkpoint_name(3, 12)
TIMES = ("elapsed_s", "images_per_s", "memory_mib")


@dataclass
class Killed:
    data: TinyDataset
    whole: Path
    killed: Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """Four epochs in one go, and the same killed in the middle of the third."""
    folder = tmp_path_factory.mktemp("resume")
    made = Killed(small_data(folder), folder / "whole", folder / "killed")
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, *words(made.data, made.killed, *EMA)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    train_small(made.data, made.whole, *EMA)
    said = child.communicate()[1]
    assert child.returncode == -signal.SIGKILL, said
    return made


def differences(folder: Path, runs: Killed) -> list[str]:
    """Where the last checkpoint of `folder` differs from the one of the unbroken training, times aside."""
    states = [load(path / "train" / LAST) for path in (folder, runs.whole)]
    for state in states:
        state["oneformer"]["training"].pop("elapsed_s")
    return unequal(*states)


def test_the_killed_training_left_whole_checkpoints(runs: Killed) -> None:
    assert (runs.killed / "train" / LATEST).resolve().name == checkpoint_name(2, 8)
    assert load(runs.killed / "train" / LATEST)["oneformer"]["training"]["place"] == {
        "epoch": 2,
        "batches": 2,
        "step": 8,
    }


def test_resuming_at_the_end_of_an_epoch_gives_equal_weights(runs: Killed, tmp_path: Path) -> None:
    start = runs.killed / "train" / checkpoint_name(1, 6)
    train_small(runs.data, tmp_path, *EMA, f"train.resume_training_checkpoint_path={start}")
    assert differences(tmp_path, runs) == []


def test_resuming_within_an_epoch_gives_equal_weights(runs: Killed, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="oneformer"):
        train_small(runs.data, runs.killed, *EMA, "train.resume_training_checkpoint_path=auto")
    assert differences(runs.killed, runs) == []
    assert "going on from model_epoch_002_step_00008.pth (epoch 3, batch 2, step 8" in caplog.text
    table = rows(runs.killed)
    assert [{k: v for k, v in row.items() if k not in TIMES} for row in table] == [
        {k: v for k, v in row.items() if k not in TIMES} for row in rows(runs.whole)
    ]
    assert sorted(float(row["elapsed_s"]) for row in table) == [float(row["elapsed_s"]) for row in table]


def test_a_finished_training_is_not_trained_again(runs: Killed, caplog: pytest.LogCaptureFixture) -> None:
    before = (runs.whole / "train" / LAST).stat().st_mtime_ns
    with caplog.at_level("INFO", logger="oneformer"):
        done = train_small(runs.data, runs.whole, *EMA, "train.resume_training_checkpoint_path=auto")
    assert "already reached its end" in caplog.text
    assert (done.fitted.steps, done.fitted.epochs) == (12, 4)
    assert (runs.whole / "train" / LAST).stat().st_mtime_ns == before


def test_pauses_change_nothing(runs: Killed, tmp_path: Path) -> None:
    """At every epoch the same weights, optimiser, schedule and averages as without a pause; the horizon stays whole."""
    auto = "train.resume_training_checkpoint_path=auto"
    for epoch in (1, 2, 3):
        done = train_small(runs.data, tmp_path, *EMA, auto, f"train.stop_at_epoch={epoch}")
        assert (done.fitted.epochs, done.fitted.steps, done.fitted.stopped_by) == (epoch, 3 * epoch, "stop_at_epoch")
    again = train_small(runs.data, tmp_path, *EMA, auto, "train.stop_at_epoch=3")
    assert (again.fitted.epochs, again.fitted.best) == (3, done.fitted.best)
    done = train_small(runs.data, tmp_path, *EMA, auto)
    assert (done.fitted.epochs, done.fitted.stopped_by) == (4, "")
    assert differences(tmp_path, runs) == []
    assert [float(row["lr"]) for row in rows(tmp_path)] == [float(row["lr"]) for row in rows(runs.whole)]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("model.one_former.num_object_queries=14", "model.one_former.num_object_queries: 12 -> 14"),
        ("train.freeze=[backbone]", "train.freeze: [] -> ['backbone']"),
        ("dataset.train.batch_size=3", "dataset.train.batch_size: 2 -> 3"),
    ],
)
def test_changes_that_break_the_meaning_are_refused_by_name(
    runs: Killed, tmp_path: Path, change: str, named: str
) -> None:
    start = f"train.resume_training_checkpoint_path={runs.whole / 'train' / checkpoint_name(2, 8)}"
    with pytest.raises(CheckpointError) as error:
        train_small(runs.data, tmp_path, *EMA, start, change)
    assert named in error.value.message


def test_other_changes_are_warned_of_and_act(runs: Killed, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    start = f"train.resume_training_checkpoint_path={runs.whole / 'train' / checkpoint_name(2, 8)}"
    changes = ("train.optim.lr=2e-3", "train.optim.weight_decay=0.01", "train.optim.momentum=0.8")
    train_small(runs.data, tmp_path, *EMA, start, *changes)
    assert "changed since the checkpoint was written: train.optim.lr: 0.001 -> 0.002" in caplog.text
    groups = load(tmp_path / "train" / LAST)["optimizer_states"][0]["param_groups"]
    assert {g["weight_decay"] for g in groups} == {0.0, 0.01}
    assert {g["betas"] for g in groups} == {(0.8, 0.999)}
    assert float(rows(tmp_path)[0]["lr"]) == pytest.approx(2 * float(rows(runs.whole)[8]["lr"]))


def test_a_used_folder_is_not_overwritten_unasked(runs: Killed) -> None:
    before = sorted(p.name for p in (runs.whole / "train").iterdir())
    status = (runs.whole / "train" / "status.json").read_bytes()
    with pytest.raises(UserError, match="already holds 6 checkpoints") as error:
        train_small(runs.data, runs.whole)
    assert "train.overwrite=true" in error.value.hint
    assert sorted(p.name for p in (runs.whole / "train").iterdir()) == before
    assert (runs.whole / "train" / "status.json").read_bytes() == status


def test_a_missing_checkpoint_is_named(runs: Killed, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint") as error:
        train_small(
            runs.data,
            tmp_path,
            f"train.resume_training_checkpoint_path={runs.whole}/train/model_epoch_009_step_00099.pth",
        )
    assert LAST in error.value.hint


def test_auto_begins_anew_where_there_is_nothing(runs: Killed, tmp_path: Path) -> None:
    done = train_small(
        runs.data,
        tmp_path,
        "train.resume_training_checkpoint_path=auto",
        "train.num_epochs=1",
        "train.iters_per_epoch=1",
    )
    assert done.fitted.steps == 1
