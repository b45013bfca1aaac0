"""A small network with random weights -> files of it as others write them: SHI-Labs, detectron2, NVIDIA TAO, ours."""

from __future__ import annotations

import json
import pickle
import sys
import types
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.specs import tiny_spec
from oneformer.data.labels import LabelMap, labels_of
from oneformer.model.oneformer import build_model
from oneformer.model.weights.checkpoint import CheckpointInfo
from oneformer.model.weights.shi import TABLE
from oneformer.model.weights.targets import ours_content, shi_tensors
from oneformer.spec.model import ModelSpec
from oneformer.spec.tree import to_dict
from oneformer.train.checkpoint import write_checkpoint
from oracle.hf import randomise
from stand_in import stand_in

CLASSES = [
    {"id": 3, "name": "cat", "isthing": 1, "color": [10, 20, 30]},
    {"id": 5, "name": "sky", "isthing": 0, "color": [40, 50, 60]},
    {"id": 7, "name": "dog", "isthing": 1, "color": [70, 80, 90]},
    {"id": 8, "name": "sea", "isthing": 0, "color": [100, 110, 120]},
    {"id": 9, "name": "car", "isthing": 1, "color": [130, 140, 150]},
]
CONTEXTS = "model.text_encoder.n_ctx=4"  # what a file without text branch does not tell; 16 is too many for 12 queries


def labels(count: int = 5) -> LabelMap:
    return labels_of([*CLASSES, *({"id": 100 + i, "name": f"more {i}"} for i in range(count - 5))], where="test")


def label_map(folder: Path, entries: list[dict[str, Any]] | None = None) -> Path:
    path = folder / "label_map.json"
    path.write_text(json.dumps(CLASSES if entries is None else entries), encoding="utf-8")
    return path


def model_of(spec: ModelSpec | None = None, *, text: bool = True, seed: int = 0) -> CheckpointInfo:
    """A network as training would leave it, with its classes."""
    spec = spec or tiny_spec()
    model = build_model(spec, text_branch=text)
    randomise(model, seed)
    criterion = {"criterion.logit_scale": torch.tensor(2.5)}
    return CheckpointInfo(
        labels=labels(spec.sem_seg_head.num_classes),
        model=spec,
        pixel_mean=(123.675, 116.28, 103.53),
        pixel_std=(58.395, 57.12, 57.375),
        test_min_size=64,
        test_max_size=128,
        state_dict=dict(model.state_dict()),
        criterion=criterion if text else {},
    )


def write_ours(path: Path, info: CheckpointInfo | None = None) -> Path:
    write_checkpoint(ours_content(info or model_of()), path)
    return path


def write_shi(path: Path, info: CheckpointInfo | None = None) -> dict[str, Tensor]:
    """`{"model": ...}` of torch, or for `.pkl` detectron2's pickle of arrays; gives the tensors."""
    tensors = {name: tensor.clone() for name, tensor in shi_tensors(info or model_of()).items()}
    if path.suffix == ".pkl":
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "third party"}, protocol=4))
    else:
        torch.save({"model": OrderedDict(tensors), "iteration": 160_000, "trainer": {"lr": 1e-4}}, path)
    return tensors


class Config:
    """In the shape of OmegaConf's containers and nodes: state and nothing else."""

    def __init__(self, **state: Any) -> None:
        self.__dict__.update(state)


def omega(value: Any) -> Any:
    """A plain value as OmegaConf 2.3 keeps it (its pickles were looked at): `_content` of nodes, `_val` of values."""
    module = sys.modules["omegaconf"]
    kept = {"_metadata": module.Metadata(ref_type=int, key=None, flags={}), "_parent": None}
    if isinstance(value, dict):
        return module.DictConfig(**kept, _content={key: omega(v) for key, v in value.items()})
    if isinstance(value, list):
        return module.ListConfig(**kept, _content=[omega(v) for v in value])
    return module.AnyNode(**kept, _val=value)


def with_omega(work: Any) -> Any:
    """Call `work` while a module named like OmegaConf's holds classes to pickle."""
    module = types.ModuleType("omegaconf")
    for name in ("DictConfig", "ListConfig", "AnyNode", "Metadata"):
        setattr(module, name, type(name, (Config,), {"__module__": "omegaconf"}))
    with stand_in("omegaconf", module):
        return work()


def tao_spec(spec: ModelSpec) -> dict[str, Any]:
    """The `model` section as TAO writes it: without the keys that are ours alone."""
    section = to_dict(spec)
    for part, keys in (
        ("sem_seg_head", ("dim_feedforward", "num_points", "mask_position")),
        ("one_former", ("query_init", "position_turns")),
        ("text_encoder", ("task_padding",)),
    ):
        for key in keys:
            del section[part][key]
    section["backbone"] = {key: section["backbone"][key] for key in ("name", "freeze_at", "swin")}
    return {key: value for key, value in section.items() if key != "task_toggling"}


def write_tao(path: Path, info: CheckpointInfo | None = None) -> dict[str, Tensor]:
    """A Lightning checkpoint with OmegaConf's objects in it, as NVIDIA TAO writes; gives the network's tensors."""
    info = info or model_of()
    tensors = TABLE.to_theirs(info.state_dict).state
    settings = {
        "results_dir": "/results",
        "encryption_key": "key",
        "model": tao_spec(info.model),
        "dataset": {
            "label_map": "/data/label_map.json",
            "pixel_mean": [100.0, 101.0, 102.0],
            "augmentation": {"test_min_size": 96, "test_max_size": 192, "train_crop_size": [64, 64]},
            "task_seq_len": 77,
            "max_seq_len": 77,
        },
        "train": {"num_epochs": 50},
    }
    state = {f"model.{name}": tensor.clone() for name, tensor in tensors.items()}
    state |= {"criterion.logit_scale": torch.tensor(2.5), "criterion.empty_weight": torch.ones(6)}
    state["model.backbone.head.weight"] = torch.ones(1000, 8)  # TAO keeps the classifier of its Swin

    def save() -> None:
        content = {
            "epoch": 3,
            "global_step": 100,
            "pytorch-lightning_version": "2.5.0",
            "state_dict": OrderedDict(state),
            "hyper_parameters": {"cfg": omega(settings)},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
            "tao_model": "oneformer",
        }
        torch.save(content, path)

    with_omega(save)
    return tensors


def write_mask2former(path: Path, info: CheckpointInfo | None = None) -> dict[str, Tensor]:
    """What a Mask2Former has in common, its learned queries, and nothing of the task."""
    from oneformer.model.weights.shi import MASK2FORMER

    info = info or model_of(text=False)
    tensors = {name: tensor.clone() for name, tensor in MASK2FORMER.to_theirs(info.state_dict).state.items()}
    queries = info.model.one_former.num_object_queries
    extra = {"sem_seg_head.predictor.query_feat.weight": torch.randn(queries, info.model.one_former.hidden_dim)}
    torch.save({"model": {**tensors, **extra}}, path)
    return tensors


def changed(info: CheckpointInfo, **tensors: Tensor) -> CheckpointInfo:
    """The same with other tensors; `__` stands for a dot."""
    return replace(info, state_dict={**info.state_dict, **{n.replace("__", "."): t for n, t in tensors.items()}})
