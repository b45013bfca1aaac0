"""Parquet tables as Hugging Face `datasets` writes them -> records; pictures stay in the table until they are needed.

A column of photos (`image`) stands beside one of these:
- `label`, `annotation` or `mask` (pictures) with `segments_info` (list of id and category_id): COCO panoptic;
- `label`, `annotation` or `mask` alone: one class per pixel;
- `objects` with `segmentation` and `category`: one mask for each object.

`annotations` of the spec names a table or a folder of tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneformer.data.annotation import PanopticPng
from oneformer.data.files import CELL, Faults, examples
from oneformer.data.formats.coco_file import is_id, is_int
from oneformer.data.formats.folders import natural
from oneformer.data.formats.part import Part
from oneformer.data.formats.semantic_png import class_image
from oneformer.data.formats.shape_records import note_absent_stuff, rest_class, tasks_for
from oneformer.data.parquet import open_table
from oneformer.data.record import Decoder, Record, SegmentInfo, Source
from oneformer.data.shapes import Outlines, segmentation_fault
from oneformer.data.task import TASKS
from oneformer.errors import DataError

if TYPE_CHECKING:
    from oneformer.data.labels import LabelMap

PHOTOS = ("image", "img", "photo", "pixel_values")
PICTURES = ("label", "labels", "annotation", "mask", "panoptic_mask", "semantic_mask", "segmentation_mask")
SHAPES, CLASSES = ("segmentation", "mask", "masks"), ("category", "category_id", "label", "labels")
Row = dict[str, Any]


@dataclass(frozen=True)
class _Columns:
    """The names of the columns that are used; empty where there is none."""

    photo: str
    picture: str = ""
    segments: str = ""
    objects: str = ""

    def light(self, names: list[str]) -> list[str]:
        """Those that are read for every row at once."""
        return [n for n in (self.segments, self.objects, "image_id", "id") if n and n in names]


def categories(part: Part) -> tuple[list[Any] | None, set[int]]:
    """See `Format`: class names that `datasets` has noted in the table."""
    path = _tables(part)[0]
    noted = (open_table(path).schema_arrow.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(noted)["info"]["features"] if noted else {}
    except (ValueError, KeyError, TypeError):
        return None, set()
    columns = _columns(path)
    names = _class_names(features.get(columns.objects or columns.segments) if isinstance(features, dict) else None)
    return [{"id": i, "name": n} for i, n in enumerate(names)] or None, set()


def _class_names(feature: Any) -> list[str]:
    """The names of the first ClassLabel below a feature."""
    if isinstance(feature, dict):
        if feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list):
            return [str(name) for name in feature["names"]]
        feature = list(feature.values())
    found = (_class_names(inner) for inner in feature) if isinstance(feature, list) else iter(())
    return next((names for names in found if names), [])


def read(part: Part, labels: LabelMap, faults: Faults) -> Iterator[Record]:
    """See `Format`; one row group of the light columns is in memory at a time."""
    rest = rest_class(part, labels)
    used: set[int] = set()
    seen: set[object] = set()
    for path in _tables(part):
        columns = _columns(path)
        source = _source(columns, labels, part, rest)
        for number, row in enumerate(_rows(path, columns)):
            own = row.get("image_id", row.get("id"))
            image_id: int | str = own if is_id(own) else f"{path.stem}:{number}"
            if image_id in seen:
                faults.add("two images have the same id", image_id, kind="duplicate_id")
                continue
            seen.add(image_id)
            segments = _segments(row, columns, labels, f"{path}, row {number}", faults)
            if segments is None:
                continue
            used |= {s.class_id for s, _ in segments}
            photo = f"{path}{CELL}{columns.photo}{CELL}{number}"
            picture = f"{path}{CELL}{columns.picture}{CELL}{number}" if columns.picture else photo
            shapes = tuple(text for _, text in segments) if columns.objects else ()
            yield Record(image_id, photo, picture, 0, 0, tuple(s for s, _ in segments), source, shapes)
    if columns.objects:
        note_absent_stuff(labels, used, rest, faults)


def _tables(part: Part) -> list[Path]:
    path = Path(part.annotations)
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.parquet"), key=lambda p: natural(p.name))
    if not found:
        hint = f"{path} holds {examples(sorted(p.name for p in path.iterdir()))}"
        raise DataError("there is no Parquet file in the folder", where=str(path), hint=hint, kind="missing_file")
    return found


def _columns(path: Path) -> _Columns:
    names = open_table(path).schema_arrow.names
    photo = next((n for n in PHOTOS if n in names), "")
    picture = next((n for n in PICTURES if n in names), "")
    objects = "objects" if "objects" in names else ""
    if not photo or not (picture or objects):
        hint = f"columns are {examples(names)}; needed are image, and label, annotation, mask or objects"
        raise DataError("the table has no columns of photos and labels that are known", where=str(path), hint=hint)
    if picture:
        return _Columns(photo, picture, "segments_info" if "segments_info" in names else "")
    return _Columns(photo, objects=objects)


def _source(columns: _Columns, labels: LabelMap, part: Part, rest: int | None) -> Source:
    decoder: Decoder
    if columns.objects:
        decoder, tasks = Outlines(labels.thing_ids, rest=rest), tasks_for(labels, rest)
    elif columns.segments:
        decoder, tasks = PanopticPng(), TASKS
    else:
        decoder, tasks = class_image(labels, part.void_values), ("semantic",)
    return Source("parquet", decoder, tasks)


def _rows(path: Path, columns: _Columns) -> Iterator[Row]:
    """The light columns, row by row; empty rows when there are none."""
    table = open_table(path)
    light = columns.light(table.schema_arrow.names)
    for group in range(table.num_row_groups):
        if light:
            yield from table.read_row_group(group, columns=light).to_pylist()
        else:
            yield from ({} for _ in range(table.metadata.row_group(group).num_rows))


def _segments(
    row: Row, columns: _Columns, labels: LabelMap, item: str, faults: Faults
) -> list[tuple[SegmentInfo, str]] | None:
    """The segments of one row with their shapes (empty for panoptic pictures); None when one is at fault."""
    entries = _listed(row.get(columns.segments or columns.objects))
    if entries is None:
        faults.add("a row has no list of segments or objects", item)
        return None
    found: list[tuple[SegmentInfo, str]] = []
    for place, entry in enumerate(entries, start=1):
        category = next((entry[n] for n in CLASSES if n in entry), None)
        if not is_int(category) or category not in labels.class_of:
            faults.add("a category is not in the label map", f"id {category!r} ({item})", kind="unknown_category")
            return None
        shape = next((entry[n] for n in SHAPES if n in entry), None)
        fault = segmentation_fault(shape) if columns.objects else ""
        segment_id: Any = entry.get("id") if columns.segments else place
        if fault or not is_int(segment_id) or segment_id < 1:
            faults.add(fault or "a segment id is not a whole number above 0", item, kind="broken_shape")
            return None
        area = entry.get("area") or 0
        area = int(area) if isinstance(area, int | float) and 0 <= area < 2**62 else 0
        segment = SegmentInfo(segment_id, labels.class_of[category], bool(entry.get("iscrowd")), area)
        found.append((segment, json.dumps(shape) if columns.objects else ""))
    if len({s.segment_id for s, _ in found}) != len(found):
        faults.add("two segments of an image have the same id", item, kind="duplicate_id")
        return None
    return found


def _listed(value: Any) -> list[Row] | None:
    """A list of objects, also when it is kept as one object of lists."""
    if value is None or value == "":
        return []
    if isinstance(value, dict):
        columns = {k: v for k, v in value.items() if isinstance(v, list)}
        return [dict(zip(columns, entry, strict=True)) for entry in zip(*columns.values(), strict=False)]
    return value if isinstance(value, list) and all(isinstance(v, dict) for v in value) else None
