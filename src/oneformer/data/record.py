"""What an annotation file says about a photo -> Record: paths, size, segments, no pixels; RecordTable: many of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np


class SegmentInfo(NamedTuple):
    """One segment of a photo: its id in the id map (never 0: void), its class, whether it is a crowd, its pixels."""

    segment_id: int
    class_id: int
    iscrowd: bool
    area: int


@dataclass(frozen=True, slots=True)
class Record:
    """One annotated photo. `width` and `height` are what the annotation file says, in pixels."""

    image_id: int | str
    image_path: str
    panoptic_path: str
    width: int
    height: int
    segments: tuple[SegmentInfo, ...]


class RecordTable(Sequence[Record]):
    """Records packed into a few arrays.

    Loader workers get a copy of the data set; a hundred thousand records as Python objects would cost each of them
    about a gigabyte (and, when forked, turn shared pages into private ones through reference counts). Here it is three
    arrays.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        heads = [
            json.dumps([r.image_id, r.image_path, r.panoptic_path, r.width, r.height]).encode("utf-8") for r in records
        ]
        self._text = np.frombuffer(b"".join(heads), np.uint8)
        self._text_end = np.cumsum([0, *(len(head) for head in heads)])
        segments = [segment for r in records for segment in r.segments]
        self._segments = np.array(segments, np.int64).reshape(len(segments), 4)
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
        segments = tuple(SegmentInfo(i, class_id, bool(crowd), area) for i, class_id, crowd, area in rows)
        return Record(head[0], head[1], head[2], head[3], head[4], segments)

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))
