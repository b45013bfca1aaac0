"""One record -> what decoding it shows: its faults, its size, and how much of each class is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from oneformer.data.annotation import Annotation, read_annotated
from oneformer.data.decode import MAX_MPX
from oneformer.data.files import examples, open_binary
from oneformer.data.record import Record
from oneformer.errors import DataError

BLOCK = 1 << 20
# An area is a lie when it is off by more than this share and this many pixels: polygons and their pixels differ a bit.
AREA_SHARE, AREA_PIXELS = 0.1, 16


@dataclass(frozen=True)
class Seen:
    """What one record holds; a record with faults has no numbers."""

    fault: DataError | None = None
    warnings: tuple[DataError, ...] = ()
    digest: int = 0
    """Hash of the photo's bytes; 0 when it was not asked for or the file cannot be read."""
    size: tuple[int, int] = (0, 0)
    """(width, height)"""
    classes: tuple[tuple[int, int, int], ...] = ()
    """(class id, objects, pixels) of each class that is there; stuff is one object."""
    areas: tuple[tuple[int, int], ...] = ()
    """(class id, pixels) of each object."""
    labelled: int = 0
    """Pixels with a label."""


@dataclass(frozen=True)
class Inspector:
    """Looks at records; `hashed` also reads each photo's bytes for a hash."""

    things: tuple[int, ...]
    max_mpx: float = MAX_MPX
    hashed: bool = False

    def __call__(self, record: Record) -> Seen:
        """Decode one record; whatever is wrong with it is part of the answer."""
        digest = 0
        try:
            digest = photo_digest(record.image_path) if self.hashed else 0
            photo, labelled = read_annotated(record, max_mpx=self.max_mpx)
        except DataError as error:
            return Seen(fault=error, digest=digest)
        found: dict[int, list[int]] = {}
        areas = []
        for segment in labelled.segments:
            if segment.area and not segment.iscrowd:
                found.setdefault(segment.class_id, []).append(segment.area)
                if segment.class_id in self.things and not segment.only_semantic:
                    areas.append((segment.class_id, segment.area))
        classes = tuple(
            (class_id, len(own) if class_id in self.things else 1, sum(own)) for class_id, own in sorted(found.items())
        )
        return Seen(
            warnings=tuple(self._warnings(record, labelled)),
            digest=digest,
            size=photo.size,
            classes=classes,
            areas=tuple(areas),
            labelled=int((labelled.index > 0).sum()),
        )

    def _warnings(self, record: Record, labelled: Annotation) -> Iterator[DataError]:
        """What is suspicious, though it can be learned from."""
        told = {s.segment_id: s.area for s in record.segments}
        lies, empty = [], []
        for segment in labelled.segments:
            said = told.get(segment.segment_id, 0)
            if not segment.area:
                empty.append(segment.segment_id)
            elif said and abs(said - segment.area) > max(AREA_PIXELS, AREA_SHARE * segment.area):
                lies.append(f"{segment.segment_id}: {said} instead of {segment.area}")
        if lies:
            hint = "count the pixels of each mask again, or leave area out: it is not used here"
            yield _warning(record, "the areas of segments are not those of their masks", lies, hint, "wrong_area")
        if empty:
            hint = "an outline that covers no pixel's centre is too small to learn; remove it"
            yield _warning(record, "objects have masks without a pixel", empty, hint, "empty_segment")
        yield from self._stuff(record, labelled)
        if labelled.regions is not None:
            yield from self._overlaps(record, labelled)
        known = [s for s in labelled.segments if s.area and not (s.iscrowd and not s.only_semantic)]
        if not known and not record.source.rest_is_background:
            hint = "nothing can be learned from it: label it, or take it out"
            yield _warning(record, "the photo has no labelled pixel", [record.image_id], hint, "all_void")

    def _stuff(self, record: Record, labelled: Annotation) -> Iterator[DataError]:
        crowds = [s.segment_id for s in labelled.segments if s.iscrowd and s.class_id not in self.things]
        if crowds:
            hint = "a crowd is a group of things; set iscrowd to 0, or isthing of the class to 1"
            yield _warning(record, "segments of stuff are marked as crowds", crowds, hint, "thing_stuff")
        if record.source.format == "coco_panoptic":
            count = Counter(s.class_id for s in labelled.segments if not s.iscrowd and s.class_id not in self.things)
            several = sorted(c for c, n in count.items() if n > 1)
            if several:
                hint = "stuff is one segment for each class and photo; if these are objects, the class is a thing"
                what = "a stuff class has several segments in the photo"
                yield _warning(record, what, [f"class {c}" for c in several], hint, "thing_stuff")

    def _overlaps(self, record: Record, labelled: Annotation) -> Iterator[DataError]:
        assert labelled.regions is not None
        segments, regions = labelled.segments, labelled.regions.astype(np.float32)
        sizes = np.bincount(labelled.index.ravel(), minlength=len(regions)).astype(np.float32)
        shared = regions.T @ (regions * sizes[:, None])  # (N, N) pixels that two segments have in common
        alike, crossing = [], []
        for i, j in np.argwhere(np.triu(shared, 1) > 0).tolist():
            first, second = segments[i], segments[j]
            if first.iscrowd or second.iscrowd:
                continue
            names = f"{first.segment_id} and {second.segment_id}"
            stuff = first.class_id not in self.things and second.class_id not in self.things
            if first.class_id == second.class_id and shared[i, j] == first.area == second.area:
                alike.append(names)
            elif record.source.format == "object_masks" or (stuff and first.class_id != second.class_id):
                crossing.append(names)
        if alike:
            yield _warning(record, "two objects have the same mask", alike, "remove one of them", "duplicate_object")
        if crossing:
            hint = "each pixel belongs to one object or one stuff class; the smaller mask lies on top"
            yield _warning(record, "masks overlap", crossing, hint, "overlap")


def _warning(record: Record, what: str, items: Sequence[object], hint: str, kind: str) -> DataError:
    told = f"{what}: {examples(items)} (image id {record.image_id})"
    return DataError(told, where=record.label_path, hint=hint, kind=kind, items=[str(i) for i in items])


def photo_digest(path: str) -> int:
    """A 63-bit hash of a file's bytes, never 0. Raises DataError when it is missing."""
    total = blake2b(digest_size=8)
    with open_binary(path, what="image file") as file:
        while block := file.read(BLOCK):
            total.update(block)
    return (int.from_bytes(total.digest(), "big") >> 1) or 1
