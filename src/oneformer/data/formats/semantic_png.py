"""A folder of photos beside a folder of label images (numbers, palette or colours) and a label map -> records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from oneformer.data.files import Faults
from oneformer.data.formats.folders import LABEL_SUFFIXES, pair
from oneformer.data.formats.part import Part, need_folders
from oneformer.data.label_images import ClassImage
from oneformer.data.record import Record, Source

if TYPE_CHECKING:
    from oneformer.data.labels import LabelMap


def categories(_part: Part) -> tuple[list[Any] | None, set[int]]:
    """See `Format`: pictures tell no classes, so a label map is needed."""
    return None, set()


def read(part: Part, labels: LabelMap, faults: Faults) -> Iterator[Record]:
    """See `Format`; the labels are enough for the semantic task only."""
    images, masks = need_folders(part, "images", "annotations")
    source = Source("semantic_png", class_image(labels, part.void_values), ("semantic",))
    for found in pair(images, masks, faults, key=part.key, suffixes=LABEL_SUFFIXES):
        yield Record(found.stem, found.image, found.labels, 0, 0, (), source)


def class_image(labels: LabelMap, void_values: tuple[int, ...]) -> ClassImage:
    """The decoder for pictures with the label map's own numbers or colours."""
    numbers = tuple(sorted(labels.class_of.items()))
    packed = [(r | g << 8 | b << 16, class_id) for class_id, (r, g, b) in enumerate(labels.colors)]
    void = tuple(v for v in void_values if v not in labels.class_of)
    return ClassImage(numbers, tuple(sorted(packed)), void, labels.thing_ids)
