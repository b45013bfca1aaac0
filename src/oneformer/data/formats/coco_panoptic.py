"""COCO panoptic annotations (JSON, PNG ids) -> records, or every fault that can be found without decoding a pixel."""

from __future__ import annotations

import logging
import os.path
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from oneformer.data.decode import image_size
from oneformer.data.files import Faults, as_list, examples, missing, raise_all, read_json
from oneformer.data.labels import LabelMap
from oneformer.data.record import Record, SegmentInfo
from oneformer.errors import DataError, SpecError, UserError

if TYPE_CHECKING:
    from oneformer.spec.data import SplitSpec

MAX_SEGMENT_ID = 256**3 - 1  # three colour channels of 8 bit
NO_IMAGE = "there is no image file"
NO_MASK = "there is no mask file"


def read(split: SplitSpec, labels: LabelMap, *, contiguous_id: bool = True, key: str = "dataset") -> list[Record]:
    """The records of all annotation files of one split, in file order.

    `images`, `annotations` and `panoptic` are one path or a list; a single folder serves all annotation files. `key` is
    the split's place in the spec, for messages. An image without an annotation is left out, counted and logged. Raises
    SpecError, DataError or UserErrors (all faults of all files together).
    """
    sources = _sources(split, key)
    errors: list[UserError] = []
    records: list[Record] = []
    for images, file, panoptic in sources:
        reader = _Reader(images, file, panoptic, labels=labels, contiguous_id=contiguous_id, key=key)
        try:
            records += reader.records()
        except UserError as error:
            errors.append(error)
        errors += reader.faults.errors()
    raise_all(errors)
    if not records:
        files = examples(file for _, file, _ in sources)
        raise DataError(
            "there is not one annotated image", where=files, hint=f"set {key}.annotations to a file with annotations"
        )
    return records


def _sources(split: SplitSpec, key: str) -> list[tuple[Path, str, Path]]:
    """(image folder, annotation file, mask folder) of each data set of the split."""
    annotations = as_list(split.annotations)
    columns = {"images": as_list(split.images), "annotations": annotations, "panoptic": as_list(split.panoptic)}
    errors: list[UserError] = []
    for name, paths in columns.items():
        if not paths:
            errors.append(SpecError("no path is given", where=f"{key}.{name}", hint=f"set {key}.{name}"))
        elif annotations and len(paths) not in (1, len(annotations)):
            what = f"{len(paths)} folders are given for {len(annotations)} annotation files"
            errors.append(SpecError(what, where=f"{key}.{name}", hint="give one folder, or one for each file"))
    for name in ("images", "panoptic"):
        for folder in dict.fromkeys(columns[name]):
            if not Path(folder).is_dir():
                errors.append(
                    missing(folder, what=f"folder {key}.{name}")
                    if not Path(folder).exists()
                    else _no_folder(folder, key, name)
                )
    raise_all(errors)
    count = len(annotations)
    images, panoptic = (columns[n] * count if len(columns[n]) == 1 else columns[n] for n in ("images", "panoptic"))
    return [(Path(i), a, Path(p)) for i, a, p in zip(images, annotations, panoptic, strict=True)]


def _no_folder(path: str, key: str, name: str) -> DataError:
    hint = "unpack it and name the folder" if path.endswith((".zip", ".tar", ".gz", ".tgz")) else "name the folder"
    return DataError(f"{key}.{name} is a file, not a folder", where=path, hint=hint)


@dataclass
class _Folder:
    """Which files lie below a folder; each subfolder is listed once instead of asking for every file."""

    root: Path
    listed: dict[str, set[str]] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        parent, _, leaf = name.rpartition("/")
        if parent not in self.listed:
            folder = self.root / parent
            self.listed[parent] = {item.name for item in folder.iterdir()} if folder.is_dir() else set()
        return leaf in self.listed[parent]

    def level_hint(self, key: str, name: str) -> str:
        """Advice when the missing file lies one level deeper or the name repeats the folder's own."""
        leaf = PurePosixPath(name).name
        for below in sorted(p for p in self.root.iterdir() if p.is_dir()):
            if (below / name).is_file() or (below / leaf).is_file():
                return f"{leaf} lies in {below}: set {key} to that folder"
        for other in (self.root / leaf, self.root.parent / name):
            if other.is_file():
                return f"{leaf} lies in {other.parent}"
        return f"{self.root} holds {examples(sorted(p.name for p in self.root.iterdir()))}"


