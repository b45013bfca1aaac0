"""What an annotation says about a photo -> Record: paths, size, segments, no pixels; RecordTable: many of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, overload

import numpy as np

from oneformer.data.task import TASKS

if TYPE_CHECKING:
    from oneformer.data.annotation import Annotation


class SegmentInfo(NamedTuple):
    """One segment of a photo: its id in the id map (never 0: void), its class, whether it is a crowd, its pixels.

    `only_semantic` marks pixels whose class is known while the single objects are not: they count in the semantic
    task; in the others they are a crowd when `iscrowd` is set as well, else void.
    """

    segment_id: int
    class_id: int
    iscrowd: bool
    area: int
    only_semantic: bool = False


class Decoder(Protocol):
    """Turns the labels that a record points at into an Annotation; hashable, and small enough to send to workers."""

    def __call__(self, record: Record, size: tuple[int, int], *, max_mpx: float) -> Annotation:
        """The labels of a photo of `size` (height, width). Raises DataError when they are broken or of another size."""
        ...


@dataclass(frozen=True)
class Source:
    """What the photos of one data set have in common.

    `tasks` are those the labels are enough for. Where that is the instance task alone, only things were outlined, so
    pixels without a segment are background; elsewhere they are void.
    """

    format: str
    decoder: Decoder
    tasks: tuple[str, ...] = TASKS
    name: str = ""
    """The data set's name where a split has several; they are scored apart too."""

    @property
    def rest_is_background(self) -> bool:
        """Whether pixels without a segment are known to be no object."""
        return self.tasks == ("instance",)


@dataclass(frozen=True, slots=True)
class Record:
    """One annotated photo.

    `label_path` is where its labels lie. `width` and `height` are what the annotation says, in pixels, 0 where it does
    not say. `segments` are those that the annotation lists; formats whose labels are pictures list none. `shapes` tell
    where each segment's mask is, for formats with one mask for each segment.
    """

    image_id: int | str
    image_path: str
    label_path: str
    width: int
    height: int
    segments: tuple[SegmentInfo, ...]
    source: Source
    shapes: tuple[str, ...] = ()


class RecordTable(Sequence[Record]):
    """Records packed into a few arrays.

    Loader workers get a copy of the data set; a hundred thousand records as Python objects would cost each of them
    about a gigabyte (and, when forked, turn shared pages into private ones through reference counts). Here it is a few
    arrays.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        places: dict[Source, int] = {}
        heads = [
            json.dumps(
                [r.image_id, r.image_path, r.label_path, r.width, r.height, places.setdefault(r.source, len(places)),
                 r.shapes]
            ).encode("utf-8")
            for r in records
        ]  # fmt: skip
        self._sources = list(places)
        self._text = np.frombuffer(b"".join(heads), np.uint8)
        self._text_end = np.cumsum([0, *(len(head) for head in heads)])
        segments = [segment for r in records for segment in r.segments]
        self._segments = np.array(segments, np.int64).reshape(len(segments), 5)
        self._segments_end = np.cumsum([0, *(len(r.segments) for r in records)])

    def __len__(self) -> int:
        return len(self._text_end) - 1

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        head = json.loads(self._text[self._text_end[index] : self._text_end[index + 1]].tobytes())
        rows = self._segments[self._segments_end[index] : self._segments_end[index + 1]].tolist()
        segments = tuple(SegmentInfo(i, cls, bool(crowd), area, bool(only)) for i, cls, crowd, area, only in rows)
        image_id, image_path, label_path, width, height, source, shapes = head
        return Record(image_id, image_path, label_path, width, height, segments, self._sources[source], tuple(shapes))

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))


def tasks_of(records: Sequence[Record]) -> tuple[str, ...]:
    """The tasks that at least one of the records has labels for, in the order of TASKS."""
    found = {task for source in dict.fromkeys(r.source for r in records) for task in source.tasks}
    return tuple(task for task in TASKS if task in found)
