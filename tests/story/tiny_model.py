"""A tiny network with random weights -> a checkpoint file as training writes it."""

from __future__ import annotations

from pathlib import Path

import torch

from oneformer import __version__
from oneformer.data.labels import LabelMap
from oneformer.model.oneformer import build_model
from oneformer.spec.load import load_spec
from oneformer.spec.tree import to_dict
from oneformer.train.checkpoint import write_checkpoint
from predict.fake import LABELS

TINY = [
    "preset=nano", "model.sem_seg_head.num_classes=4", "model.sem_seg_head.convs_dim=32",
    "model.sem_seg_head.mask_dim=32", "model.sem_seg_head.dim_feedforward=32", "model.one_former.hidden_dim=32",
    "model.one_former.dim_feedforward=32", "model.one_former.dec_layers=2", "model.one_former.num_object_queries=12",
    "model.text_encoder.width=32", "model.text_encoder.num_layers=1",
    "model.backbone.swin.embed_dim=16", "model.backbone.swin.depths=[1,1,1,1]", "model.backbone.swin.window_size=4",
    "model.backbone.swin.num_heads=[1,2,2,4]",
    "dataset.augmentation.test_min_size=64", "dataset.augmentation.test_max_size=128",
    "model.test.object_mask_threshold=0.1", "model.test.overlap_threshold=0.1",
]  # fmt: skip


def write_tiny_checkpoint(path: Path, *words: str, labels: LabelMap = LABELS) -> Path:
    """A checkpoint of the tiny network."""
    return write_random_checkpoint(path, *TINY, *words, labels=labels)


def write_random_checkpoint(path: Path, *words: str, labels: LabelMap) -> Path:
    """Random weights (the same each time) with everything a reader needs, for the network that `words` describe."""
    spec = load_spec(None, list(words), action="train")
    torch.manual_seed(0)
    model = build_model(spec.model)
    with torch.no_grad():  # class scores of random weights are alike; pull them apart so that segments appear
        for name, parameter in model.named_parameters():
            if "class" in name and parameter.ndim == 2:
                parameter.mul_(4)
    sizes = spec.dataset.augmentation
    content = {
        "state_dict": {f"model.{k}": v for k, v in model.state_dict().items()},
        "oneformer": {
            "format": 1,
            "version": __version__,
            "labels": labels.to_dict(),
            "model": to_dict(spec.model),
            "dataset": {
                "pixel_mean": list(spec.dataset.pixel_mean),
                "pixel_std": list(spec.dataset.pixel_std),
                "test_min_size": sizes.test_min_size,
                "test_max_size": sizes.test_max_size,
            },
            "epoch": 3,
            "step": 42,
            "metrics": {},
        },
        "tao_model": "oneformer",
    }
    write_checkpoint(content, path)
    return path
