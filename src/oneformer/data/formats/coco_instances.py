"""COCO instance annotations (JSON with polygons or run-length masks) -> records; masks may overlap."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from oneformer.data.files import Faults
from oneformer.data.formats.coco_file import WHAT, CocoFile, Entry, is_id, is_int, listed_annotations, listed_categories
from oneformer.data.formats.folders import NO_IMAGE
from oneformer.data.formats.part import Part, need_folder
from oneformer.data.formats.shape_records import rest_class
from oneformer.data.json_lists import read_object
from oneformer.data.record import Record, SegmentInfo, Source
from oneformer.data.shapes import Outlines, segmentation_fault
from oneformer.data.task import TASKS

if TYPE_CHECKING:
    from oneformer.data.labels import LabelMap


def categories(part: Part) -> tuple[list[Any] | None, set[int]]:
    """See `Format`; a class counts as a thing unless the file says otherwise."""
    content = read_object(part.annotations, what=WHAT)
    used = {a["category_id"] for a in listed_annotations(content) if is_int(a.get("category_id"))}
    return listed_categories(content), used


def read(part: Part, labels: LabelMap, faults: Faults) -> Iterator[Record]:
    """See `Format`; every image of the file is a record, also one without an object."""
    file = CocoFile(part, need_folder(part, "images"), faults)
    rest = rest_class(part, labels)
    tasks = file.tasks(TASKS if rest is not None else ("instance",))
    source = Source("coco_instances", Outlines(labels.thing_ids, rest=rest), tasks)
    objects = _objects(file, labels)
    for image in file.images.values():
        photo = file.photo(image)
        if photo is not None:
            path, width, height = photo
            own = objects.pop(image["id"], [])
            # Ids of objects are unique in the file but may be texts or large: in a photo they are simply counted.
            segments = tuple(s._replace(segment_id=n) for n, (s, _) in enumerate(own, start=1))
            yield Record(image["id"], path, part.annotations, width, height, segments, source, tuple(t for _, t in own))
    file.explain(NO_IMAGE, file.folder, "images")
    file.note_unused(file.folder, "images", file.used)


def _objects(file: CocoFile, labels: LabelMap) -> dict[int | str, list[tuple[SegmentInfo, str]]]:
    """Image id -> its objects: segment and shape as JSON; the file's own copy is let go of as it is read."""
    found: dict[int | str, list[tuple[SegmentInfo, str]]] = {}
    for place, annotation in enumerate(file.listed("annotations")):
        file.own_id(annotation, place, required=True)
        made = _object(file, annotation, place, labels)
        if made is not None:
            found.setdefault(annotation["image_id"], []).append(made)
        if isinstance(annotation, dict):
            annotation.pop("segmentation", None)
    return found


def _object(file: CocoFile, annotation: Any, place: int, labels: LabelMap) -> tuple[SegmentInfo, str] | None:
    """One object, or None when it is at fault."""
    item = f"annotations[{place}]"
    if not isinstance(annotation, dict):
        file.faults.add("an annotation is not an object", item)
        return None
    absent = [name for name in ("image_id", "category_id", "segmentation") if name not in annotation]
    if absent:
        hint = ""
        if "segments_info" in annotation:
            hint = f"this is a COCO panoptic file: set {file.key}.panoptic to the folder of its PNG files"
        elif absent == ["segmentation"]:
            hint = "a box is not enough to learn masks from: give polygons or a run-length mask"
        file.faults.add(f"an annotation has no {' and no '.join(absent)}", item, hint=hint)
        return None
    if file.image_of(annotation, place) is None:
        return None
    item = f"id {annotation['id']!r}" if is_id(annotation.get("id")) else item
    item = f"{item} (image id {annotation['image_id']})"
    category_id = annotation["category_id"]
    if not is_int(category_id) or category_id not in labels.class_of:
        what, hint = "a category is not in the label map", file.no_category()
        file.faults.add(what, f"id {category_id!r}, {item}", hint=hint, kind="unknown_category")
        return None
    fault = segmentation_fault(annotation["segmentation"])
    if fault:
        kind = "empty_segment" if annotation["segmentation"] == [] else "broken_shape"
        file.faults.add(fault, item, hint="mend or remove the object", kind=kind)
        return None
    return _segment(file, annotation, labels.class_of[category_id], item)


def _segment(file: CocoFile, annotation: Entry, class_id: int, item: str) -> tuple[SegmentInfo, str] | None:
    crowd, area = annotation.get("iscrowd", 0), annotation.get("area") or 0
    if crowd not in (0, 1) or not isinstance(area, int | float) or not 0 <= area < 2**62:
        file.faults.add("iscrowd is not 0 or 1, or area no number of pixels", f"{crowd!r} and {area!r}, {item}")
        return None
    shape = json.dumps(annotation["segmentation"], separators=(",", ":"))
    return SegmentInfo(0, class_id, bool(crowd), int(area)), shape
