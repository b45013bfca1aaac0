"""A weight file or folder of anybody -> what kind it is, its tensors under our names, and what it says of itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from oneformer.data.labels import LabelMap
from oneformer.errors import CheckpointError
from oneformer.model.weights.checkpoint import CheckpointInfo, opened
from oneformer.model.weights.describe import describe
from oneformer.model.weights.hf import read_hf
from oneformer.model.weights.hf_folder import is_hf, read_hf_folder
from oneformer.model.weights.load import beside, read_content, unwrap
from oneformer.model.weights.omega import plain_settings
from oneformer.model.weights.pickles import in_memory, located
from oneformer.model.weights.shi import MASK2FORMER, read_shi
from oneformer.model.weights.sizes import heads_of
from oneformer.spec.tree import leaves, to_dict

# Kind -> what a user calls it.
KINDS: dict[str, str] = {
    "ours": "a checkpoint of ours",
    "bare": "weights of ours without their description",
    "hf": "a Hugging Face folder of a OneFormer",
    "hf weights": "weights of a Hugging Face OneFormer without their folder",
    "shi": "a OneFormer of SHI-Labs",
    "detectron2": "a OneFormer of SHI-Labs in a detectron2 pickle",
    "tao": "a OneFormer of NVIDIA TAO",
    "mask2former": "a Mask2Former in detectron2's layout",
    "backbone": "a backbone",
    "unknown": "no model that is known here",
}
TAO_SECTIONS = ("model.", "dataset.pixel_", "dataset.augmentation.test_", "dataset.task_seq_len", "dataset.max_seq_len")
BACKBONE = re.compile(r"(a |an )?(Swin|ResNet|ConvNeXt|DiNAT|ViT|vision transformer|EfficientNet)")


@dataclass(frozen=True)
class Found:
    """What a weight file turned out to be."""

    kind: str
    """A key of `KINDS`."""
    path: Path
    state: dict[str, Tensor] = field(repr=False)
    """Parameters under our names: those of the network without a prefix, and `criterion.logit_scale`."""
    left: dict[str, Tensor] = field(default_factory=dict, repr=False)
    """Tensors that our network has no place for, under their own names."""
    told: dict[str, Any] = field(default_factory=dict)
    """Dotted keys of the spec -> what the file says itself, unchecked."""
    labels: LabelMap | None = None
    info: CheckpointInfo | None = None
    """Of a checkpoint of ours."""
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """Such as "a OneFormer of SHI-Labs"."""
        return KINDS[self.kind]


def find(path: Path) -> Found:
    """Read a weight file or folder, whatever it is; no code in it is run.

    Raises:
        CheckpointError: it is missing, broken, would run code, or says things that contradict one another.
    """
    with located(path):
        return find_folder(path) if path.is_dir() else find_file(path)


def find_file(path: Path) -> Found:
    """A file of any kind."""
    content = read_content(path)
    about = content.get("oneformer") if isinstance(content, Mapping) else None
    if isinstance(about, Mapping):
        info = opened(content, path)
        notes = (f"quantized: {info.quantized}; as float32 numbers here",) if info.quantized.layers else ()
        state = info.state_dict | info.criterion
        return Found("ours", path, state, {}, settings_of(info), info.labels, info, notes)
    state = in_memory(unwrap(content), path)
    if not state:
        raise CheckpointError("the file holds no weights", where=str(path))
    return recognised(path, content, state)


def settings_of(info: CheckpointInfo) -> dict[str, Any]:
    """What a checkpoint of ours says of itself, as keys of the spec."""
    length = info.model.text_encoder.context_length
    return {
        **flat(to_dict(info.model), "model."),
        "dataset.pixel_mean": list(info.pixel_mean),
        "dataset.pixel_std": list(info.pixel_std),
        "dataset.augmentation.test_min_size": info.test_min_size,
        "dataset.augmentation.test_max_size": info.test_max_size,
        "dataset.task_seq_len": length,
        "dataset.max_seq_len": length,
    }


def find_folder(path: Path) -> Found:
    """A Hugging Face folder. Raises CheckpointError for any other."""
    if not is_hf(path):
        raise CheckpointError(
            "the folder holds no config.json, so it is no Hugging Face model", where=str(path), hint=beside(path)
        )
    folder = read_hf_folder(path)
    carried = read_hf(folder.state)
    return Found("hf", path, carried.state, carried.left, folder.told, folder.labels, notes=folder.notes)


def recognised(path: Path, content: Any, state: dict[str, Tensor]) -> Found:
    """Whose names these are."""
    state = without(state, "module.")
    network = without(state, "model.")
    if any("decoder.initialiser." in name for name in network):
        return Found("bare", path, network)
    if any(".pixel_level_module." in name for name in state) and any(".task_encoder." in name for name in state):
        carried = read_hf(state)
        return Found("hf weights", path, carried.state, carried.left, heads_of(carried.state))
    if any(name.startswith("sem_seg_head.predictor.") for name in network):
        return detectron2(path, content, network)
    told = describe(state)
    return Found("backbone" if BACKBONE.match(told) else "unknown", path, {}, state, notes=(told,))


def detectron2(path: Path, content: Any, state: dict[str, Tensor]) -> Found:
    """A OneFormer of SHI-Labs or NVIDIA, or a Mask2Former."""
    if not any(name.startswith("task_mlp.") for name in state):
        carried = read_shi(state, table=MASK2FORMER)
        return Found("mask2former", path, carried.state, carried.left, heads_of(carried.state))
    carried = read_shi(state)
    if "tao_model" in content or "hyper_parameters" in content:
        return Found("tao", path, carried.state, carried.left, {**heads_of(carried.state), **tao_settings(content)})
    kind = "detectron2" if "__author__" in content or path.suffix == ".pkl" else "shi"
    return Found(kind, path, carried.state, carried.left, heads_of(carried.state))


def tao_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """What TAO's own spec, which its checkpoints hold, says of the network and its images; paths are left out.

    TAO fills task sentences up with end tokens where the published network has zeros (oneformer-model.md 1.13).
    """
    settings = flat(plain_settings(content.get("hyper_parameters")))
    settings = {key.removeprefix("cfg."): value for key, value in settings.items()}
    known = {key: value for key, value in settings.items() if key in leaves() and key.startswith(TAO_SECTIONS)}
    return {**known, "model.text_encoder.task_padding": "tao"}


def without(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors without a prefix that most names have; those that lack it (of the loss, say) stay as they are."""
    having = sum(name.startswith(prefix) for name in state)
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()} if 2 * having > len(state) else state


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries -> dotted keys; keys that are themselves tables of the spec stay whole."""
    if not isinstance(settings, Mapping):
        return {}
    out: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name not in leaves():
            out |= flat(value, f"{name}.")
        else:
            out[name] = value
    return out
