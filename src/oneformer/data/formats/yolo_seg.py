"""YOLO's segmentation labels (a text file of relative polygons for each photo) -> records; masks may overlap.

    data.yaml                 names: the classes
    images/train/a.jpg
    labels/train/a.txt        one object a line: class x1 y1 x2 y2 ...; none for a photo without objects

`annotations` of the spec names a folder of the last line; photos and data.yaml are found beside and above it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneformer.data.files import Faults, examples, missing
from oneformer.data.formats.folders import NO_IMAGE, files_below, sibling
from oneformer.data.formats.part import Part, need_folder
from oneformer.data.formats.shape_records import note_absent_stuff, rest_class, tasks_for
from oneformer.data.record import Record, SegmentInfo, Source
from oneformer.data.shapes import Outlines, polygon_fault
from oneformer.errors import DataError, SpecError

if TYPE_CHECKING:
    from oneformer.data.labels import LabelMap

BOX = 5  # numbers of a line that tells a box only


def categories(part: Part) -> tuple[list[Any] | None, set[int]]:
    """See `Format`: the names in the nearest YAML file above the labels, all of them things."""
    root = Path(part.annotations).absolute()
    for folder in (root, *list(root.parents)[:3]):
        for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
            try:
                return names_of(path), set()
            except DataError:
                continue  # another YAML file, such as our own spec
    return None, set()


def names_of(path: str | Path) -> list[Any]:
    """The `names` of a YOLO data file as a list of classes. Raises DataError."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not Path(path).is_file():
        raise missing(path, what="label map")
    try:
        content = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8-sig"))
    except (YAMLError, OSError, UnicodeDecodeError, ValueError) as error:
        what = f"the file is not valid YAML: {str(error).splitlines()[0]}"
        raise DataError(what, where=str(path), kind="unreadable_file") from None
    names = content.get("names") if isinstance(content, dict) else None
    table = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(table, dict) or not table or not all(isinstance(n, str) for n in table.values()):
        raise DataError(
            "the YAML file has no names of classes", where=str(path), hint="names: [cat, dog]", kind="label_map"
        )
    return [{"id": number, "name": name} for number, name in table.items()]


def read(part: Part, labels: LabelMap, faults: Faults) -> Iterator[Record]:
    """See `Format`; every photo is a record, also one without a label file."""
    root = need_folder(part, "annotations")
    images = Path(part.images) if part.images else sibling(root, "labels", "images")
    if images is None or not images.is_dir():
        hint = f"set {part.key}.images, or keep images and labels side by side"
        raise SpecError("the folder of the photos is not found", where=f"{part.key}.images", hint=hint)
    rest = rest_class(part, labels)
    source = Source("yolo_seg", Outlines(labels.thing_ids, relative=True, rest=rest), tasks_for(labels, rest))
    photos, files = files_below(images), files_below(root, (".txt",))
    used: set[int] = set()
    for stem, name in photos.items():
        path = root / files[stem] if stem in files else None
        objects = _objects(path, labels.class_of, faults) if path else []
        if objects is not None:
            used |= {class_id for class_id, _ in objects}
            segments = tuple(SegmentInfo(n, class_id, False, 0) for n, (class_id, _) in enumerate(objects, start=1))
            label_path = str(path or root / f"{stem}.txt")
            shapes = tuple(text for _, text in objects)
            yield Record(stem, str(images / name), label_path, 0, 0, segments, source, shapes)
    for stem, name in files.items():
        if stem not in photos and Path(name).name not in ("classes.txt", "train.txt", "val.txt", "test.txt"):
            hint = f"{images} holds {examples(photos.values())}"
            faults.add(NO_IMAGE, images / f"{stem}.*", hint=hint, kind="missing_file")
    note_absent_stuff(labels, used, rest, faults)


def _objects(path: Path, class_of: dict[int, int], faults: Faults) -> list[tuple[int, str]] | None:
    """(class id, polygon as JSON) of each line; None when one is at fault."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        faults.add("a label file cannot be read", path, hint=str(error), kind="unreadable_file")
        return None
    objects: list[tuple[int, str]] = []
    sound = True
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        fault = _line_fault(line.split(), class_of)
        if fault is not None:
            what, hint, kind = fault
            faults.add(what, f"{path}:{number}", hint=hint, kind=kind)
            sound = False
            continue
        category, *points = line.split()
        objects.append((class_of[int(category)], json.dumps([[float(v) for v in points]])))
    return objects if sound else None


def _line_fault(words: list[str], class_of: dict[int, int]) -> tuple[str, str, str] | None:
    """(what, hint, kind) of what is wrong with one line, or None."""
    try:
        points = [float(v) for v in words[1:]]
        category = int(words[0])
    except ValueError:
        return "a line is not a class and numbers", "class x1 y1 x2 y2 ...", "broken_shape"
    if category not in class_of:
        return f"class {category} is not in the label map", f"classes are {examples(class_of)}", "unknown_category"
    if len(words) == BOX:
        return (
            "a line tells a box, not a polygon",
            "these are labels for detection; masks need polygons",
            "broken_shape",
        )
    if fault := polygon_fault(points):
        return fault, "class x1 y1 x2 y2 ...", "broken_shape"
    if not all(-0.01 <= v <= 1.01 for v in points):
        return "a point lies outside of 0..1", "coordinates are divided by the photo's width and height", "broken_shape"
    return None
