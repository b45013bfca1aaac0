"""The types between the network and everything after it: raw outputs in, segments at the photo's own size out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from oneformer.segments.rle import Rle
    from oneformer.spec.model import TestSpec

TASKS: tuple[str, ...] = ("semantic", "instance", "panoptic")
"""The three tasks in the order used everywhere; each has its own task token (OneFormer paper, section 3.1)."""

VOID_ID = 0
"""Segment id of pixels that belong to no segment; real segments count from 1 (COCO panoptic format)."""


@dataclass(frozen=True)
class Outputs:
    """What the network and every engine return for a batch, before any decision is made.

    `class_logits` is (B, Q, K+1), its last column "no object"; `mask_logits` is (B, Q, h, w), a quarter of the input.
    """

    class_logits: Tensor  # (B, Q, K+1)
    mask_logits: Tensor  # (B, Q, h, w)

    def __post_init__(self) -> None:
        assert self.class_logits.ndim == 3, f"class logits must be (B, Q, K+1), got {tuple(self.class_logits.shape)}"
        assert self.mask_logits.ndim == 4, f"mask logits must be (B, Q, h, w), got {tuple(self.mask_logits.shape)}"
        assert self.class_logits.shape[:2] == self.mask_logits.shape[:2], "class and mask logits disagree on B or Q"

    def __len__(self) -> int:
        """Images in the batch."""
        return int(self.class_logits.shape[0])

    def __iter__(self) -> Iterator[Outputs]:
        """The images, each as a batch of one."""
        return (Outputs(self.class_logits[i : i + 1], self.mask_logits[i : i + 1]) for i in range(len(self)))

    @property
    def num_classes(self) -> int:
        """K, without the "no object" column."""
        return int(self.class_logits.shape[2]) - 1

    def to(self, device: torch.device | str) -> Outputs:
        """The same outputs on another device."""
        return Outputs(self.class_logits.to(device), self.mask_logits.to(device))

    @staticmethod
    def cat(parts: Sequence[Outputs]) -> Outputs:
        """Batches of equal mask size joined along B."""
        return Outputs(torch.cat([p.class_logits for p in parts]), torch.cat([p.mask_logits for p in parts]))


@dataclass(frozen=True)
class Rules:
    """What post-processing must know beside the logits.

    Args:
        is_thing: per class, whether it is countable.
        object_mask_threshold: panoptic: a query needs a class score above this (published: 0.8; ADE20K 0.5).
        overlap_threshold: panoptic: a segment needs at least this share of its own mask (published: 0.8).
        topk: instance: candidates kept per image (COCO: 100).
        mask_threshold: panoptic and instance: a pixel is inside a mask from this probability on (published: 0.5).
    """

    is_thing: tuple[bool, ...]
    object_mask_threshold: float = 0.8
    overlap_threshold: float = 0.8
    topk: int = 100
    mask_threshold: float = 0.5

    @classmethod
    def from_spec(cls, test: TestSpec, is_thing: Sequence[bool]) -> Rules:
        """The rules that a spec's `model.test` asks for."""
        limits = (test.object_mask_threshold, test.overlap_threshold, test.test_topk_per_image, test.mask_threshold)
        return cls(tuple(is_thing), *limits)


@dataclass(frozen=True)
class Segment:
    """One panoptic segment: its id in the map (from 1), class, score 0..1, area in pixels, whether it is countable."""

    id: int
    class_id: int
    score: float
    area: int
    isthing: bool


@dataclass(frozen=True)
class PanopticResult:
    """Segment ids per pixel (`map`, int32 (H, W), 0 = void) and one `Segment` for each id in it."""

    map: NDArray[np.int32]
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Instances:
    """N instances by falling score: masks (N, H, W), class_ids (N,), scores (N,) 0..1, boxes (N, 4) XYXY.

    Boxes are half-open pixels: `x1 - x0` is the width of the mask. No mask is empty.
    """

    masks: NDArray[np.bool_]
    class_ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]

    def __len__(self) -> int:
        return int(self.scores.shape[0])


@dataclass(frozen=True)
class EncodedInstances:
    """`Instances` with run-length encoded masks (COCO form, see `rle`): kilobytes where the masks are megabytes."""

    rles: tuple[Rle, ...]
    class_ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]

    def __len__(self) -> int:
        return int(self.scores.shape[0])
