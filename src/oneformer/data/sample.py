"""A photo's pixels and segments -> Sample: what one photo gives to training (target, texts) or to scoring (truth)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from oneformer.data.annotation import Annotation, topmost
from oneformer.data.augment import shortest_edge_size
from oneformer.data.labels import LabelMap
from oneformer.data.record import SegmentInfo
from oneformer.data.task import TASKS
from oneformer.data.window import Picked

if TYPE_CHECKING:
    from oneformer.spec.data import DatasetSpec

# Values of an object map beside object numbers.
BACKGROUND = -1  # labelled, but no object of the task: a negative example for every mask
VOID = -2  # unlabelled, crowd or padding: no example at all


class Target:
    """What the network should find in one photo: `labels` int64 (N,), `masks` bool (N, H, W), `void` bool (H, W).

    `void` marks pixels that no mask loss may count: unlabelled, crowd, padding. Made from three tensors, or by
    `from_map` from one int map, which is N times smaller: it is what travels from loader workers and to the GPU, the
    masks are built where they are first asked for.
    """

    def __init__(self, labels: torch.Tensor, masks: torch.Tensor, void: torch.Tensor) -> None:
        self.labels = labels
        self._map: torch.Tensor | None = None
        self._members: torch.Tensor | None = None
        self.__dict__.update(masks=masks, void=void)

    @classmethod
    def from_map(cls, labels: torch.Tensor, numbers: torch.Tensor, members: torch.Tensor | None = None) -> Target:
        """`numbers` int16 or int32 (H, W): the object's place in `labels` (N,), BACKGROUND or VOID.

        Where objects overlap, the numbers are those of regions instead, and `members` bool (N, R) tells the regions
        that each object covers.
        """
        target = cls.__new__(cls)
        target.labels = labels
        target._map, target._members = numbers, members
        return target

    @property
    def object_map(self) -> torch.Tensor | None:
        """The map of `from_map` when each of its numbers is one object."""
        return self._map if self._members is None else None

    def compact(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """`numbers` and `members` of `from_map`, which it was made by."""
        assert self._map is not None
        return self._map, self._members

    @cached_property
    def masks(self) -> torch.Tensor:
        """bool (N, H, W), one mask per object."""
        assert self._map is not None
        if self._members is None:
            numbers = torch.arange(len(self.labels), dtype=self._map.dtype, device=self._map.device)
            return self._map[None] == numbers[:, None, None]  # (N, H, W)
        covered = self._members[:, self._map.clamp_min(0).long()]  # (N, H, W)
        return covered & (self._map >= 0)

    @cached_property
    def void(self) -> torch.Tensor:
        """bool (H, W)."""
        assert self._map is not None
        return self._map == VOID  # (H, W)

    def _mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Target:
        """The same with each of its tensors changed."""
        if self._map is None:
            return Target(change(self.labels), change(self.masks), change(self.void))
        members = None if self._members is None else change(self._members)
        return Target.from_map(change(self.labels), change(self._map), members)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Target:
        """The same on another device; as a map as long as it is one."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def spread(self, shape: Picked) -> Target:
        """Made of `shape.seen` -> the whole map's."""
        assert self._map is not None
        return Target.from_map(self.labels, torch.from_numpy(shape.spread(self._map.numpy())), self._members)

    def padded(self, height: int, width: int) -> Target:
        """The same with void added at the bottom and right."""
        h, w = (self.void if self._map is None else self._map).shape
        border = (0, width - w, 0, height - h)
        pad = torch.nn.functional.pad
        if self._map is not None:
            return Target.from_map(self.labels, pad(self._map, border, value=VOID), self._members)
        return Target(self.labels, pad(self.masks, border, value=False), pad(self.void, border, value=True))


@dataclass(frozen=True)
class Truth:
    """What is in one photo, at the photo's own size: `id_map` int32 (H0, W0), 0 = void; areas counted in the map.

    `stacked` keeps the whole masks where segments overlap; the id map has the one on top. `tasks` are those the labels
    are enough for.
    """

    id_map: np.ndarray
    segments: tuple[SegmentInfo, ...]
    stacked: Annotation | None = None
    tasks: tuple[str, ...] = TASKS

    @classmethod
    def of(cls, annotation: Annotation, tasks: tuple[str, ...]) -> Truth:
        """The truth that an annotation tells."""
        stacked = annotation if annotation.regions is not None else None
        return cls(annotation.id_map(), annotation.segments, stacked, tasks)


@dataclass
class Sample:
    """One photo, ready to be batched."""

    image: torch.Tensor  # uint8 (3, H, W), neither normalised nor padded: a quarter of the bytes on every way
    size: tuple[int, int]  # (H, W) of `image`
    original_size: tuple[int, int]  # (H0, W0) of the photo
    task: str
    texts: list[str]  # as many as the network has text queries; empty in evaluation
    target: Target | None
    truth: Truth | None
    name: str  # the photo's file name
    image_id: int | str


