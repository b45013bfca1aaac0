"""A photo's pixels and segments -> Sample: what one photo gives to training (target, texts) or to scoring (truth)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image

from oneformer.data.augment import shortest_edge_size
from oneformer.data.labels import LabelMap
from oneformer.data.record import SegmentInfo

# Values of an object map beside object numbers.
BACKGROUND = -1  # labelled, but no object of the task: a negative example for every mask
VOID = -2  # unlabelled, crowd or padding: no example at all


class Target:
    """What the network should find in one photo: `labels` int64 (N,), `masks` bool (N, H, W), `void` bool (H, W).

    `void` marks pixels that no mask loss may count: unlabelled, crowd, padding. Made from three tensors, or by
    `from_map` from one int map of object numbers, which is N times smaller: it is what travels from loader workers
    and to the GPU, the masks are built where they are first asked for.
    """

    def __init__(self, labels: torch.Tensor, masks: torch.Tensor, void: torch.Tensor) -> None:
        self.labels = labels
        self.object_map: torch.Tensor | None = None
        self.__dict__.update(masks=masks, void=void)

    @classmethod
    def from_map(cls, labels: torch.Tensor, object_map: torch.Tensor) -> Target:
        """`object_map` int16 or int32 (H, W): the object's place in `labels` (N,), BACKGROUND or VOID."""
        target = cls.__new__(cls)
        target.labels = labels
        target.object_map = object_map
        return target

    @cached_property
    def masks(self) -> torch.Tensor:
        """bool (N, H, W), one mask per object, disjoint when made from a map."""
        assert self.object_map is not None
        numbers = torch.arange(len(self.labels), dtype=self.object_map.dtype, device=self.object_map.device)
        return self.object_map[None] == numbers[:, None, None]  # (N, H, W)

    @cached_property
    def void(self) -> torch.Tensor:
        """bool (H, W)."""
        assert self.object_map is not None
        return self.object_map == VOID  # (H, W)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Target:
        """The same on another device; as a map as long as it is one."""
        labels = self.labels.to(device, non_blocking=non_blocking)
        if self.object_map is not None:
            return Target.from_map(labels, self.object_map.to(device, non_blocking=non_blocking))
        masks, void = (t.to(device, non_blocking=non_blocking) for t in (self.masks, self.void))
        return Target(labels, masks, void)

    def pin_memory(self) -> Target:
        """The same in page-locked memory."""
        if self.object_map is not None:
            return Target.from_map(self.labels.pin_memory(), self.object_map.pin_memory())
        return Target(self.labels.pin_memory(), self.masks.pin_memory(), self.void.pin_memory())

    def padded(self, height: int, width: int) -> Target:
        """The same with void added at the bottom and right."""
        h, w = (self.void if self.object_map is None else self.object_map).shape
        border = (0, width - w, 0, height - h)
        pad = torch.nn.functional.pad
        if self.object_map is not None:
            return Target.from_map(self.labels, pad(self.object_map, border, value=VOID))
        return Target(self.labels, pad(self.masks, border, value=False), pad(self.void, border, value=True))


@dataclass(frozen=True)
class Truth:
    """What is in one photo, at the photo's own size: `id_map` int32 (H0, W0), 0 = void; areas counted in the map."""

    id_map: np.ndarray
    segments: tuple[SegmentInfo, ...]


@dataclass
class Sample:
    """One photo, ready to be batched."""

    image: torch.Tensor  # float32 (3, H, W), normalised, not padded
    size: tuple[int, int]  # (H, W) of `image`
    original_size: tuple[int, int]  # (H0, W0) of the photo
    task: str
    texts: list[str]  # as many as the network has text queries; empty in evaluation
    target: Target | None
    truth: Truth | None
    name: str  # the photo's file name
    image_id: int | str


def make_target(index: np.ndarray, segments: Sequence[SegmentInfo], labels: LabelMap, *, task: str) -> Target:
    """The objects of a task, in the order of class ids.

    `index` int (H, W) holds i + 1 for `segments[i]` and 0 for void. Semantic: one object per class. Instance: things,
    one each; stuff is background. Panoptic: things one each, stuff one per class. Crowds are void in every task (they
    are neither one object nor none), and what has no pixel left is no object.
    """
    present = np.bincount(index.ravel(), minlength=len(segments) + 1)[1:] > 0
    objects: dict[tuple[int, int], list[int]] = {}  # (class, own id or 0 when merged) -> places in `segments`
    table = np.full(len(segments) + 1, VOID, index.dtype)
    for place, segment in enumerate(segments):
        thing = labels.is_thing[segment.class_id]
        if segment.iscrowd or not present[place]:
            continue
        if task == "instance" and not thing:
            table[place + 1] = BACKGROUND
            continue
        alone = thing and task != "semantic"
        objects.setdefault((segment.class_id, segment.segment_id if alone else 0), []).append(place)
    ordered = sorted(objects, key=lambda key: key[0])
    for number, key in enumerate(ordered):
        for place in objects[key]:
            table[place + 1] = number
    class_ids = torch.tensor([class_id for class_id, _ in ordered], dtype=torch.int64)
    return Target.from_map(class_ids, torch.from_numpy(table.take(index)))


def normalize(pixels: np.ndarray, *, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """uint8 (H, W, 3) -> float32 (3, H, W), (value - mean) / std per channel on the 0-255 scale."""
    image = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32, order="C"))  # (3, H, W)
    shift = torch.tensor(mean, dtype=torch.float32)[:, None, None]
    return image.sub_(shift).div_(torch.tensor(std, dtype=torch.float32)[:, None, None])


def prepare_image(
    pixels: np.ndarray, *, min_size: int, max_size: int, mean: Sequence[float], std: Sequence[float]
) -> tuple[torch.Tensor, tuple[int, int]]:
    """A photo uint8 (H0, W0, 3) as the network takes it: float32 (3, H, W) and (H, W).

    Scaled so that the shorter side is `min_size` and the longer at most `max_size` (bilinear, antialiased, on
    uint8: oneformer-model.md 1.1), then normalised.
    """
    height, width = shortest_edge_size(pixels.shape[:2], min_size=min_size, max_size=max_size)
    if (height, width) != pixels.shape[:2]:
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    return normalize(pixels, mean=mean, std=std), (height, width)
