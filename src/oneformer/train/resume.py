"""`resume_training_checkpoint_path` and the run's folder -> the saved training, checked against the settings."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from typing_extensions import override

from oneformer.errors import CheckpointError, UserError
from oneformer.spec.tree import to_dict
from oneformer.train.checkpoint import BEST, LATEST, find_checkpoints, read_training_state, remove_partial
from oneformer.train.records import CSV_NAME
from oneformer.train.tunable import breaks

if TYPE_CHECKING:
    from oneformer.spec.data import DatasetSpec
    from oneformer.spec.train import TrainSpec

log = logging.getLogger(__name__)

AUTO = "auto"
WATCHED_DATA = (
    "augmentation", "task_prob_train", "min_scale", "max_scale", "pixel_mean", "pixel_std", "task_seq_len",
    "max_seq_len",
)  # fmt: skip
UNWATCHED_TRAIN = (
    "num_gpus", "gpu_ids", "num_nodes", "accelerator", "results_dir", "resume_training_checkpoint_path",
    "pretrained_model", "pretrained_backbone", "overwrite", "verbose", "log_interval", "keep_checkpoints",
    "num_threads", "stop_at_epoch", "checkpoint_interval", "checkpoint_interval_unit", "is_dry_run",
    "distributed_strategy",
)  # fmt: skip


def settings_of(train: TrainSpec, dataset: DatasetSpec) -> dict[str, Any]:
    """The settings that a resumed training should share, by dotted key; no paths and nothing of the machine."""
    data = to_dict(dataset)
    watched = {"batch_size": data["train"]["batch_size"], **{key: data[key] for key in WATCHED_DATA}}
    kept = {key: value for key, value in to_dict(train).items() if key not in UNWATCHED_TRAIN}
    return flat({"train": kept, "dataset": watched})


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries -> dotted keys."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return found


def claim_folder(folder: Path, train: TrainSpec) -> Path | None:
    """The checkpoint to go on from, or None for a new training, for which the folder is then free.

    Nothing is removed here; see `clear_folder`.

    Raises:
        UserError: the folder holds another training, and nothing says what to do about it.
    """
    wanted = train.resume_training_checkpoint_path
    there = find_checkpoints(folder)
    if wanted == AUTO:
        latest = folder / LATEST
        return latest if latest.is_file() else (there[-1] if there else None)
    if wanted:
        path = Path(wanted)
        if not path.is_file():
            near = [p.name for p in find_checkpoints(path.parent)] if path.parent.is_dir() else []
            hint = (
                f"{path.parent} holds {', '.join(near[-3:])}"
                if near
                else "`auto` takes the latest of the results folder"
            )
            raise CheckpointError(
                "there is no such checkpoint", where=f"train.resume_training_checkpoint_path={wanted}", hint=hint
            )
        return path
    if there and not train.overwrite and not train.is_dry_run:
        raise UserError(
            f"the folder already holds {len(there)} checkpoint{'s' if len(there) > 1 else ''} of a training",
            where=str(folder),
            hint="train.resume_training_checkpoint_path=auto goes on with it, train.overwrite=true replaces it, "
            "results_dir=... keeps both",
        )
    return None


def clear_folder(folder: Path) -> None:
    """Remove what an earlier training left, so that its checkpoints and numbers do not mix with the new ones."""
    remove_partial(folder)
    old = [*find_checkpoints(folder), folder / LATEST, folder / BEST, folder / CSV_NAME]
    for path in [*old, *folder.glob("events.out.tfevents.*")]:
        path.unlink(missing_ok=True)


def load_training(path: Path, *, card: Mapping[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
    """The saved training at `path`, after a comparison with what the present one would write about itself.

    Raises:
        CheckpointError: other classes, another network, other frozen parts, or, within an epoch, another division into
            batches; every difference is listed.
    """
    state = read_training_state(path)
    saved = state["oneformer"]
    breaking, tolerable = _differences(saved, card, training)
    place = saved["training"]["place"]
    if place["batches"]:
        now, then = flat(training["batching"]), flat(saved["training"]["batching"])
        breaking += [f"{k}: {_shown(then.get(k))} -> {_shown(now[k])}" for k in now if now[k] != then.get(k)]
    if breaking:
        raise CheckpointError(
            "the checkpoint belongs to another training:\n    " + "\n    ".join(breaking),
            where=str(path),
            hint="restore these settings, or start anew from its weights with train.pretrained_model"
            + ("; a checkpoint from the end of an epoch takes other batches" if place["batches"] else ""),
        )
    for line in tolerable:
        log.warning("changed since the checkpoint was written: %s", line)
    return state


def told(state: Mapping[str, Any], path: Path) -> str:
    """What a resume restores, in one line."""
    saved = state["oneformer"]
    training, place = saved["training"], saved["training"]["place"]
    where = f"epoch {place['epoch'] + 1}" + (f", batch {place['batches']}" if place["batches"] else " finished")
    best = training["best"]
    parts = ["weights", "optimiser", "schedule", "random numbers", "order of the images"]
    parts += ["average of the weights"] if "ema_state_dict" in state else []
    parts += [f"best {best['metric']} {best['value']:.2f}"] if best["value"] is not None else []
    at = f"{path.resolve().name} ({where}, step {place['step']}, {training['elapsed_s']:.0f} s)"
    return f"going on from {at}: restored {', '.join(parts)}"


def _differences(
    saved: Mapping[str, Any], card: Mapping[str, Any], training: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """(what breaks the meaning, what is only worth a warning), as `key: then -> now`."""
    breaking: list[str] = []
    tolerable: list[str] = []
    then = flat({"model": saved["model"], "classes": saved["labels"]}) | saved["training"]["settings"]
    now = flat({"model": card["model"], "classes": card["labels"]}) | training["settings"]
    for key in [*now, *(k for k in then if k not in now)]:
        if then.get(key) == now.get(key):
            continue
        line = f"{key}: {_shown(then.get(key))} -> {_shown(now.get(key))}"
        (breaking if breaks(key) else tolerable).append(line)
    return breaking, tolerable


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class Restored(CheckpointIO):
    """Gives Lightning the training state that has been read and checked already."""

    def __init__(self, state: dict[str, Any] | None) -> None:
        self.state = state

    @override
    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """The state; handed over once, so that its memory is free while training."""
        state, self.state = self.state, None
        assert state is not None
        return state

    @override
    def save_checkpoint(self, *_: Any, **__: Any) -> None:
        """Checkpoints are written by Saver."""
        raise AssertionError("Lightning does not write checkpoints here")

    @override
    def remove_checkpoint(self, path: Any) -> None:
        """Checkpoints are removed by Saver."""
        raise AssertionError("Lightning does not remove checkpoints here")
