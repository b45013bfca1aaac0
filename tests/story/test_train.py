"""`oneformer train` as a user types it: files, status lines, exit codes."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from oneformer import cli
from oneformer.model.weights.checkpoint import read_checkpoint
from oneformer.report.curves import read_series
from oneformer.train.module import TrainingModule
from tiny import TinyDataset
from train.small import small_data, words

LENGTH = ("train.num_epochs=2", "train.iters_per_epoch=2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    return small_data(tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="module")
def results(data: TinyDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a training that went well."""
    folder = tmp_path_factory.mktemp("results")
    assert cli.main(["train", *words(data, folder, *LENGTH)]) == cli.DONE
    return folder


def test_the_folder_holds_what_the_contract_says(results: Path) -> None:
    names = {p.name for p in (results / "train").iterdir()}
    events = {n for n in names if n.startswith("events.out.tfevents.")}
    assert len(events) == 1
    assert names - events == {
        "experiment.yaml", "status.json", "metrics.csv", "model_epoch_000_step_00002.pth", "model_epoch_001_step_00004.pth",
        "oneformer_model_latest.pth", "oneformer_model_best.pth",
    }  # fmt: skip


def test_status_lines_go_from_started_to_success_with_kpis_between(results: Path) -> None:
    lines = [json.loads(line) for line in (results / "train" / "status.json").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["STARTED", "RUNNING", "RUNNING", "SUCCESS"]
    assert [line.get("epoch") for line in lines] == [None, 1, 2, None]
    assert {"max_epoch", "time_per_epoch", "eta"} <= set(lines[1])
    assert {"train_loss", "mIoU", "PQ", "AP", "ACC_all", "IoU_disk"} <= set(lines[-1]["kpi"])


def test_the_table_of_numbers_has_steps_and_validations(results: Path) -> None:
    with (results / "train" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["split"], row["step"]) for row in rows] == [
        ("train", "1"), ("train", "2"), ("val", "2"), ("train", "3"), ("train", "4"), ("val", "4"),
    ]  # fmt: skip
    train, val = rows[0], rows[2]
    for name in ("loss", "loss_ce", "loss_mask", "loss_dice", "loss_contrastive", "lr", "grad_norm", "images_per_s"):
        assert float(train[name]) > 0
    assert all(val[name] for name in ("mIoU", "PQ", "AP", "ACC_all", "train_loss"))
    series = read_series(results / "train" / "metrics.csv")
    assert {"loss", "lr", "mIoU", "PQ"} <= set(series)


def test_the_checkpoint_can_be_used_at_once(results: Path) -> None:
    info = read_checkpoint(results / "train" / "oneformer_model_best.pth")
    assert info.labels.names == ("disk", "sky", "box", "ground")
    assert (info.test_min_size, info.test_max_size) == (64, 96)
    assert "PQ" in info.metrics
    assert all(isinstance(v, torch.Tensor) for v in info.state_dict.values())


def test_the_result_can_be_had_as_json(data: TinyDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ("train.num_epochs=1", "train.iters_per_epoch=1")
    assert cli.main(["train", *words(data, tmp_path, *short), "--json"]) == cli.DONE
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert Path(result["checkpoint"]).is_file()
    assert (result["best"]["metric"], result["steps"]) == ("PQ", 1)
    for words_of_the_line in ("epoch 1/1", "step 1/1", "loss", "lr", "images/s", "GiB", "eta"):
        assert words_of_the_line in err
    assert "ightning" not in err


def test_a_plan_is_told_and_nothing_is_made(
    data: TinyDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", *words(data, tmp_path / "none"), "--dry-run"]) == cli.DONE
    out = capsys.readouterr().out
    assert f"would write  {tmp_path}/none/train/metrics.csv" in out
    assert str(data.annotations) in out
    assert not (tmp_path / "none").exists()


def test_a_plan_marks_what_is_not_there(data: TinyDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = [
        "dataset.train.images=/nowhere/images",
        "train.pretrained_backbone=https://host/a.pth",
        "dataset.val.images=",
    ]
    assert cli.main(["train", *words(data, tmp_path, *more), "--dry-run"]) == cli.DONE
    out = capsys.readouterr().out
    marked = [line.split()[2:4] for line in out.splitlines() if line.endswith("(is not there)")]
    assert marked == [["dataset.train.images", "/nowhere/images"]]
    assert "https://host/a.pth" in out and "(not named)" in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("dataset.train.annotations=/nowhere/a.json", "/nowhere/a.json"),
        ("train.freeze=[backbon]", "no part of the network is called 'backbon'"),
        ("train.best_metric=AP", "the instance task is not validated"),
        ("train.pretrained_model={other}", "the backbone here is"),
    ],
)
def test_wrong_requests_end_with_2_and_one_clear_message(
    data: TinyDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, message: str
) -> None:
    torch.save({"conv.weight": torch.ones(2)}, tmp_path / "other.pth")
    more = ["dataset.task_prob_val={semantic: 1.0}", change.format(other=tmp_path / "other.pth")]
    assert cli.main(["train", *words(data, tmp_path, *more)]) == cli.WRONG_REQUEST
    assert message in capsys.readouterr().err
    lines = (tmp_path / "train" / "status.json").read_text().splitlines()
    assert json.loads(lines[-1])["status"] == "FAILURE"
    assert not list((tmp_path / "train").glob("*.pth"))


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(
    data: TinyDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = TrainingModule.training_step

    def interrupted(self: TrainingModule, batch: Any, batch_idx: int) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", interrupted)
    assert cli.main(["train", *words(data, tmp_path)]) == cli.INTERRUPTED
    assert "stopped after step 1; train.resume_training_checkpoint_path=auto goes on" in capsys.readouterr().err
    lines = (tmp_path / "train" / "status.json").read_text().splitlines()
    assert json.loads(lines[-1])["status"] == "FAILURE"
    assert (tmp_path / "train" / "oneformer_model_latest.pth").is_file()


def test_a_used_folder_is_replaced_only_when_asked(
    data: TinyDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ("train.num_epochs=1", "train.iters_per_epoch=1")
    assert cli.main(["train", *words(data, tmp_path, "train.num_epochs=1", "train.iters_per_epoch=2")]) == cli.DONE
    assert cli.main(["train", *words(data, tmp_path, *short)]) == cli.WRONG_REQUEST
    assert "resume_training_checkpoint_path=auto" in capsys.readouterr().err
    assert cli.main(["train", *words(data, tmp_path, *short, "train.overwrite=true")]) == cli.DONE
    assert [p.name for p in (tmp_path / "train").glob("model_*")] == ["model_epoch_000_step_00001.pth"]
    assert len(list((tmp_path / "train").glob("events.*"))) == 1
