"""Whole trainings of seconds: every setting is seen to act, and every way to end leaves a good folder behind."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from oneformer.errors import UserErrors, WorkError
from oneformer.loss.total import Criterion
from oneformer.train.checkpoint import BEST, LATEST, checkpoint_name, find_checkpoints
from oneformer.train.module import TrainingModule
from oneformer.train.saver import Saver
from oneformer.train.scoring import Scoring
from tiny import TinyDataset
from train.small import load, rows, small_data, train_small, unequal

NO_VAL = ("dataset.val.images=''", "dataset.val.annotations=''", "dataset.val.panoptic=''")
ONE = ("train.num_epochs=1", *NO_VAL)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    return small_data(tmp_path_factory.mktemp("fit"))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[TrainingModule]]:
    """Calls of training_step, by the module."""
    seen: list[TrainingModule] = []
    step = TrainingModule.training_step

    def counted(self: TrainingModule, batch: Any, batch_idx: int) -> torch.Tensor:
        seen.append(self)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", counted)
    yield seen


def names(results: Path) -> list[str]:
    return [path.name for path in find_checkpoints(results / "train")]


def status(results: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (results / "train" / "status.json").read_text().splitlines()]


def weights(results: Path, name: str = LATEST) -> dict[str, torch.Tensor]:
    state = load(results / "train" / name)["state_dict"]
    assert isinstance(state, dict)
    return state


def test_learning_rate_and_clipping_act_once_per_optimiser_step(
    data: TinyDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[TrainingModule]
) -> None:
    after: list[float] = []
    clip = TrainingModule.configure_gradient_clipping

    def watched(self: TrainingModule, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> None:
        clip(self, optimizer, *args, **kwargs)
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        after.append(float(torch.nn.utils.get_total_norm(grads)))

    monkeypatch.setattr(TrainingModule, "configure_gradient_clipping", watched)
    more = ("train.accumulate_grad_batches=2", "train.clip_gradients.clip_value=0.5", "train.num_epochs=2", *NO_VAL)
    train_small(data, tmp_path, *more, "train.optim.warmup_iters=0", "train.optim.backbone_multiplier=0.5")
    assert len(steps) == 6  # three batches an epoch, two and one of them to a step
    assert after == pytest.approx([0.5] * 4, rel=1e-4)
    table = rows(tmp_path)
    peak = [1e-3 * (1 - t / 4) ** 0.9 for t in range(4)]
    assert [float(row["lr"]) for row in table] == pytest.approx(peak, rel=1e-4)
    assert [float(row["lr_backbone"]) for row in table] == pytest.approx([lr / 2 for lr in peak], rel=1e-4)
    assert min(float(row["grad_norm"]) for row in table) > 0.5
    assert names(tmp_path) == [checkpoint_name(0, 2), checkpoint_name(1, 4)]


def test_max_iter_ends_the_training_with_a_last_validation(data: TinyDataset, tmp_path: Path) -> None:
    done = train_small(data, tmp_path, "train.optim.max_iter=4", "train.validation_interval=3")
    assert (done.fitted.steps, done.fitted.stopped_by) == (4, "steps")
    assert [row["step"] for row in rows(tmp_path, "val")] == ["4"]
    assert names(tmp_path)[-1] == checkpoint_name(1, 4)
    place = load(tmp_path / "train" / LATEST)["oneformer"]["training"]["place"]
    assert place == {"epoch": 1, "batches": 1, "step": 4}


def test_a_time_limit_ends_training_and_lowers_the_rate_to_its_floor(
    data: TinyDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[TrainingModule]
) -> None:
    """On a machine on which a step takes half a second, whatever it takes here."""
    monkeypatch.setattr("oneformer.train.pace.time", SimpleNamespace(monotonic=lambda: 1000 + len(steps) / 2))
    more = ("train.max_minutes=0.1", "train.num_epochs=1000", "train.optim.lr_scheduler=cosine", *NO_VAL)
    more = (*more, "train.optim.warmup_iters=0", "train.checkpoint_interval=1000")
    done = train_small(data, tmp_path, *more, "train.optim.min_lr_frac=0.1")
    assert (done.fitted.stopped_by, done.fitted.steps, done.fitted.seconds) == ("time", 12, 6.0)
    # A step's rate follows from the time that all processes agreed on, which is that of the step before the last.
    used = [0, 1, *range(1, 11)]
    expected = [1e-3 * (0.1 + 0.9 * (1 + math.cos(math.pi * step / 12)) / 2) for step in used]
    assert [float(row["lr"]) for row in rows(tmp_path)] == pytest.approx(expected, rel=1e-4)
    assert names(tmp_path) == [checkpoint_name(done.fitted.epochs - 1, done.fitted.steps)]


def test_iters_per_epoch_and_validation_settings(data: TinyDataset, tmp_path: Path) -> None:
    train_small(data, tmp_path / "a", "train.iters_per_epoch=1", "train.validation_interval=3")
    assert [row["step"] for row in rows(tmp_path / "a", "val")] == ["3", "4"]
    train_small(data, tmp_path / "b", "train.num_epochs=1", "train.val_check_interval=0.34")
    assert [row["step"] for row in rows(tmp_path / "b", "val")] == ["1", "2", "3"]


def test_a_loss_that_is_no_number_stops_and_keeps_the_step_before(
    data: TinyDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[TrainingModule]
) -> None:
    forward = Criterion.forward

    def broken(self: Criterion, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        losses = forward(self, *args, **kwargs)
        return (
            losses | {"loss": losses["loss"] * math.nan, "loss_dice": losses["loss_dice"] * math.nan}
            if len(steps) == 2
            else losses
        )

    monkeypatch.setattr(Criterion, "forward", broken)
    with pytest.raises(WorkError, match="not a finite number") as error:
        train_small(data, tmp_path, *ONE)
    assert error.value.where.count("scene_00") == 2
    assert names(tmp_path) == [checkpoint_name(0, 1)]
    assert all(bool(torch.isfinite(w).all()) for w in weights(tmp_path).values() if w.is_floating_point())
    assert status(tmp_path)[-1]["status"] == "FAILURE"
    assert "scene_00" in status(tmp_path)[-1]["message"]


def test_an_interrupt_ends_after_the_step_and_can_be_resumed(
    data: TinyDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[TrainingModule]
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    step = TrainingModule.training_step

    def interrupted(self: TrainingModule, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = step(self, batch, batch_idx)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    monkeypatch.setattr(TrainingModule, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt, match="stopped after step 2"):
        train_small(data, tmp_path / "a", *ONE)
    assert signal.getsignal(signal.SIGINT) is handler
    assert names(tmp_path / "a") == [checkpoint_name(0, 2)]
    assert status(tmp_path / "a")[-1]["status"] == "FAILURE"
    train_small(data, tmp_path / "a", *ONE, "train.resume_training_checkpoint_path=auto")
    steps[:] = [steps[0]] * 2
    train_small(data, tmp_path / "b", *ONE)
    assert unequal(weights(tmp_path / "a"), weights(tmp_path / "b")) == []


def test_a_signal_at_the_very_end_of_an_epoch_is_a_stop_too(
    data: TinyDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning has an answer of its own there, which is none to whoever asked: an exit."""
    before = Saver.on_train_epoch_end

    def ended(self: Saver, trainer: Any, pl_module: Any) -> None:
        before(self, trainer, pl_module)
        if trainer.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Saver, "on_train_epoch_end", ended)
    with pytest.raises(KeyboardInterrupt, match="stopped after step 7"):
        train_small(data, tmp_path)
    assert names(tmp_path)[-1] == checkpoint_name(2, 7)


