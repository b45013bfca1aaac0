"""Sizes of the networks and batches that are measured -> specs, and both libraries' networks with equal weights."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from oneformer.data.sample import Target
from oneformer.data.task import TASKS, texts_for
from oneformer.data.tokens import Tokenizer
from oneformer.spec import ModelSpec, OneFormerHeadSpec, SemSegHeadSpec
from oneformer.spec.backbone import BackboneSpec, SwinSpec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from oracle.hf import hf_config, picture, randomise, twins  # the mapping between both is kept with the oracles

__all__ = ["CLASSES", "NETWORKS", "Work", "hf_config", "picture", "randomise", "swin_l", "swin_t", "twins"]

CLASSES = 133  # COCO panoptic


def swin_t() -> ModelSpec:
    """Swin-T with 150 queries, without dropout, so that both sides' losses can be compared."""
    swin = SwinSpec(embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7, drop_path_rate=0.0)
    return _with(swin)


def swin_l() -> ModelSpec:
    """Swin-L, the backbone of the published models, likewise."""
    swin = SwinSpec(embed_dim=192, depths=[2, 2, 18, 2], num_heads=[6, 12, 24, 48], window_size=12, drop_path_rate=0.0)
    return _with(swin)


def _with(swin: SwinSpec) -> ModelSpec:
    return ModelSpec(
        sem_seg_head=SemSegHeadSpec(num_classes=CLASSES),
        one_former=OneFormerHeadSpec(dropout=0.0),
        backbone=BackboneSpec(name="D2SwinTransformer", swin=swin),
    )


NETWORKS = {"swin_t": ("Swin-T", swin_t), "swin_l": ("Swin-L", swin_l)}


@dataclass
class Work:
    """A training batch as both sides want it."""

    images: torch.Tensor
    task_tokens: torch.Tensor
    distinct: torch.Tensor
    index: torch.Tensor
    targets: list[Target]

    @staticmethod
    def random(images: int, size: int, objects: int, *, num_texts: int) -> Work:
        """Blobs of random classes on structured noise, with the texts that belong to them."""
        tokenizer = Tokenizer()
        names = [f"thing number {i}" for i in range(CLASSES)]
        targets, texts = [], []
        for number in range(images):
            coarse = torch.randint(0, objects, (1, 1, size // 16, size // 16)).float()
            owners = torch.nn.functional.interpolate(coarse, scale_factor=16)[0, 0].to(torch.int16)
            labels = torch.randint(0, CLASSES, (objects,))
            targets.append(Target.from_map(labels, owners))
            texts.append(texts_for(TASKS[number % 3], labels.tolist(), names, num_texts=num_texts))
        distinct = sorted({text for row in texts for text in row})
        return Work(
            images=picture(size, size, batch=images),
            task_tokens=torch.stack([tokenizer.task_tokens(TASKS[i % 3]) for i in range(images)]),
            distinct=tokenizer.encode_all(distinct),
            index=torch.tensor([[distinct.index(text) for text in row] for row in texts]),
            targets=targets,
        )
