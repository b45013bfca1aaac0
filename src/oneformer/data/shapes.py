"""Polygons and COCO's run-length masks -> the pixels they cover."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oneformer.data.annotation import Annotation, Layers, same_size
from oneformer.data.decode import read_mask
from oneformer.data.record import Record
from oneformer.errors import DataError

# A polygon's point may lie this many photo widths or heights outside; farther out the numbers mean something else.
OUTSIDE = 1.0


def polygon_fault(points: Any) -> str:
    """What is wrong with one polygon [x0, y0, x1, y1, ...] in pixels; empty when nothing is."""
    if not isinstance(points, list) or not all(_is_number(v) for v in points):
        return "a polygon is not a list of numbers"
    if len(points) % 2:
        return "a polygon has an odd number of coordinates"
    return "" if len(points) >= 6 else "a polygon has fewer than three points"


def segmentation_fault(shape: Any) -> str:
    """What is wrong with a COCO `segmentation`, as far as it shows without the photo's size; empty when nothing is."""
    if isinstance(shape, list):
        if not shape:
            return "an object has no mask: its segmentation is empty"
        return next((fault for polygon in shape if (fault := polygon_fault(polygon))), "")
    if isinstance(shape, dict):
        size, counts = shape.get("size"), shape.get("counts")
        if not isinstance(size, list) or len(size) != 2 or not all(isinstance(v, int) and v > 0 for v in size):
            return "a run-length mask has no size [height, width]"
        if isinstance(counts, str):
            return ""
        sound = isinstance(counts, list) and all(isinstance(v, int) and v >= 0 for v in counts)
        return "" if sound else "the counts of a run-length mask are neither text nor whole numbers"
    return "a segmentation is neither polygons nor a run-length mask"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def shape_mask(shape: Any, size: tuple[int, int]) -> np.ndarray:
    """A COCO `segmentation` -> bool (H, W) of `size`, pixel for pixel as the COCO tools draw it.

    Raises ValueError when it does not fit the photo.
    """
    if isinstance(shape, dict):
        if tuple(shape["size"]) != size:
            height, width = shape["size"]
            raise ValueError(f"a run-length mask is {width} x {height}, the photo {size[1]} x {size[0]}")
        counts = shape["counts"]
        runs = runs_of_text(counts) if isinstance(counts, str) else np.asarray(counts, np.int64)
        return mask_of_runs(runs, size)
    from faster_coco_eval.core import mask as coco

    height, width = size
    for polygon in shape:
        x, y = np.asarray(polygon[0::2], float) / width, np.asarray(polygon[1::2], float) / height
        if min(x.min(), y.min()) < -OUTSIDE or max(x.max(), y.max()) > 1 + OUTSIDE:
            raise ValueError("a polygon lies far outside of the photo")
    return np.asarray(coco.decode(coco.merge(coco.frPyObjects(shape, height, width)))).astype(bool)


def mask_of_runs(runs: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Run lengths, zeros first, down the columns -> bool (H, W). Raises ValueError when they do not fill the mask."""
    height, width = size
    if (runs < 0).any() or int(runs.sum()) != height * width:
        raise ValueError(f"the runs of a mask cover {int(runs.sum())} pixels, the photo has {height * width}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def runs_of_text(text: str) -> np.ndarray:
    """COCO's compressed text -> run lengths int64: groups of five bits, lowest first, each less 48, the sixth bit
    saying that more follow; from the fourth run on the difference to the run before the last."""
    runs: list[int] = []
    value = shift = 0
    for code in text.encode("utf-8"):
        bits = code - 48
        if not 0 <= bits < 64 or shift > 40:
            raise ValueError("a run-length mask holds characters that COCO's text has not")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("a run-length mask ends inside a number")
    return np.array(runs, np.int64)


def text_of_mask(mask: np.ndarray) -> str:
    """bool (H, W) -> COCO's compressed text."""
    from faster_coco_eval.core import mask as coco

    counts = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    return counts.decode("ascii") if isinstance(counts, bytes) else str(counts)


@dataclass(frozen=True)
class Outlines:
    """Masks told by polygons or run lengths in the record itself (COCO instances, LabelMe, YOLO).

    `relative` polygons are in 0..1 of the photo's width and height. `things` are the classes that lie on top of others;
    `rest` is the class of the pixels that no mask covers.
    """

    things: tuple[int, ...]
    relative: bool = False
    rest: int | None = None

    def __call__(self, record: Record, size: tuple[int, int], *, max_mpx: float) -> Annotation:  # noqa: ARG002
        """See `Decoder`; no file is opened."""
        if record.width:
            same_size(record, size, (record.height, record.width), path=f"in {record.label_path}")
        masks = []
        for segment, text in zip(record.segments, record.shapes, strict=True):
            try:
                masks.append(shape_mask(self._in_pixels(json.loads(text), size), size))
            except ValueError as error:
                raise DataError(
                    f"{error} (object {segment.segment_id} of image id {record.image_id})",
                    where=record.label_path,
                    hint="mend or remove the object",
                    kind="broken_shape",
                    items=[str(segment.segment_id)],
                ) from None
        return layered(record, masks, size, things=self.things, rest=self.rest)

    def _in_pixels(self, shape: Any, size: tuple[int, int]) -> Any:
        if not self.relative or isinstance(shape, dict):
            return shape
        height, width = size
        return [[v * (height if i % 2 else width) for i, v in enumerate(polygon)] for polygon in shape]


@dataclass(frozen=True)
class MaskFiles:
    """One picture for each object; `record.shapes` are their paths below `record.label_path`."""

    things: tuple[int, ...]
    rest: int | None = None

    def __call__(self, record: Record, size: tuple[int, int], *, max_mpx: float) -> Annotation:
        """See `Decoder`."""
        masks = []
        for name in record.shapes:
            path = f"{record.label_path}/{name}"
            mask = read_mask(path, max_mpx=max_mpx)
            same_size(record, size, mask.shape, path=path)
            masks.append(mask)
        return layered(record, masks, size, things=self.things, rest=self.rest)


def layered(
    record: Record, masks: Sequence[np.ndarray], size: tuple[int, int], *, things: Sequence[int], rest: int | None
) -> Annotation:
    """The record's masks laid over one another: crowds lowest, then stuff, then things, small ones over large ones."""
    areas = [int(mask.sum()) for mask in masks]
    segments = record.segments

    def height(place: int) -> tuple[int, bool, int, int]:
        segment = segments[place]
        return not segment.iscrowd, segment.class_id in things, -areas[place], place

    order = sorted(range(len(masks)), key=height)
    layers = Layers(size)
    for place in order:
        layers.add(masks[place])
    return layers.finish([segments[place] for place in order], rest=rest)
