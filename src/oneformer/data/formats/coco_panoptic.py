"""COCO panoptic annotations (JSON, PNG ids) -> records, or every fault that can be found without decoding a pixel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneformer.data.annotation import PanopticPng
from oneformer.data.files import Faults
from oneformer.data.formats.coco_file import (
    WHAT,
    CocoFile,
    Entry,
    is_int,
    listed_annotations,
    listed_categories,
)
from oneformer.data.formats.folders import LABEL_SUFFIXES, NO_IMAGE, NO_LABELS, Folder
from oneformer.data.formats.part import Part, need_folders
from oneformer.data.json_lists import read_object
from oneformer.data.record import Record, SegmentInfo, Source
from oneformer.data.task import TASKS

if TYPE_CHECKING:
    from oneformer.data.labels import LabelMap

MAX_SEGMENT_ID = 256**3 - 1  # three colour channels of 8 bit
NO_MASK = "there is no mask file"
Fault = tuple[str, str, str, str]
"""(what, item, hint, kind)"""


def categories(part: Part) -> tuple[list[Any] | None, set[int]]:
    """See `Format`; malformed annotations are left to the reader, which names them."""
    content = read_object(part.annotations, what=WHAT)
    used: set[int] = set()
    for annotation in listed_annotations(content):
        segments = annotation.get("segments_info")
        used |= {
            segment["category_id"]
            for segment in (segments if isinstance(segments, list) else [])
            if isinstance(segment, dict) and is_int(segment.get("category_id"))
        }
    return listed_categories(content), used


def read(part: Part, labels: LabelMap, faults: Faults) -> Iterator[Record]:
    """See `Format`; in file order, images without an annotation are left out and counted."""
    images, panoptic = need_folders(part, "images", "panoptic")
    yield from _Reader(part, images, panoptic, labels=labels, faults=faults).records()


class _Reader(CocoFile):
    """One annotation file with its two folders."""

    def __init__(self, part: Part, images: Path, panoptic: Path, *, labels: LabelMap, faults: Faults) -> None:
        super().__init__(part, images, faults)
        self.labels = labels
        self.masks = Folder(panoptic)
        self.source = Source("coco_panoptic", PanopticPng(), self.tasks(TASKS))

    def records(self) -> Iterator[Record]:
        """The records without fault; the faults are in `self.faults`."""
        annotated: set[int | str] = set()
        masks: set[str] = self.used if self.masks.root == self.folder.root else set()
        for place, annotation in enumerate(self.listed("annotations")):
            self.own_id(annotation, place)
            image = self._image(annotation, place)
            if image is None:
                continue
            if image["id"] in annotated:
                self.faults.add("an image has two annotations", f"image id {image['id']}", kind="duplicate_id")
                continue
            annotated.add(image["id"])
            masks.add(str(annotation["file_name"]))
            record = self._record(annotation, place, image)
            if record is not None:
                yield record
        self.explain(NO_IMAGE, self.folder, "images")
        self.explain(NO_MASK, self.masks, "panoptic")
        for image_id, entry in self.images.items():
            if image_id not in annotated:
                self.used.add(str(entry.get("file_name")))
                self.faults.add(NO_LABELS, entry.get("file_name", image_id), kind="unlabelled_image", warning=True)
        self.note_unused(self.folder, "images", self.used)
        if self.masks.root != self.folder.root:
            self.note_unused(self.masks, "panoptic", masks, LABEL_SUFFIXES)

    def _image(self, annotation: Any, place: int) -> Entry | None:
        """The image that an annotation belongs to, when the annotation has the keys that are needed."""
        if not isinstance(annotation, dict):
            self.faults.add("an annotation is not an object", f"annotations[{place}]")
            return None
        absent = [name for name in ("image_id", "file_name", "segments_info") if name not in annotation]
        if absent:
            instance = "segmentation" in annotation or "bbox" in annotation
            hint = (
                f"this is a COCO instance file: leave {self.key}.panoptic empty to read it as one" if instance else ""
            )
            self.faults.add(f"an annotation has no {' and no '.join(absent)}", f"annotations[{place}]", hint=hint)
            return None
        return self.image_of(annotation, place)

    def _record(self, annotation: Entry, place: int, image: Entry) -> Record | None:
        """One record, or None when its files or segments are at fault."""
        photo = self.photo(image)
        mask = self.inside(self.masks, annotation["file_name"], what=NO_MASK)
        segments = self._segments(annotation, place)
        if photo is None or mask is None or segments is None:
            return None
        path, width, height = photo
        return Record(image["id"], path, mask, width, height, segments, self.source)

    def _segments(self, annotation: Entry, place: int) -> tuple[SegmentInfo, ...] | None:
        """The segments of one annotation; None when one of them is at fault."""
        where = f"image id {annotation['image_id']}"
        if not isinstance(annotation["segments_info"], list):
            self.faults.add("segments_info is not a list", f"annotations[{place}]")
            return None
        found: dict[int, SegmentInfo] = {}
        sound = True
        for segment in annotation["segments_info"]:
            fault = self._segment_fault(segment, found, where)
            if fault is None:
                category = self.labels.class_of[segment["category_id"]]
                crowd, area = bool(segment.get("iscrowd", 0)), int(segment.get("area") or 0)
                only = self.labels.is_thing[category] and self.source.tasks == ("semantic",)
                found[segment["id"]] = SegmentInfo(segment["id"], category, crowd, area, only)
            else:
                what, item, hint, kind = fault
                self.faults.add(what, item, hint=hint, kind=kind)
                sound = False
        return tuple(found.values()) if sound else None

    def _segment_fault(self, segment: Any, found: dict[int, SegmentInfo], where: str) -> Fault | None:
        """What is wrong with one entry of segments_info, or None."""
        if not isinstance(segment, dict) or not {"id", "category_id"} <= set(segment):
            return "a segment has no id or no category_id", where, "", "annotation"
        segment_id, category_id = segment["id"], segment["category_id"]
        if not is_int(segment_id) or not 0 < segment_id <= MAX_SEGMENT_ID:
            hint = "the mask's colour is R + 256 G + 65536 B, and 0 means unlabelled"
            what = f"a segment id is not between 1 and {MAX_SEGMENT_ID}"
            return what, f"{segment_id!r} ({where})", hint, "annotation"
        if segment_id in found:
            return "two segments of an image have the same id", f"{segment_id} ({where})", "", "duplicate_id"
        if not is_int(category_id) or category_id not in self.labels.class_of:
            item, hint = f"id {category_id!r} ({where})", self.no_category()
            return "a category is not in the label map", item, hint, "unknown_category"
        crowd, area = segment.get("iscrowd", 0), segment.get("area") or 0
        if crowd not in (0, 1) or not isinstance(area, int | float) or not 0 <= area < 2**62:
            what = "iscrowd is not 0 or 1, or area no number of pixels"
            return what, f"{crowd!r} and {area!r} ({where})", "", "annotation"
        return None
