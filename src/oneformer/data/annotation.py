"""A record -> its photo and Annotation: one map of all labels at the photo's size, overlapping masks included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image

from oneformer.data.decode import MAX_MPX, Photo, index_map, open_image, open_photo, read_panoptic
from oneformer.data.record import Record, SegmentInfo
from oneformer.errors import DataError


@dataclass(frozen=True)
class Annotation:
    """What is labelled in one photo.

    `index` int16 or int32 (H, W) is 0 where no segment is and i + 1 for `segments[i]`. Where segments overlap it holds
    numbers of regions instead, and `regions` bool (R, N) tells which of the N segments cover each; row 0 is empty.
    Of segments that overlap, the later lies on top. Areas are counted; overlapped pixels count for every segment.
    """

    index: np.ndarray
    segments: tuple[SegmentInfo, ...]
    regions: np.ndarray | None = None

    def top(self) -> np.ndarray:
        """int (R,): i + 1 for the segment on top of each number of `index`, 0 for none."""
        if self.regions is None:
            return np.arange(len(self.segments) + 1)
        return topmost(self.regions)

    def flat(self) -> np.ndarray:
        """(H, W): i + 1 for the segment on top, 0 for none."""
        return self.index if self.regions is None else self.top().astype(self.index.dtype).take(self.index)

    def id_map(self) -> np.ndarray:
        """int32 (H, W): the id of the segment on top, 0 for none."""
        ids = np.array([0, *(s.segment_id for s in self.segments)], np.int32)
        return ids[self.top()].take(self.index)

    def classes(self) -> np.ndarray:
        """int (R,): the class on top of each number of `index`, -1 for none."""
        return np.array([-1, *(s.class_id for s in self.segments)])[self.top()]

    def mask(self, place: int) -> np.ndarray:
        """bool (H, W): all pixels of `segments[place]`, covered ones too."""
        if self.regions is None:
            return np.asarray(self.index == place + 1)
        return self.regions[:, place].take(self.index)


def topmost(regions: np.ndarray) -> np.ndarray:
    """Regions bool (R, N) -> int (R,): 1 + the last segment that covers each, 0 for none."""
    count = regions.shape[1]
    last = count - np.argmax(regions[:, ::-1], axis=1) if count else np.zeros(len(regions), int)
    return np.where(regions.any(axis=1), last, 0)


class Layers:
    """Masks, added one by one from the bottom to the top -> one map in which every set of overlapping masks has its
    number: exact, and a stack of masks is never held."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.index = np.zeros(size, np.int32)
        self._members: list[tuple[int, ...]] = [()]
        self._count = 0

    def add(self, mask: np.ndarray) -> None:
        """Lay a mask bool (H, W) on top; it may be empty."""
        place, self._count = self._count, self._count + 1
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        inside, part = mask[box], self.index[box]
        under, where = np.unique(part[inside], return_inverse=True)
        fresh = len(self._members) + np.arange(len(under), dtype=np.int32)
        self._members += [(*self._members[number], place) for number in under.tolist()]
        part[inside] = fresh[where.ravel()]

    def finish(self, segments: Sequence[SegmentInfo], *, rest: int | None = None) -> Annotation:
        """The annotation; `segments` belong to the masks, in their order. `rest` is the class of what none covers."""
        assert len(segments) == self._count, f"{len(segments)} segments for {self._count} masks"
        segments = list(segments)
        if rest is not None:
            # The lowest layer: it lies where nothing else does, so its place in the list does not matter.
            segments.append(SegmentInfo(max([0, *(s.segment_id for s in segments)]) + 1, rest, False, 0))
            self._members[0] = (self._count,)
        pixels = np.bincount(self.index.ravel(), minlength=len(self._members))
        kept = [number for number in range(len(self._members)) if pixels[number] and self._members[number]]
        areas = np.zeros(len(segments), np.int64)
        for number in kept:
            areas[list(self._members[number])] += pixels[number]
        counted = tuple(s._replace(area=int(a)) for s, a in zip(segments, areas, strict=True))
        table = np.zeros(len(self._members), np.int32)
        if all(len(self._members[number]) == 1 for number in kept):
            for number in kept:
                table[number] = self._members[number][0] + 1
            return Annotation(_small(table, len(segments)).take(self.index), counted)
        regions = np.zeros((len(kept) + 1, len(segments)), bool)
        for row, number in enumerate(kept, start=1):
            table[number] = row
            regions[row, list(self._members[number])] = True
        return Annotation(_small(table, len(kept)).take(self.index), counted, regions)


def _small(table: np.ndarray, largest: int) -> np.ndarray:
    return table.astype(np.int16 if largest < 2**15 else np.int32)


def read_annotated(record: Record, *, max_mpx: float = MAX_MPX) -> tuple[Image.Image, Annotation]:
    """The photo (upright RGB) and the labels of a record. Raises DataError when one is broken or their sizes differ."""
    photo = open_image(record.image_path, max_mpx=max_mpx)
    return photo, _labels(record, (photo.height, photo.width), max_mpx=max_mpx)


@contextmanager
def open_annotated(record: Record, *, max_mpx: float = MAX_MPX) -> Iterator[tuple[Photo, Annotation]]:
    """The same with the photo's pixels still to be decoded, which raises DataError as well."""
    with open_photo(record.image_path, max_mpx=max_mpx) as photo:
        yield photo, _labels(record, photo.size, max_mpx=max_mpx)


def _labels(record: Record, size: tuple[int, int], *, max_mpx: float) -> Annotation:
    """The labels of a record whose photo has this (height, width)."""
    annotation = record.source.decoder(record, size, max_mpx=max_mpx)
    if record.width and (record.width, record.height) not in (size, size[::-1]):
        raise DataError(
            f"the photo is {size[1]} x {size[0]}, the annotation file says {record.width} x {record.height}",
            where=record.image_path,
            hint=f"correct width and height of image id {record.image_id}",
            kind="size_mismatch",
        )
    return annotation


def same_size(record: Record, size: tuple[int, int], other: tuple[int, ...], *, path: str) -> None:
    """Raise DataError when a mask of `other` (height, width), read from `path`, has not the photo's `size`."""
    if other == size:
        return
    hint = "masks have the photo's size, pixel by pixel"
    if other == size[::-1]:
        hint = "the photo is turned by its EXIF orientation, the mask was drawn on the unturned one: turn the mask too"
    what = f"the photo is {size[1]} x {size[0]}, its mask {path} is {other[1]} x {other[0]}"
    raise DataError(what, where=record.image_path, hint=hint, kind="size_mismatch")


@dataclass(frozen=True)
class PanopticPng:
    """COCO panoptic's PNG of segment ids."""

    def __call__(self, record: Record, size: tuple[int, int], *, max_mpx: float) -> Annotation:
        """See `Decoder`."""
        ids = read_panoptic(record.label_path, max_mpx=max_mpx)
        same_size(record, size, ids.shape, path=record.label_path)
        return Annotation(*index_map(ids, record.segments, where=record.label_path))
