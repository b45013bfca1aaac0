"""A Keras ResNet as TensorFlow.js keeps it (model.json and float32 shards) -> tensors under the names of our ResNet."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oneformer.errors import CheckpointError
from oneformer.model.backbones.resnet import EPS

MODEL = "model.json"
LAYER = re.compile(r"(res|bn)([2-5])([a-z])(\d*)_branch(1|2[abc])")
MAX_JSON = 16 << 20  # bytes; ResNet-152's is a tenth of it


def is_keras(folder: Path) -> bool:
    """Whether the folder holds such a model."""
    return (folder / MODEL).is_file()


def read_keras(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors under Keras's names and shapes, and the settings of each layer by its name.

    Raises:
        CheckpointError: the description is no such model, or the shards are missing or of another length than it says.
    """
    where = folder / MODEL
    try:
        if where.stat().st_size > MAX_JSON:
            raise ValueError("too long for a description")
        content = json.loads(where.read_text(encoding="utf-8"))
        groups = content["weightsManifest"]
        layers = content["modelTopology"]["model_config"]["config"]["layers"]
        settings = {str(layer["config"]["name"]): layer["config"] for layer in layers}
        tensors: dict[str, Tensor] = {}
        for group in groups:
            tensors |= read_group(folder, group["paths"], group["weights"])
    except (KeyError, TypeError, ValueError, RecursionError, OSError) as error:
        why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else repr(error)
        raise CheckpointError(
            f"this is no Keras model as TensorFlow.js keeps it: {why}",
            where=str(where),
            hint="copy or download the whole folder again",
        ) from error
    return tensors, settings


def read_group(folder: Path, paths: list[str], weights: list[dict[str, Any]]) -> dict[str, Tensor]:
    """The tensors of one group: they lie one after the other in the shards, as if those were one file."""
    if any(Path(path).name != path for path in paths):
        raise ValueError("a shard lies outside of the folder")
    for entry in weights:
        if entry["dtype"] != "float32" or "quantization" in entry:
            raise ValueError(f"{entry['name']} is not stored as float32")
    counts = [math.prod(int(n) for n in entry["shape"]) for entry in weights]
    size = sum((folder / path).stat().st_size for path in paths)
    if min(counts, default=0) < 0 or size != 4 * sum(counts):
        raise ValueError(f"the shards hold {size} bytes and the tensors {4 * sum(counts)}")
    values = np.frombuffer(b"".join((folder / path).read_bytes() for path in paths), dtype="<f4")
    ends = np.cumsum(counts)[:-1]
    parts = np.split(values, ends)
    return {
        str(entry["name"]): torch.from_numpy(part.reshape(entry["shape"]).astype(np.float32))
        for entry, part in zip(weights, parts, strict=True)
    }


def from_keras(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> tuple[dict[str, Tensor], bool]:
    """Keras's tensors -> ours, and whether the stride lies in the first 1x1 convolution of a stage.

    Kernels (h, w, in, out) become (out, in, h, w). Our convolutions have no bias: it is taken off the running mean of
    the normalisation that follows. Our normalisation has its own epsilon: the running variance carries the difference.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        layer, kind = name.rsplit("/", 1)
        ours = our_layer(layer)
        if kind == "kernel" and tensor.ndim == 4:
            state[f"{ours}.weight"] = tensor.permute(3, 2, 0, 1).contiguous()
        elif kind == "moving_mean":
            bias = tensors.get(f"{conv_before(layer)}/bias", torch.zeros(()))
            state[f"{ours}.running_mean"] = tensor - bias
        elif kind == "moving_variance":
            epsilon = float(settings[layer]["epsilon"])
            state[f"{ours}.running_var"] = tensor + (epsilon - EPS)
        elif kind in ("gamma", "beta"):
            state[f"{ours}.{'weight' if kind == 'gamma' else 'bias'}"] = tensor
    strides = settings.get("res3a_branch2a", {}).get("strides", [1, 1])
    return state, tuple(strides) == (2, 2)


def our_layer(layer: str) -> str:
    """Such as res4b_branch2a -> layer3.1.conv1; other names stay as they are."""
    if layer in ("conv1", "bn_conv1"):
        return {"conv1": "conv1", "bn_conv1": "bn1"}[layer]
    found = LAYER.fullmatch(layer)
    if not found:
        return layer
    kind, stage, letter, number, branch = found.groups()
    block = int(number) if number else ord(letter) - ord("a")
    if branch == "1":
        last = f"downsample.{int(kind == 'bn')}"
    else:
        last = f"{'conv' if kind == 'res' else 'bn'}{'abc'.index(branch[1]) + 1}"
    return f"layer{int(stage) - 1}.{block}.{last}"


def conv_before(layer: str) -> str:
    """The convolution whose output a normalisation takes."""
    return "conv1" if layer == "bn_conv1" else layer.replace("bn", "res", 1)
