"""Training state -> checkpoint files that survive a kill: written whole, linked as latest and best, pruned."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oneformer.errors import CheckpointError, WorkError
from oneformer.model.weights.load import read_torch
from oneformer.runs.atomic import write_atomic
from oneformer.runs.key import writing_key

log = logging.getLogger(__name__)

LATEST = "oneformer_model_latest.pth"
BEST = "oneformer_model_best.pth"
NAME = re.compile(r"model_epoch_(\d{3,})_step_(\d{5,})\.pth")
PARTIAL = ".part"


def checkpoint_name(epoch: int, step: int) -> str:
    """File name for the state after `step` optimiser steps, in the epoch with index `epoch` (from 0, as TAO counts)."""
    return f"model_epoch_{epoch:03d}_step_{step:05d}.pth"


def find_checkpoints(folder: Path) -> list[Path]:
    """The numbered checkpoints of a folder, fewest optimiser steps first."""
    found = [(match, path) for path in folder.glob("model_epoch_*.pth") if (match := NAME.fullmatch(path.name))]
    return [path for match, path in sorted(found, key=lambda item: (int(item[0][2]), int(item[0][1])))]


def plain(value: Any, where: str = "checkpoint") -> Any:
    """The same content in dicts, lists, tuples, numbers, strings and tensors, which `weights_only` loading accepts.

    Tensors are detached, not copied. Anything else is our own mistake.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {plain(k, where): plain(v, f"{where}[{k!r}]") for k, v in value.items()}
    if isinstance(value, list | tuple):
        items = [plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    raise AssertionError(f"{where} is a {type(value).__name__}, which a checkpoint must not hold")


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write `content` to `path` so that the file is there either whole or not at all; encrypted where a key is given.

    Raises:
        WorkError: the disk is full or cannot be written to; whatever was there before is untouched.
    """
    try:
        write_atomic(path, lambda file: torch.save(plain(content), file), key=writing_key())
        _sync_folder(path.parent)
    # torch reports a failed write as a RuntimeError of its zip writer.
    except (WorkError, OSError, RuntimeError) as error:
        cause = error.what if isinstance(error, WorkError) else _first_line(error)
        free = f"{shutil.disk_usage(path.parent).free >> 20} MiB are free there; " if path.parent.is_dir() else ""
        raise WorkError(
            f"the checkpoint cannot be written: {cause}",
            where=str(path),
            hint=f"{free}the checkpoints written before are intact",
        ) from error


def publish(path: Path, name: str, *, as_link: bool) -> None:
    """Let `name` beside `path` stand for it: a relative link, or a file of its own (sharing its blocks where possible).

    Where the file system knows no links the content is copied. The old `name` is replaced in one move.
    """
    part = path.with_name(f".{name}{PARTIAL}")
    part.unlink(missing_ok=True)
    try:
        if as_link:
            part.symlink_to(path.name)
        else:
            os.link(path, part)
    except OSError:
        shutil.copyfile(path, part)
    part.replace(path.with_name(name))
    _sync_folder(path.parent)


def prune(newest: Path, keep: int) -> None:
    """Remove all but `keep` (-1: all) numbered checkpoints, counted back from `newest`, which always stays.

    Files with a higher step, left by a run that was resumed from an older checkpoint, are not touched.
    """
    if keep < 0:
        return
    there = find_checkpoints(newest.parent)
    for path in there[: max(0, there.index(newest) + 1 - max(keep, 1))]:
        path.unlink(missing_ok=True)


def remove_partial(folder: Path) -> None:
    """Remove what an earlier, killed run left half-written."""
    for path in folder.glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)


def read_training_state(path: Path) -> dict[str, Any]:
    """A checkpoint of ours with everything training needs, tensors on the CPU.

    Raises:
        CheckpointError: the file is missing, broken, would run code, or holds weights only.
    """
    if not path.is_file():
        raise CheckpointError("there is no such checkpoint", where=str(path), hint=_beside(path))
    content = read_torch(path)
    needed = ("oneformer", "state_dict", "optimizer_states", "lr_schedulers", "loops")
    missing = [key for key in needed if not isinstance(content, dict) or key not in content]
    if missing or "training" not in content["oneformer"]:
        raise CheckpointError(
            "the file holds no training state to go on from",
            where=str(path),
            hint="to start a new training from its weights set train.pretrained_model instead",
        )
    return dict(content)


def _beside(path: Path) -> str:
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    names = [p.name for p in find_checkpoints(folder)]
    return f"{folder} holds {', '.join(names[-3:]) if names else 'no checkpoint'}"


def _sync_folder(folder: Path) -> None:
    # A rename is only safe from a power cut once the folder itself is on disk. Windows cannot open folders.
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