class _Reader:
    """One annotation file with its two folders."""

    def __init__(
        self, images: Path, annotations: str, panoptic: Path, *, labels: LabelMap, contiguous_id: bool, key: str
    ) -> None:
        self.path = annotations
        self.images, self.panoptic = _Folder(images), _Folder(panoptic)
        self.class_of = labels.class_of
        self.contiguous_id = contiguous_id
        self.key = key
        self.faults = Faults(annotations)

    def records(self) -> list[Record]:
        """The records without fault; the faults are in `self.faults`."""
        content = read_json(self.path, what="annotation file")
        images = self._images(self._list(content, "images"))
        records: dict[int | str, Record] = {}
        annotated = set()
        for place, annotation in enumerate(self._list(content, "annotations")):
            image = self._image_of(annotation, place, images)
            if image is None:
                continue
            if image["id"] in annotated:
                self.faults.add("an image has two annotations", f"image id {image['id']}")
                continue
            annotated.add(image["id"])
            record = self._record(annotation, place, image)
            if record is not None:
                records[image["id"]] = record
        self._unique_annotation_ids(content["annotations"])
        for kind, folder, name in ((NO_IMAGE, self.images, "images"), (NO_MASK, self.panoptic, "panoptic")):
            if gone := self.faults.items(kind):
                self.faults.hint(
                    kind, folder.level_hint(f"{self.key}.{name}", os.path.relpath(str(gone[0]), folder.root))
                )
        self._say_unannotated(images, annotated)
        return list(records.values())

    def _list(self, content: Any, name: str) -> list[Any]:
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            hint = "a COCO panoptic file has the lists images, annotations and categories"
            raise DataError(f"the annotation file has no list '{name}'", where=self.path, hint=hint)
        return content[name]

    def _images(self, entries: list[Any]) -> dict[int | str, dict[str, Any]]:
        images: dict[int | str, dict[str, Any]] = {}
        for place, entry in enumerate(entries):
            if not isinstance(entry, dict) or not _is_id(entry.get("id")):
                self.faults.add("an image has no id (number or text)", f"images[{place}]")
            elif not isinstance(entry.get("file_name", entry.get("img_path")), str):
                self.faults.add("an image has no file_name", f"images[{place}], id {entry['id']}")
            elif entry["id"] in images:
                self.faults.add("two images have the same id", entry["id"])
            else:
                images[entry["id"]] = entry
        return images

    def _image_of(self, annotation: Any, place: int, images: dict[int | str, dict[str, Any]]) -> dict[str, Any] | None:
        """The image that an annotation belongs to, when the annotation has the keys that are needed."""
        if not isinstance(annotation, dict):
            self.faults.add("an annotation is not an object", f"annotations[{place}]")
            return None
        absent = [name for name in ("image_id", "file_name", "segments_info") if name not in annotation]
        if absent:
            instance = "segmentation" in annotation or "bbox" in annotation
            hint = (
                "this is a COCO instance file; the panoptic one lists segments_info for each image" if instance else ""
            )
            self.faults.add(f"an annotation has no {' and no '.join(absent)}", f"annotations[{place}]", hint=hint)
            return None
        if not _is_id(annotation["image_id"]) or annotation["image_id"] not in images:
            self.faults.add(
                "an annotation belongs to no image", f"annotations[{place}], image_id {annotation['image_id']!r}"
            )
            return None
        return images[annotation["image_id"]]

    def _record(self, annotation: dict[str, Any], place: int, image: dict[str, Any]) -> Record | None:
        """One record, or None when its files or segments are at fault."""
        image_path = self._image_path(image)
        panoptic_path = self._inside(self.panoptic, annotation["file_name"], kind=NO_MASK)
        segments = self._segments(annotation, place)
        if image_path is None or panoptic_path is None or segments is None:
            return None
        width, height = image.get("width"), image.get("height")
        if width is None and height is None:
            width, height = image_size(image_path)
        if not isinstance(width, int) or not isinstance(height, int) or min(width, height) < 1:
            item = f"image id {image['id']}: {width!r} and {height!r}"
            self.faults.add("width and height are not whole numbers above 0", item)
            return None
        return Record(image["id"], image_path, panoptic_path, width, height, segments)

    def _image_path(self, image: dict[str, Any]) -> str | None:
        """`img_path` wins over `file_name`; it may be absolute, everything else has to stay below the image folder."""
        path = image.get("img_path") or image["file_name"]
        if isinstance(path, str) and Path(path).is_absolute() and image.get("img_path"):
            if Path(path).is_file():
                return path
            self.faults.add("there is no file at img_path", path)
            return None
        return self._inside(self.images, path, kind=NO_IMAGE)

    def _inside(self, folder: _Folder, name: object, *, kind: str) -> str | None:
        """The path of an existing file below the folder."""
        if not isinstance(name, str) or not name:
            self.faults.add("a file_name is not text", repr(name))
            return None
        if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
            self.faults.add(
                "a file_name leads out of its folder",
                name,
                hint="file names are relative to the folder and have no '..'",
            )
            return None
        name = str(PurePosixPath(name))
        if not folder.has(name):
            self.faults.add(kind, folder.root / name)
            return None
        return str(folder.root / name)

    def _segments(self, annotation: dict[str, Any], place: int) -> tuple[SegmentInfo, ...] | None:
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
                category = self.class_of[segment["category_id"]]
                crowd, area = bool(segment.get("iscrowd", 0)), int(segment.get("area") or 0)
                found[segment["id"]] = SegmentInfo(segment["id"], category, crowd, area)
            else:
                self.faults.add(*fault[:2], hint=fault[2])
                sound = False
        return tuple(found.values()) if sound else None

    def _segment_fault(self, segment: Any, found: dict[int, SegmentInfo], where: str) -> tuple[str, str, str] | None:
        """(kind, item, hint) of what is wrong with one entry of segments_info, or None."""
        if not isinstance(segment, dict) or not {"id", "category_id"} <= set(segment):
            return "a segment has no id or no category_id", where, ""
        segment_id, category_id = segment["id"], segment["category_id"]
        if not _is_int(segment_id) or not 0 < segment_id <= MAX_SEGMENT_ID:
            hint = "the mask's colour is R + 256 G + 65536 B, and 0 means unlabelled"
            return f"a segment id is not between 1 and {MAX_SEGMENT_ID}", f"{segment_id!r} ({where})", hint
        if segment_id in found:
            return "two segments of an image have the same id", f"{segment_id} ({where})", ""
        if not _is_int(category_id) or category_id not in self.class_of:
            hint = "add it to the label map, or take its segments out of the annotations"
            if not self.contiguous_id:
                hint += "; dataset.contiguous_id is false, so ids are used as they are"
            return "a category is not in the label map", f"id {category_id!r} ({where})", hint
        crowd, area = segment.get("iscrowd", 0), segment.get("area") or 0
        if crowd not in (0, 1) or not isinstance(area, int | float) or not 0 <= area < 2**62:
            return "iscrowd is not 0 or 1, or area no number of pixels", f"{crowd!r} and {area!r} ({where})", ""
        return None

    def _unique_annotation_ids(self, annotations: list[Any]) -> None:
        """Panoptic annotations need no id of their own; where they have one, it has to be unique."""
        seen = set()
        for annotation in annotations:
            own = annotation.get("id") if isinstance(annotation, dict) else None
            if not _is_id(own):
                continue
            if own in seen:
                self.faults.add("two annotations have the same id", own)
            seen.add(own)

    def _say_unannotated(self, images: dict[int | str, dict[str, Any]], annotated: set[int | str]) -> None:
        bare = [entry.get("file_name", image_id) for image_id, entry in images.items() if image_id not in annotated]
        if bare:
            text = "%s: %d of %d images have no annotation and are left out: %s"
            logging.getLogger(__name__).warning(text, self.path, len(bare), len(images), examples(bare))


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_id(value: object) -> bool:
    return _is_int(value) or (isinstance(value, str) and bool(value))
