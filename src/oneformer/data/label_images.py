"""Pictures whose pixels tell the class, or class and object -> the Annotation of a photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from oneformer.data.annotation import Annotation, same_size
from oneformer.data.decode import LabelPixels, read_label_image
from oneformer.data.files import examples
from oneformer.data.record import Record, SegmentInfo
from oneformer.errors import DataError

BLACK = 0
Pairs = tuple[tuple[int, int], ...]
"""(what a pixel holds, class id), in rising order."""


@dataclass(frozen=True)
class ClassImage:
    """One class per pixel: as a number (one channel, or the index of a palette) or as a colour.

    `numbers` and `colors` (packed, R + 256 G + 65536 B) lead to class ids; numbers in `void` and, in colour images,
    black mean no label, unless they are a class's. A palette image whose colours are all class colours is read by
    colour: tools that save few colours number them anew in each file.
    """

    numbers: Pairs
    colors: Pairs
    void: tuple[int, ...]
    things: tuple[int, ...]

    def __call__(self, record: Record, size: tuple[int, int], *, max_mpx: float) -> Annotation:
        """See `Decoder`."""
        pixels = read_label_image(record.label_path, max_mpx=max_mpx)
        same_size(record, size, pixels.values.shape, path=record.label_path)
        values, by_color = self._meant(pixels)
        known = dict(self.colors if by_color else self.numbers)
        void = (BLACK,) if by_color else self.void
        found, places = np.unique(values, return_inverse=True)
        strange = [int(v) for v in found if v not in known and v not in void]
        if strange:
            raise _strange(record, strange, by_color=by_color, pixels=pixels, classes=self)
        classes = np.array([known.get(int(v), -1) for v in found])
        return by_class(classes[places].reshape(size), self.things)

    def _meant(self, pixels: LabelPixels) -> tuple[np.ndarray, bool]:
        """The values to look up, and whether they are colours."""
        if pixels.palette is None or not self.colors:
            return pixels.values, pixels.is_color
        used = np.unique(pixels.values)
        if not len(pixels.palette) or used.max() >= len(pixels.palette):
            return pixels.values, False
        shown = {int(v) for v in pixels.palette[used]} - {BLACK}
        if shown and shown <= {color for color, _ in self.colors}:
            return pixels.palette[pixels.values], True
        return pixels.values, False


def _strange(
    record: Record, values: list[int], *, by_color: bool, pixels: LabelPixels, classes: ClassImage
) -> DataError:
    """The message for values without a class, with what they most likely are."""
    if not by_color:
        hint = "add them to the label map, or to dataset.void_values when they mean no label"
        what = f"the label image has numbers that are no class: {examples(values)}"
        return DataError(
            what, where=record.label_path, hint=hint, kind="unknown_category", items=[str(v) for v in values]
        )
    names = [str((v & 255, v >> 8 & 255, v >> 16)) for v in values]
    what = f"the label image has colours that are no class: {examples(names)}"
    known = {color for color, _ in classes.colors}
    hint = "give each class its color in the label map"
    if {(v & 255) << 16 | v & 0xFF00 | v >> 16 for v in values} <= known:
        hint = "red and blue changed places when the image was saved (OpenCV writes BGR): swap them"
    elif (pixels.values & 255 == pixels.values >> 16).all() and (pixels.values & 255 == pixels.values >> 8 & 255).all():
        hint = "red, green and blue are equal everywhere: save the labels with one channel"
    elif len(values) > 3 * max(1, len(known)):
        hint = "so many colours come from smoothing or JPEG: save the labels without either, and scale by nearest pixel"
    return DataError(what, where=record.label_path, hint=hint, kind="wrong_encoding", items=names)


def by_class(classes: np.ndarray, things: Sequence[int]) -> Annotation:
    """Class ids (H, W), -1 for void -> one segment for each class; things count in the semantic task only."""
    areas = np.bincount((classes + 1).ravel())[1:]
    present = np.flatnonzero(areas)
    table = np.zeros(len(areas) + 1, np.int16)
    table[present + 1] = np.arange(1, len(present) + 1)
    segments = tuple(SegmentInfo(int(c) + 1, int(c), False, int(areas[c]), int(c) in things) for c in present)
    return Annotation(table.take(classes + 1), segments)


@dataclass(frozen=True)
class CodedImage:
    """One number per pixel that tells label and object: label * `factor` + object.

    `classes` leads from labels to class ids; other labels are void as long as they are in `labels`. Numbers below
    `groups_below` are labels themselves: of things, regions in which single objects were not told apart, which are a
    crowd, and class pixels for the semantic task.
    """

    factor: int
    classes: Pairs
    things: tuple[int, ...]
    labels: tuple[int, ...]
    groups_below: int = 0

    def __call__(self, record: Record, size: tuple[int, int], *, max_mpx: float) -> Annotation:
        """See `Decoder`."""
        values = read_label_image(record.label_path, max_mpx=max_mpx).values
        same_size(record, size, values.shape, path=record.label_path)
        known = dict(self.classes)
        found, places = np.unique(values, return_inverse=True)
        label_of = np.where(found < self.groups_below, found, found // self.factor)
        strange = sorted({int(label) for label in label_of} - set(self.labels))
        if strange:
            what = f"the image has labels that {record.source.format} does not have: {examples(strange)}"
            hint = "this is not the file with the numbers of single objects, or it was converted"
            raise DataError(
                what, where=record.label_path, hint=hint, kind="wrong_encoding", items=[str(label) for label in strange]
            )
        segments: list[SegmentInfo] = []
        table = np.zeros(len(found), np.int32)
        stuff: dict[int, int] = {}
        areas = np.bincount(places.ravel(), minlength=len(found))
        for i, (value, label) in enumerate(zip(found.tolist(), label_of.tolist(), strict=True)):
            class_id = known.get(label)
            if class_id is None:
                continue
            thing, group = class_id in self.things, value < self.groups_below
            if not thing and class_id in stuff:  # two labels that are one class
                place = stuff[class_id]
                segments[place] = segments[place]._replace(area=segments[place].area + int(areas[i]))
            else:
                place = len(segments)
                segments.append(SegmentInfo(place + 1, class_id, thing and group, int(areas[i]), thing and group))
                if not thing:
                    stuff[class_id] = place
            table[i] = place + 1
        index = table[places].reshape(size)
        return Annotation(index.astype(np.int16) if len(segments) < 2**15 else index, tuple(segments))