def make_target(
    index: np.ndarray,
    segments: Sequence[SegmentInfo],
    labels: LabelMap,
    *,
    task: str,
    regions: np.ndarray | None = None,
    rest: int = VOID,
) -> Target:
    """The objects of a task, in the order of class ids.

    `index` int (H, W) holds i + 1 for `segments[i]` and 0 for none, or regions, see `Annotation`; the first number
    beyond those is void. Semantic: one object per class. Instance: things, one each, whole where they overlap; stuff is
    background. Panoptic: things one each, stuff one per class. Crowds are void in every task (they are neither one
    object nor none), what is only semantic in the two others, and what has no pixel left is no object. `rest` (VOID or
    BACKGROUND) is what no segment covers.
    """
    if regions is not None and task == "instance":
        return _instance_target(index, segments, labels, regions=regions, rest=rest)
    if regions is not None:
        index = np.append(topmost(regions), len(segments) + 1).astype(index.dtype).take(index)
    present = np.bincount(index.ravel(), minlength=len(segments) + 1)[1:] > 0
    objects: dict[tuple[int, int], list[int]] = {}  # (class, own id or 0 when merged) -> places in `segments`
    table = np.full(len(segments) + 2, VOID, index.dtype)
    table[0] = rest
    for place, segment in enumerate(segments):
        thing = labels.is_thing[segment.class_id]
        if not present[place] or not _counts(segment, task):
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


def _counts(segment: SegmentInfo, task: str) -> bool:
    """Whether a segment's pixels are known to be an object's, or the class's, in a task."""
    return task == "semantic" if segment.only_semantic else not segment.iscrowd


def _instance_target(
    index: np.ndarray, segments: Sequence[SegmentInfo], labels: LabelMap, *, regions: np.ndarray, rest: int
) -> Target:
    """Things with their whole masks. A pixel of any of them is known, whatever else covers it."""
    present: np.ndarray = np.bincount(index.ravel(), minlength=len(regions))[: len(regions)] > 0  # (R,)
    seen = (regions & present[:, None]).any(axis=0)  # (N,)
    known = [_counts(segment, "instance") for segment in segments]
    things = [
        place
        for place, segment in enumerate(segments)
        if seen[place] and known[place] and labels.is_thing[segment.class_id]
    ]
    things.sort(key=lambda place: segments[place].class_id)
    members = regions[:, things].T  # (objects, R)
    sure = [place for place in range(len(segments)) if known[place]]
    free = np.where(regions[:, sure].any(axis=1), BACKGROUND, np.where(regions.any(axis=1), VOID, rest))
    numbers = np.append(np.where(members.any(axis=0), np.arange(len(regions)), free), VOID).astype(index.dtype)
    class_ids = torch.tensor([segments[place].class_id for place in things], dtype=torch.int64)
    return Target.from_map(
        class_ids, torch.from_numpy(numbers.take(index)), torch.from_numpy(np.ascontiguousarray(members))
    )


@dataclass(frozen=True)
class Norm:
    """Mean and standard deviation of red, green and blue, on the 0-255 scale."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, dataset: DatasetSpec) -> Norm:
        """As the spec says."""
        return cls(tuple(dataset.pixel_mean), tuple(dataset.pixel_std))

    def __call__(self, pixels: torch.Tensor, *, out: torch.Tensor) -> None:
        """uint8 (3, H, W) -> (value - mean) / std per channel, into `out` float32 of the same shape."""
        mean, std = (out.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        # Converted first: arithmetic of bytes and floats takes torch five times as long.
        out.copy_(pixels).sub_(mean).div_(std)


def normalize(pixels: np.ndarray, *, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """uint8 (H, W, 3) -> float32 (3, H, W), (value - mean) / std per channel on the 0-255 scale."""
    image = torch.empty(3, *pixels.shape[:2])
    Norm(tuple(mean), tuple(std))(planes(pixels), out=image)
    return image


def planes(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, 3) -> (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def prepare_image(
    pixels: np.ndarray, *, min_size: int, max_size: int, mean: Sequence[float], std: Sequence[float]
) -> tuple[torch.Tensor, tuple[int, int]]:
    """A photo uint8 (H0, W0, 3) as the network takes it: float32 (3, H, W) and (H, W); see `scale_image`."""
    pixels = scale_image(pixels, min_size=min_size, max_size=max_size)
    return normalize(pixels, mean=mean, std=std), (pixels.shape[0], pixels.shape[1])


def scale_image(pixels: np.ndarray, *, min_size: int, max_size: int) -> np.ndarray:
    """uint8 (H0, W0, 3) -> (H, W, 3): the shorter side `min_size`, the longer at most `max_size`.

    Bilinear, antialiased, on uint8: oneformer-model.md 1.1.
    """
    height, width = shortest_edge_size(pixels.shape[:2], min_size=min_size, max_size=max_size)
    if (height, width) == pixels.shape[:2]:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
