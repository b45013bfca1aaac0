"""A checkpoint of `oneformer train` -> its weights, its classes, and how images have to be prepared for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from oneformer.data.labels import LabelMap
from oneformer.errors import CheckpointError, UserError
from oneformer.model.weights.describe import describe
from oneformer.model.weights.load import read_torch, unwrap
from oneformer.spec.model import ModelSpec
from oneformer.spec.tree import from_dict

FORMAT = 1
"""Layout of the `oneformer` entry that this version writes and reads."""


@dataclass(frozen=True)
class CheckpointInfo:
    """Everything that is needed to use a checkpoint, apart from training on."""

    labels: LabelMap
    model: ModelSpec
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    test_min_size: int
    test_max_size: int
    state_dict: dict[str, Tensor] = field(repr=False)
    """The network's parameters under its own names; averaged ones (EMA) where training kept them."""
    epoch: int = 0
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    version: str = ""


def read_checkpoint(path: str | Path) -> CheckpointInfo:
    """Read a `.pth` of ours; no code in it is run.

    Raises:
        CheckpointError: the file is missing, broken, unsafe, written by a newer version, or no checkpoint of ours.
    """
    path = Path(path)
    content = read_torch(path)
    about = content.get("oneformer") if isinstance(content, Mapping) else None
    if not isinstance(about, Mapping):
        raise CheckpointError(
            f"this is no checkpoint of `oneformer train`; it seems to hold {describe(unwrap(content))}",
            where=str(path),
            hint="to start training from it set train.pretrained_backbone or train.pretrained_model",
        )
    if about.get("format") != FORMAT:
        raise CheckpointError(
            f"the checkpoint has format {about.get('format')}, this version reads format {FORMAT}",
            where=str(path),
            hint="install the version of oneformer that wrote it, or a newer one",
        )
    try:
        return read_entry(about, network_state(content), where=str(path))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint's description is broken: {error!r}", where=str(path)) from error
    except UserError as error:
        raise CheckpointError(f"the checkpoint's description is broken: {error}", where=str(path)) from error


def read_entry(about: Mapping[str, Any], state: dict[str, Tensor], *, where: str) -> CheckpointInfo:
    """The `oneformer` entry of a checkpoint and the network's tensors -> the checked whole."""
    labels = LabelMap.from_dict(about["labels"])
    model = from_dict(ModelSpec, about["model"], where=where)
    if labels.num_classes != model.sem_seg_head.num_classes:
        raise ValueError(f"{labels.num_classes} class names for a network of {model.sem_seg_head.num_classes} classes")
    if not state:
        raise ValueError("no weights")
    data = about["dataset"]
    return CheckpointInfo(
        labels=labels,
        model=model,
        pixel_mean=tuple(float(x) for x in data["pixel_mean"]),
        pixel_std=tuple(float(x) for x in data["pixel_std"]),
        test_min_size=int(data["test_min_size"]),
        test_max_size=int(data["test_max_size"]),
        state_dict=state,
        epoch=int(about.get("epoch", 0)),
        step=int(about.get("step", 0)),
        metrics={str(k): float(v) for k, v in about.get("metrics", {}).items()},
        version=str(about.get("version", "")),
    )


def network_state(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors named `model.*`, without that prefix; the averaged ones where there are some."""
    state: dict[str, Tensor] = {}
    for key in ("state_dict", "ema_state_dict"):
        for name, value in (content.get(key) or {}).items():
            if name.startswith("model."):
                state[name.removeprefix("model.")] = value
    return state