def test_a_full_disk_leaves_the_checkpoints_before_it_whole(
    data: TinyDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = torch.save, []

    def full(content: Any, file: Any) -> None:
        calls.append(content)
        if len(calls) == 2:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        save(content, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(WorkError, match="No space left on device"):
        train_small(data, tmp_path, *NO_VAL)
    assert len(calls) == 2  # it is not tried again on the way out
    assert names(tmp_path) == [checkpoint_name(0, 3)]
    assert load(tmp_path / "train" / LATEST)["global_step"] == 3
    assert not [p.name for p in (tmp_path / "train").iterdir() if p.name.endswith(".part")]
    assert status(tmp_path)[-1]["status"] == "FAILURE"


def test_a_dry_run_trains_one_batch_and_keeps_nothing(
    data: TinyDataset, tmp_path: Path, steps: list[TrainingModule]
) -> None:
    done = train_small(data, tmp_path, "train.is_dry_run=true")
    assert (len(steps), done.fitted.checkpoint) == (1, None)
    assert "PQ" in done.fitted.values
    assert sorted(p.name for p in (tmp_path / "train").iterdir()) == ["experiment.yaml", "status.json"]


def test_few_checkpoints_are_kept_and_the_best_outlives_them(
    data: TinyDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([3.0, 7.0, 5.0, 6.0])
    monkeypatch.setattr(Scoring, "finish", lambda self: {"PQ": next(scores)})
    done = train_small(data, tmp_path, "train.keep_checkpoints=1", "train.iters_per_epoch=1")
    assert names(tmp_path) == [checkpoint_name(3, 4)]
    assert (tmp_path / "train" / LATEST).readlink() == Path(checkpoint_name(3, 4))
    best = load(tmp_path / "train" / BEST)["oneformer"]
    assert (best["step"], best["metrics"]["PQ"], done.fitted.best) == (2, 7.0, 7.0)
    assert done.fitted.checkpoint == tmp_path / "train" / BEST


def test_the_best_within_an_epoch_is_kept_too(
    data: TinyDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([3.0, 7.0, 5.0])
    monkeypatch.setattr(Scoring, "finish", lambda self: {"PQ": next(scores)})
    train_small(data, tmp_path, "train.num_epochs=1", "train.val_check_interval=0.34")
    assert load(tmp_path / "train" / BEST)["oneformer"]["step"] == 2


def test_validation_sees_the_average_and_training_does_not(
    data: TinyDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    start = Scoring.start
    name = "decoder.class_embed.weight"

    def noted(self: Scoring) -> None:
        seen.append(modules[0].model.state_dict()[name].clone())
        start(self)

    modules: list[TrainingModule] = []
    init = TrainingModule.__init__

    def made(self: TrainingModule, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        modules.append(self)

    monkeypatch.setattr(TrainingModule, "__init__", made)
    monkeypatch.setattr(Scoring, "start", noted)
    train_small(data, tmp_path / "with", "train.num_epochs=1", "train.ema.enabled=true", "train.ema.decay=0.5")
    state = load(tmp_path / "with" / "train" / LATEST)
    assert torch.equal(seen[-1], state["ema_state_dict"][f"model.{name}"])
    assert not torch.equal(seen[-1], state["state_dict"][f"model.{name}"])
    monkeypatch.setattr(Scoring, "start", start)
    train_small(data, tmp_path / "without", *ONE)
    assert unequal(state["state_dict"], weights(tmp_path / "without")) == []


def test_one_image_per_step_is_warned_of_once_and_leaves_the_text_branch_alone(
    data: TinyDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train_small(data, tmp_path, *ONE, "dataset.train.batch_size=1")
    assert caplog.text.count("the contrastive loss is exactly 0") == 1
    state = load(tmp_path / "train" / LATEST)
    assert {float(row["loss_contrastive"]) for row in rows(tmp_path)} == {0.0}
    texts = [k for k in state["state_dict"] if k.startswith("model.text.")]
    assert texts
    assert len(state["optimizer_states"][0]["state"]) == len(state["state_dict"]) - len(texts)


def test_frozen_parts_do_not_move(data: TinyDataset, tmp_path: Path) -> None:
    train_small(data, tmp_path, *ONE, "train.freeze=[backbone]", "train.iters_per_epoch=2", "train.num_epochs=2")
    first, last = (weights(tmp_path, name) for name in names(tmp_path))
    moved = {k.split(".")[1] for k in first if k.startswith("model.") and not torch.equal(first[k], last[k])}
    assert moved == {"pixel_decoder", "task", "decoder", "text"}


def test_recomputing_activations_and_loader_processes_change_nothing(data: TinyDataset, tmp_path: Path) -> None:
    train_small(data, tmp_path / "plain", *ONE)
    train_small(data, tmp_path / "other", *ONE, "train.activation_checkpointing=true", "dataset.train.num_workers=2")
    assert unequal(weights(tmp_path / "plain"), weights(tmp_path / "other")) == []


def test_the_seed_decides(data: TinyDataset, tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_small(data, tmp_path / folder, *ONE, "train.iters_per_epoch=1", f"train.seed={seed}")
    assert unequal(weights(tmp_path / "a"), weights(tmp_path / "b")) == []
    assert unequal(weights(tmp_path / "a"), weights(tmp_path / "c")) != []


def test_training_starts_from_pretrained_weights(
    data: TinyDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train_small(data, tmp_path / "a", *ONE, "train.iters_per_epoch=1")
    start = tmp_path / "a" / "train" / LATEST
    with caplog.at_level("INFO", logger="oneformer"):
        more = ("train.iters_per_epoch=1", "train.optim.lr=1e-12", f"train.pretrained_model={start}", "train.seed=9")
        train_small(data, tmp_path / "b", *ONE, *more)
    assert "tensors loaded" in caplog.text
    before, after = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.allclose(before[k], after[k], atol=1e-6) for k in before if k.startswith("model."))


def test_all_faults_of_a_request_are_told_at_once(data: TinyDataset, tmp_path: Path) -> None:
    with pytest.raises(UserErrors) as error:
        train_small(
            data,
            tmp_path,
            "model.sem_seg_head.num_classes=7",
            "train.precision=fp16",
            f"train.pretrained_model={tmp_path}/none.pth",
            "dataset.val.panoptic=/nowhere",
        )
    told = error.value.message
    for words in ("num_classes", "fp16 needs a GPU", "none.pth", "/nowhere"):
        assert words in told
    assert sorted(p.name for p in (tmp_path / "train").iterdir()) == ["status.json"]


def test_checkpoints_hold_no_path_of_this_machine(data: TinyDataset, tmp_path: Path) -> None:
    train_small(data, tmp_path, *ONE, "train.iters_per_epoch=1", "train.ema.enabled=true")
    content = load(tmp_path / "train" / LATEST)

    def texts(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            for key, item in value.items():
                yield from (*texts(key), *texts(item))
        elif isinstance(value, list | tuple):
            for item in value:
                yield from texts(item)

    assert not [text for text in texts(content) if "/" in text]
    assert (content["tao_model"], content["oneformer"]["labels"]["names"]) == (
        "oneformer",
        ["disk", "sky", "box", "ground"],
    )


def test_a_tracker_that_is_not_installed_is_warned_of(
    data: TinyDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    train_small(data, tmp_path, *ONE, "train.iters_per_epoch=1", "wandb.enable=true")
    assert caplog.text.count("wandb is not installed") == 1
