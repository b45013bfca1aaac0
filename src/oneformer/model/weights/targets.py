"""A checked model -> the content of a checkpoint of ours, or its tensors as SHI-Labs or Hugging Face name them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from oneformer import __version__
from oneformer.errors import CheckpointError
from oneformer.model.weights import hf, shi
from oneformer.model.weights.checkpoint import FORMAT, CheckpointInfo
from oneformer.model.weights.fit import TEXT
from oneformer.model.weights.hf_backbones import BACKBONE
from oneformer.model.weights.hf_config import unable
from oneformer.model.weights.numbers import COUNTS
from oneformer.model.weights.padding import as_published
from oneformer.model.weights.relabel import EMPTY_WEIGHT
from oneformer.model.weights.shi import class_weights, window_indices
from oneformer.model.weights.sizes import TOLD_BY_SHAPES
from oneformer.model.weights.table import Table
from oneformer.spec.model import ModelSpec
from oneformer.spec.tree import to_dict

LOGIT_SCALE = "criterion.logit_scale"
# Kinds of `found.KINDS` whose tensors have the names that a target writes.
SHI_KINDS, HF_KINDS = ("shi", "detectron2"), ("hf", "hf weights")


def ours_content(info: CheckpointInfo) -> dict[str, Any]:
    """What a checkpoint of ours holds, training state apart."""
    content: dict[str, Any] = {
        "tao_model": "oneformer",
        "oneformer": {
            "format": FORMAT,
            "version": __version__,
            "labels": info.labels.to_dict(),
            "model": to_dict(info.model),
            "dataset": {
                "pixel_mean": list(info.pixel_mean),
                "pixel_std": list(info.pixel_std),
                "test_min_size": info.test_min_size,
                "test_max_size": info.test_max_size,
            },
            "epoch": info.epoch,
            "step": info.step,
            "metrics": info.metrics,
        },
        "state_dict": {**{f"model.{name}": tensor for name, tensor in info.state_dict.items()}, **info.criterion},
    }
    if info.quantized.layers:
        layers = {name: weight.to_plain() for name, weight in info.quantized.layers.items()}
        content["quantized"] = {"format": FORMAT, "about": info.quantized.about, "layers": layers}
        for name in layers:
            del content["state_dict"][f"model.{name}.weight"]
    if info.aside.layout:
        content["aside"] = {"layout": info.aside.layout, "tensors": info.aside.tensors}
    return content


def shi_tensors(info: CheckpointInfo) -> dict[str, Tensor]:
    """Under SHI-Labs' names, with the buffers that their files hold. Raises CheckpointError for what they lack."""
    lacking = additions(info.model)
    if info.model.backbone.name not in TOLD_BY_SHAPES:
        lacking.append(f"model.backbone.name is {info.model.backbone.name!r}")
    refuse(lacking, "SHI-Labs' OneFormer")
    info = as_published(info)
    out = renamed(info, shi.TABLE, whose="SHI-Labs' OneFormer")
    return out | extras(info, SHI_KINDS, lambda: window_indices(out))


def hf_tensors(info: CheckpointInfo) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Under the names that transformers saves: for its model file, and what only training needs.

    The text branch would be reported as unexpected by whoever opens the model to use it, so that it lies apart, unless
    the model came from there with its text branch in the model file.

    Raises:
        CheckpointError: their network cannot compute the model.
    """
    refuse(unable(info.model), "Hugging Face's OneFormer")
    info = as_published(info)
    out = renamed(info, hf.TABLE, whose="Hugging Face's OneFormer")
    if text_left_out(info):
        out = {name: tensor for name, tensor in out.items() if not name.startswith(hf.TEXT)}
    apart = {} if info.aside.layout in HF_KINDS else {n: t for n, t in out.items() if n.startswith(hf.TEXT)}
    model = {name: tensor for name, tensor in out.items() if name not in apart}
    return model | extras(info, HF_KINDS, lambda: {**classifier_norm(info.model), **batch_counts(model)}), apart


def classifier_norm(model: ModelSpec) -> dict[str, Tensor]:
    """The last norm of their Swin, which nothing uses here and transformers 5 would miss."""
    if model.backbone.name != "D2SwinTransformer":
        return {}
    channels = model.backbone.swin.embed_dim * 8
    at = f"{BACKBONE}swin.layernorm."
    return {at + "weight": torch.ones(channels), at + "bias": torch.zeros(channels)}


def batch_counts(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The counter of each of their batch norms, which ours lack while they are frozen."""
    names = [name.removesuffix("running_var") for name in tensors if name.endswith("running_var")]
    missing = [name + COUNTS for name in names if name + COUNTS not in tensors]
    return {name: torch.tensor(0) for name in missing}


def additions(model: ModelSpec) -> list[str]:
    """What is switched on here that the published network does not have."""
    found = ["model.sem_seg_head.mask_position is True"] if model.sem_seg_head.mask_position else []
    if model.one_former.position_turns != 1:
        found.append(f"model.one_former.position_turns is {model.one_former.position_turns:g}")
    return found


def refuse(lacking: list[str], whose: str) -> None:
    """Raise CheckpointError when something is lacking there."""
    if lacking:
        raise CheckpointError(
            f"{whose} cannot compute this model: {'; '.join(lacking)}",
            hint="train a model without these for that purpose, or keep it in our format",
        )


def renamed(info: CheckpointInfo, table: Table, *, whose: str) -> dict[str, Tensor]:
    """All parameters under the names of a table."""
    carried = table.to_theirs(info.state_dict | info.criterion)
    refuse([f"it has no place for {name}" for name in list(carried.left)[:5]], whose)
    return carried.state


def extras(
    info: CheckpointInfo, kinds: tuple[str, ...], buffers: Callable[[], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """What such a file holds beside parameters: what it came with, or what is computed from the sizes."""
    former = info.model.one_former
    weights = {EMPTY_WEIGHT: class_weights(info.model.sem_seg_head.num_classes, former.no_object_weight)}
    if info.aside.layout in kinds:  # as it came: with the tensors of the loss, or without them
        return {**(weights if info.criterion else {}), **info.aside.tensors}
    scale = {} if info.criterion else {LOGIT_SCALE: torch.tensor(math.log(1 / former.contrastive_temperature))}
    return {**buffers(), **weights, **scale}


def text_left_out(info: CheckpointInfo) -> bool:
    """Whether Hugging Face's network has no place for the text branch: its learned texts are as wide as its queries."""
    has = any(name.startswith(TEXT) for name in info.state_dict)
    return has and info.model.text_encoder.width != info.model.one_former.hidden_dim
