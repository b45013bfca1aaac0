"""Mapillary Vistas as it is published -> records: the classes that its config file marks for evaluation.

    config_v1.2.json                                     labels in the order of their numbers: name, instances, evaluate
    training/images/<key>.jpg
    training/v1.2/{labels,instances}/<key>.png           label, and label * 256 + object (16 bit)

Version 1.2 alone has no folder `v1.2` and calls the file config.json. `annotations` of the spec names the folder that
holds `labels` and `instances` (`training/v1.2`, or `training`); the photos and the config file are found beside or
above it. Labels that are not evaluated (unlabeled) are void.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneformer.data.files import Faults, examples, read_json
from oneformer.data.formats.folders import pair
from oneformer.data.formats.part import Part, need_folder
from oneformer.data.label_images import ClassImage, CodedImage
from oneformer.data.record import Record, Source
from oneformer.data.task import TASKS
from oneformer.errors import DataError, SpecError

if TYPE_CHECKING:
    from oneformer.data.labels import LabelMap

MOST_LABELS = 256


def categories(part: Part) -> tuple[list[Any] | None, set[int]]:
    """See `Format`: the evaluated labels of the config file; their ids are their places in it."""
    entries = _config(part)
    kept = [
        {"id": i, "name": e["name"], "isthing": int(bool(e["instances"])), "color": e["color"]}
        for i, e in enumerate(entries)
        if e["evaluate"]
    ]
    return kept, set()


def read(part: Part, labels: LabelMap, faults: Faults) -> Iterator[Record]:
    """See `Format`."""
    root = need_folder(part, "annotations")
    images = Path(part.images) if part.images else _beside(root, "images")
    if images is None or not images.is_dir():
        hint = f"set {part.key}.images, or keep images beside the folder of the labels"
        raise SpecError("the folder of the photos is not found", where=f"{part.key}.images", hint=hint)
    classes, numbers = tuple(sorted(labels.class_of.items())), tuple(range(len(_config(part))))
    source, masks = Source("mapillary", CodedImage(256, classes, labels.thing_ids, numbers), TASKS), root / "instances"
    if not masks.is_dir():
        void = tuple(n for n in numbers if n not in labels.class_of)
        source, masks = (
            Source("mapillary", ClassImage(classes, (), void, labels.thing_ids), ("semantic",)),
            root / "labels",
        )
    if not masks.is_dir():
        hint = f"{root} holds {examples(sorted(p.name for p in root.iterdir()))}"
        raise DataError("the folder holds neither instances nor labels", where=str(root), hint=hint, kind="wrong_level")
    for found in pair(images, masks, faults, key=part.key, suffixes=(".png",)):
        yield Record(found.stem, found.image, found.labels, 0, 0, (), source)


def _beside(root: Path, name: str) -> Path | None:
    return next((folder / name for folder in (root, root.parent) if (folder / name).is_dir()), None)


def _config(part: Part) -> list[dict[str, Any]]:
    """The entries of the config file that belongs to the folder. Raises DataError when it is missing or broken."""
    root = Path(part.annotations)
    names = (f"config_{root.name}.json", "config.json", "config_v1.2.json")
    places = [folder / name for name in names for folder in (root, *list(root.absolute().parents)[:3])]
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        hint = "keep the config file of the release two folders above the labels, as it is published"
        raise DataError(f"there is no {names[0]} near the labels", where=str(root), hint=hint, kind="missing_file")
    content = read_json(path, what="config file")
    entries = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not 0 < len(entries) <= MOST_LABELS:
        raise DataError("the config file has no list 'labels'", where=str(path))
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict) or not {"name", "instances", "evaluate", "color"} <= set(entry):
            what = "a label of the config file has no name, instances, evaluate or color"
            raise DataError(f"{what}: labels[{place}]", where=str(path))
    return entries
