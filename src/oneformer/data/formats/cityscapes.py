"""Cityscapes' fine annotations as they are published -> records: 19 classes, 8 of them things.

    leftImg8bit/{train,val}/<city>/<city>_<sequence>_<frame>_leftImg8bit.png
    gtFine/{train,val}/<city>/<city>_<sequence>_<frame>_gtFine_instanceIds.png   label, or label * 1000 + object
                                                        ..._gtFine_labelIds.png  label

`annotations` of the spec names a folder of the second line (`gtFine/train`); the photos are found beside it. Groups of
things, whose pixels hold the label alone, are crowds, and class pixels for the semantic task: as Cityscapes' own
scripts count them. Without instanceIds files the labels are enough for the semantic task only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneformer.data.files import Faults, examples
from oneformer.data.formats.ade20k import builtin
from oneformer.data.formats.folders import NO_IMAGE, files_below, sibling
from oneformer.data.formats.part import Part, need_folder
from oneformer.data.label_images import ClassImage, CodedImage
from oneformer.data.record import Record, Source
from oneformer.data.task import TASKS
from oneformer.errors import DataError, SpecError

if TYPE_CHECKING:
    from oneformer.data.labels import LabelMap

LABELS = tuple(range(34))  # 0 unlabeled .. 33 bicycle; those beside the 19 classes are not scored
PHOTO = "_leftImg8bit"
NO_OBJECTS = "an annotated image has no instanceIds file"


def categories(_part: Part) -> tuple[list[Any] | None, set[int]]:
    """See `Format`: the 19 classes with Cityscapes' own label ids."""
    return builtin("cityscapes"), set()


def read(part: Part, labels: LabelMap, faults: Faults) -> Iterator[Record]:
    """See `Format`."""
    root = need_folder(part, "annotations")
    images = (
        Path(part.images)
        if part.images
        else sibling(root, "gtFine", "leftImg8bit") or sibling(root, "gtCoarse", "leftImg8bit")
    )
    if images is None or not images.is_dir():
        hint = f"set {part.key}.images, or keep leftImg8bit and gtFine side by side"
        raise SpecError("the folder of the photos is not found", where=f"{part.key}.images", hint=hint)
    files = files_below(root, (".png",))
    stems = {s.removesuffix("_labelIds"): n for s, n in files.items() if s.endswith("_labelIds")}
    objects = {s.removesuffix("_instanceIds"): n for s, n in files.items() if s.endswith("_instanceIds")}
    if not stems and not objects:
        hint = f"{root} holds {examples(files.values())}"
        raise DataError(
            "there is no *_labelIds.png and no *_instanceIds.png below the folder", where=str(root), hint=hint
        )
    for stem in stems if objects else ():
        if stem not in objects:
            faults.add(NO_OBJECTS, root / stems[stem], kind="missing_file")
    source = _source(labels, with_objects=bool(objects))
    photos, found = files_below(images), 0
    for stem, name in (objects or stems).items():
        own = stem.rpartition("_")[0]  # less _gtFine
        photo = photos.get(own + PHOTO) or photos.get(own)
        if photo is None:
            faults.add(NO_IMAGE, images / f"{own}{PHOTO}.png", kind="missing_file")
        else:
            found += 1
            yield Record(Path(own).name, str(images / photo), str(root / name), 0, 0, (), source)
    hint = f"{images} holds {examples(photos.values())}"
    faults.explain(NO_IMAGE, hint, kind="wrong_level" if photos and not found else "missing_file")


def _source(labels: LabelMap, *, with_objects: bool) -> Source:
    classes = tuple(sorted(labels.class_of.items()))
    if with_objects:
        return Source("cityscapes", CodedImage(1000, classes, labels.thing_ids, LABELS, groups_below=1000), TASKS)
    # -1, the licence plate, is 255 in a picture of bytes.
    void = tuple(label for label in (*LABELS, 255) if label not in labels.class_of)
    return Source("cityscapes", ClassImage(classes, (), void, labels.thing_ids), ("semantic",))
