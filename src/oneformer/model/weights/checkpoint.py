"""A checkpoint of `oneformer train` -> its weights, its classes, and how images have to be prepared for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from oneformer.data.labels import LabelMap
from oneformer.errors import CheckpointError, UserError
from oneformer.model.quantized import QuantizedWeight
from oneformer.model.weights.describe import describe
from oneformer.model.weights.load import read_torch, real, unwrap
from oneformer.model.weights.pickles import in_memory, located
from oneformer.model.weights.sizes import differences
from oneformer.model.weights.stored import Stored
from oneformer.spec.model import ModelSpec
from oneformer.spec.tree import from_dict

FORMAT = 1
"""Layout of the `oneformer` entry that this version writes and reads."""


@dataclass(frozen=True)
class Aside:
    """Tensors of another layout that go back with the weights when they return to it."""

    layout: str = ""
    """A kind of `found.KINDS`; empty for a checkpoint that was trained here."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Under their own names."""


@dataclass(frozen=True)
class Quantization:
    """The layers of a quantized file, and how they came about."""

    layers: dict[str, QuantizedWeight] = field(default_factory=dict)
    """By the name of the layer."""
    about: dict[str, str] = field(default_factory=dict)
    """Backend, mode and algorithm, for people."""

    def __str__(self) -> str:
        kinds = Counter(f"{w.format} weights{' and inputs' if w.activation else ''}" for w in self.layers.values())
        return ", ".join(f"{kind} in {count} layers" for kind, count in kinds.items())


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
    criterion: dict[str, Tensor] = field(default_factory=dict, repr=False)
    """Learned parameters of the losses, with the prefix `criterion.`."""
    aside: Aside = field(default_factory=Aside, repr=False)
    """Of a converted file: what came with it and has no place in our network."""
    quantized: Quantization = field(default_factory=Quantization, repr=False)
    """Of a quantized file: the layers that compute in few bits; `state_dict` has their weights in float32 too."""


def read_checkpoint(path: str | Path) -> CheckpointInfo:
    """Read a `.pth` of ours; no code in it is run.

    Raises:
        CheckpointError: the file is missing, broken, unsafe, written by a newer version, or no checkpoint of ours.
    """
    with located(Path(path)):
        return opened(read_torch(Path(path)), Path(path))


def opened(content: Any, path: Path) -> CheckpointInfo:
    """The content of a `.pth` -> what it says, checked. Raises CheckpointError as `read_checkpoint` does."""
    about = content.get("oneformer") if isinstance(content, Mapping) else None
    if not isinstance(about, Mapping):
        raise CheckpointError(
            f"this is no checkpoint of `oneformer train`; it seems to hold {describe(unwrap(content))}",
            where=str(path),
            hint=f"a whole model becomes one by: oneformer checkpoint convert {path} model.pth; to start training from"
            " it set train.pretrained_backbone or train.pretrained_model",
        )
    if about.get("format") != FORMAT:
        raise CheckpointError(
            f"the checkpoint has format {about.get('format')}, this version reads format {FORMAT}",
            where=str(path),
            hint="install the version of oneformer that wrote it, or a newer one",
        )
    try:
        quantized = quantization(content, path)
        small = {f"{name}.weight": weight.float() for name, weight in quantized.layers.items()}
        info = read_entry(about, network_state(content, path) | small, where=str(path))
        lies = differences(info.model, info.state_dict)
        if lies:
            raise ValueError(
                "; ".join(f"{key} is {said!r}, the weights say {is_!r}" for key, (said, is_) in lies.items())
            )
        criterion, aside = criterion_state(content, path), aside_of(content, path)
        return replace(info, criterion=criterion, aside=aside, quantized=quantized)
    except CheckpointError:
        raise
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


def network_state(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The tensors named `model.*`, without that prefix; the averaged ones where there are some."""
    state: dict[str, Any] = {}
    for key in ("state_dict", "ema_state_dict"):
        for name, value in (content.get(key) or {}).items():
            if name.startswith("model."):
                state[name.removeprefix("model.")] = real(value)
    return in_memory(state, path)


def criterion_state(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The tensors named `criterion.*`."""
    held = {name: real(v) for name, v in (content.get("state_dict") or {}).items() if name.startswith("criterion.")}
    return in_memory(held, path)


def aside_of(content: Mapping[str, Any], path: Path) -> Aside:
    """What a converted checkpoint keeps for the way back."""
    held = content.get("aside")
    if not isinstance(held, Mapping) or not isinstance(held.get("tensors"), Mapping):
        return Aside()
    return Aside(str(held.get("layout", "")), in_memory({n: real(v) for n, v in held["tensors"].items()}, path))


def quantization(content: Mapping[str, Any], path: Path) -> Quantization:
    """The quantized layers. Raises KeyError, TypeError or ValueError when they are broken."""
    held = content.get("quantized")
    if held is None:
        return Quantization()
    if not isinstance(held, Mapping) or not isinstance(held["layers"], Mapping) or held["format"] != FORMAT:
        raise ValueError("its quantized layers are of another format")
    layers = {}
    for name, entry in held["layers"].items():
        tensors = {key: real(value) for key, value in entry.items() if isinstance(value, Tensor | Stored)}
        layers[str(name)] = QuantizedWeight.from_plain({**entry, **in_memory(tensors, path)})
    return Quantization(layers, {str(key): str(value) for key, value in held["about"].items()})
