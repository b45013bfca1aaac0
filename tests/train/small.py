"""A folder -> a training that takes seconds: tiny data, a tiny network, and what the training wrote."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch

from oneformer.actions.train import Trained, run
from oneformer.spec import ExperimentSpec
from oneformer.spec.load import load_spec
from tiny import TinyDataset, write_tiny_dataset

# Three steps an epoch on six photos; dropout is on, so that random numbers matter.
SMALL = (
    "model.sem_seg_head.convs_dim=32", "model.sem_seg_head.mask_dim=32", "model.sem_seg_head.transformer_enc_layers=1",
    "model.sem_seg_head.dim_feedforward=32", "model.one_former.hidden_dim=32", "model.one_former.nheads=2",
    "model.one_former.dim_feedforward=32", "model.one_former.dec_layers=3", "model.one_former.class_dec_layers=1",
    "model.one_former.num_object_queries=12", "model.one_former.train_num_points=64", "model.one_former.dropout=0.1",
    "model.text_encoder.width=64", "model.text_encoder.num_layers=1", "model.text_encoder.n_ctx=2",
    "model.backbone.name=D2SwinTransformer", "model.backbone.swin.embed_dim=8", "model.backbone.swin.depths=[1,1,1,1]",
    "model.backbone.swin.num_heads=[1,1,2,2]", "model.backbone.swin.window_size=4",
    "dataset.augmentation.train_crop_size=[64,64]", "dataset.augmentation.test_min_size=64",
    "dataset.augmentation.test_max_size=96", "dataset.train.batch_size=2", "dataset.train.num_workers=0",
    "dataset.val.batch_size=3", "dataset.val.num_workers=0",
    "train.accelerator=cpu", "train.num_epochs=4", "train.log_interval=1", "train.num_threads=1",
    "train.optim.lr=1e-3", "train.optim.warmup_iters=2", "train.keep_checkpoints=-1",
)  # fmt: skip


def small_data(folder: Path) -> TinyDataset:
    """Six photos."""
    return write_tiny_dataset(folder / "data", images=6, size=(48, 64))


def words(data: TinyDataset, results: Path, *more: str) -> list[str]:
    """Overrides of a small training; later ones win."""
    return [*data.overrides("train", "val"), *SMALL, f"results_dir={results}", *more]


def small_spec(data: TinyDataset, results: Path, *more: str) -> ExperimentSpec:
    """The spec of a small training."""
    return load_spec(None, words(data, results, *more), action="train")


def train_small(data: TinyDataset, results: Path, *more: str) -> Trained:
    """Run a small training."""
    done = run(small_spec(data, results, *more))
    assert isinstance(done, Trained)
    return done


def load(path: Path) -> dict[str, Any]:
    """A checkpoint's content."""
    content = torch.load(path, weights_only=True)
    assert isinstance(content, dict)
    return content


def rows(folder: Path, split: str = "train") -> list[dict[str, str]]:
    """Rows of `metrics.csv`."""
    with (folder / "train" / "metrics.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["split"] == split]


def unequal(one: Any, other: Any, where: str = "") -> list[str]:
    """Places where two checkpoints' contents differ in the last bit."""
    if isinstance(one, torch.Tensor):
        return [] if isinstance(other, torch.Tensor) and torch.equal(one, other) else [where]
    if isinstance(one, dict):
        if not isinstance(other, dict) or list(one) != list(other):
            return [f"{where} keys"]
        return [place for key in one for place in unequal(one[key], other[key], f"{where}.{key}")]
    if isinstance(one, list | tuple):
        if not isinstance(other, list | tuple) or len(one) != len(other):
            return [f"{where} length"]
        return [
            place for i, (a, b) in enumerate(zip(one, other, strict=True)) for place in unequal(a, b, f"{where}[{i}]")
        ]
    return [] if one == other else [where]
