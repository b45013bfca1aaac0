"""ADE20K as the scene parsing challenge ships it -> records: 150 classes, 100 of them things.

    ADEChallengeData2016/
      images/{training,validation}/ADE_train_00000001.jpg
      annotations/{training,validation}/ADE_train_00000001.png            0 = other, 1..150 = class
      annotations_instance/{training,validation}/ADE_train_00000001.png   red = 1..100, the things; green = object

`annotations` of the spec names a folder of the second line; the others are found beside it. With the third line, stuff
is taken from the class image and things are laid over it, as OneFormer's data is prepared; without
it the labels are enough for the semantic task only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oneformer.data.annotation import Annotation, same_size
from oneformer.data.decode import read_label_image
from oneformer.data.files import Faults, examples
from oneformer.data.formats.folders import pair, sibling
from oneformer.data.formats.part import Part, need_folder
from oneformer.data.label_images import Pairs, by_class
from oneformer.data.record import Record, SegmentInfo, Source
from oneformer.data.task import TASKS
from oneformer.errors import DataError, SpecError

if TYPE_CHECKING:
    from oneformer.data.labels import LabelMap


@cache
def builtin(name: str) -> list[Any]:
    """A class list that ships with the package."""
    path = resources.files("oneformer").joinpath(f"assets/classes/{name}.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(found, list)
    return found


def categories(_part: Part) -> tuple[list[Any] | None, set[int]]:
    """See `Format`: the 150 classes."""
    return builtin("ade20k"), set()


def read(part: Part, labels: LabelMap, faults: Faults) -> Iterator[Record]:
    """See `Format`."""
    classes = need_folder(part, "annotations")
    images = Path(part.images) if part.images else sibling(classes, "annotations", "images")
    if images is None or not images.is_dir():
        hint = f"set {part.key}.images, or keep the published folders side by side"
        raise SpecError("the folder of the photos is not found", where=f"{part.key}.images", hint=hint)
    objects = sibling(classes, "annotations", "annotations_instance")
    things = [entry["id"] for entry in builtin("ade20k") if entry["isthing"]]
    decoder = Ade20k(
        tuple((category + 1, class_id) for category, class_id in sorted(labels.class_of.items())),
        tuple((place, labels.class_of[c]) for place, c in enumerate(things, start=1) if c in labels.class_of),
        labels.thing_ids,
        str(objects or ""),
        str(classes),
    )
    source = Source("ade20k", decoder, TASKS if objects else ("semantic",))
    for found in pair(images, classes, faults, key=part.key, suffixes=(".png",)):
        yield Record(found.stem, found.image, found.labels, 0, 0, (), source)


@dataclass(frozen=True)
class Ade20k:
    """`numbers` lead from the class image's pixels, `red` from the object image's red channel to class ids.

    `objects` is the folder of object images beside `folder`, that of the class images; empty when there is none.
    """

    numbers: Pairs
    red: Pairs
    things: tuple[int, ...]
    objects: str
    folder: str

    def __call__(self, record: Record, size: tuple[int, int], *, max_mpx: float) -> Annotation:
        """See `Decoder`."""
        numbers = read_label_image(record.label_path, max_mpx=max_mpx).values
        same_size(record, size, numbers.shape, path=record.label_path)
        classes = _looked_up(numbers, self.numbers, void=0, path=record.label_path)
        if not self.objects:
            return by_class(classes, self.things)
        path = str(Path(self.objects) / Path(record.label_path).relative_to(self.folder))
        pixels = read_label_image(path, max_mpx=max_mpx)
        same_size(record, size, pixels.values.shape, path=path)
        if not pixels.is_color:
            what = "the object image is not RGB (red: class, green: object)"
            raise DataError(what, where=path, hint="take it from annotations_instance", kind="wrong_encoding")
        return self._merged(classes, pixels.values & 0xFFFF, path)

    def _merged(self, classes: np.ndarray, coded: np.ndarray, path: str) -> Annotation:
        """Stuff by class, every object on top; thing pixels without an object count in the semantic task only."""
        base = by_class(classes, self.things)
        segments = list(base.segments)
        objects = np.where(coded >> 8 > 0, coded, 0)
        found, places = np.unique(objects, return_inverse=True)
        known = dict(self.red)
        strange = [int(v) & 255 for v in found if v and int(v) & 255 not in known]
        if strange:
            what = f"the object image has red values outside of 1 to 100: {examples(sorted(set(strange)))}"
            raise DataError(what, where=path, kind="wrong_encoding", items=[str(v) for v in strange])
        table = np.zeros(len(found), np.int32)
        next_id = max([0, *(s.segment_id for s in segments)]) + 1
        for i, value in enumerate(found.tolist()):
            if value:
                segments.append(SegmentInfo(next_id, known[value & 255], False, 0))
                table[i], next_id = len(segments), next_id + 1
        over = table[places].reshape(classes.shape)
        index = np.where(over > 0, over, base.index)
        areas = np.bincount(index.ravel(), minlength=len(segments) + 1)[1:]
        kept = np.flatnonzero(areas)
        small = np.zeros(len(segments) + 1, np.int16)
        small[kept + 1] = np.arange(1, len(kept) + 1)
        return Annotation(small.take(index), tuple(segments[i]._replace(area=int(areas[i])) for i in kept))


def _looked_up(values: np.ndarray, pairs: Pairs, *, void: int, path: str) -> np.ndarray:
    """Numbers (H, W) -> class ids, -1 for `void`. Raises DataError for others."""
    known = dict(pairs)
    found, places = np.unique(values, return_inverse=True)
    strange = [int(v) for v in found if v != void and not 0 < v <= 150]
    if strange:
        what = f"the label image has numbers outside of 0 to 150: {examples(strange)}"
        hint = "the published files have 0 for other and 1 to 150; converted ones are read by format semantic_png"
        raise DataError(what, where=path, hint=hint, kind="wrong_encoding", items=[str(v) for v in strange])
    return np.array([known.get(int(v), -1) for v in found])[places].reshape(values.shape)
