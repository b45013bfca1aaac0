"""A folder of LabelMe files (one JSON for each photo) -> records; masks may overlap."""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from oneformer.data.decode import BROKEN, SUFFIXES, image_size
from oneformer.data.files import Faults, examples, is_file, read_json
from oneformer.data.formats.coco_file import is_int
from oneformer.data.formats.folders import NO_IMAGE, files_below
from oneformer.data.formats.part import Part, need_folder
from oneformer.data.formats.shape_records import note_absent_stuff, rest_class, tasks_for
from oneformer.data.record import Record, SegmentInfo, Source
from oneformer.data.shapes import Outlines, polygon_fault, shape_mask, text_of_mask
from oneformer.errors import UserError

if TYPE_CHECKING:
    from oneformer.data.labels import LabelMap

CIRCLE_POINTS = 72  # corners of the polygon that stands for a circle: off by a thousandth of the radius
Shape = dict[str, Any]


def categories(part: Part) -> tuple[list[Any] | None, set[int]]:
    """See `Format`: the labels that the files use, in alphabetical order, all of them things."""
    names: set[str] = set()
    for _, content in _files(part, Faults(part.annotations)):
        names |= {s["label"] for s in content["shapes"] if isinstance(s, dict) and isinstance(s.get("label"), str)}
    return [{"name": name} for name in sorted(names) if name.strip()], set()


def read(part: Part, labels: LabelMap, faults: Faults) -> Iterator[Record]:
    """See `Format`; shapes of one label and one `group_id` are one object."""
    rest = rest_class(part, labels)
    source = Source("labelme", Outlines(labels.thing_ids, rest=rest), tasks_for(labels, rest))
    class_of = {name: i for i, name in enumerate(labels.names)}
    used: set[int] = set()
    for path, content in _files(part, faults):
        photo = _photo(part, path, content, faults)
        objects = _objects(content["shapes"], path, class_of, faults)
        if photo is None or objects is None:
            continue
        segments = tuple(SegmentInfo(n, class_id, False, 0) for n, (class_id, _) in enumerate(objects, start=1))
        used |= {class_id for class_id, _ in objects}
        image_path, (width, height) = photo
        shapes = tuple(json.dumps(_whole(parts, (height, width)), separators=(",", ":")) for _, parts in objects)
        yield Record(path.stem, image_path, str(path), width, height, segments, source, shapes)
    note_absent_stuff(labels, used, rest, faults)


def _files(part: Part, faults: Faults) -> Iterator[tuple[Path, Shape]]:
    """Each file below the folder that has the form of a LabelMe file."""
    root = need_folder(part, "annotations")
    for name in files_below(root, (".json",)).values():
        try:
            content = read_json(root / name, what="LabelMe file")
        except UserError as error:
            faults.add("a LabelMe file cannot be read", root / name, hint=error.what, kind="unreadable_file")
            continue
        if isinstance(content, dict) and isinstance(content.get("shapes"), list):
            yield root / name, content
        else:
            coco = isinstance(content, dict) and "images" in content
            hint = "this is a COCO file: name the file itself" if coco else "a LabelMe file has a list 'shapes'"
            faults.add(
                "a JSON file is no LabelMe file", root / name, hint=hint, kind="wrong_level" if coco else "annotation"
            )


def _photo(part: Part, path: Path, content: Shape, faults: Faults) -> tuple[str, tuple[int, int]] | None:
    """The photo's path and (width, height): `imagePath` beside the file or in `images`, else the file's own name."""
    told = content.get("imagePath")
    name = PurePosixPath(PureWindowsPath(told).as_posix()).name if isinstance(told, str) else ""
    folders = [Path(part.images)] if part.images else [path.parent, path.parent.parent / "images"]
    names = [*([name] if name else []), *(path.stem + suffix for suffix in SUFFIXES)]
    found = next((folder / n for folder in folders for n in names if is_file(folder / n)), None)
    if found is not None:
        width, height = content.get("imageWidth"), content.get("imageHeight")
        if is_int(width) and is_int(height) and min(width, height) > 0:
            if width * height <= part.max_mpx * 1e6:
                return str(found), (width, height)
            hint = "correct imageWidth and imageHeight, or raise dataset.max_image_mpx"
            faults.add("a photo is said to be larger than the limit", path, hint=hint, kind="unreadable_file")
            return None
        try:
            return str(found), image_size(found)
        except UserError as error:
            faults.add("an image file cannot be read", found, hint=error.what, kind="unreadable_file")
            return None
    faults.add(NO_IMAGE, folders[0] / (name or path.stem), hint=f"set {part.key}.images", kind="missing_file")
    return None


def _objects(
    shapes: list[Any], path: Path, class_of: dict[str, int], faults: Faults
) -> list[tuple[int, list[Any]]] | None:
    """(class id, its polygons and masks) of each object; None when one is at fault."""
    groups: dict[object, tuple[int, list[Any]]] = {}
    sound = True
    for place, shape in enumerate(shapes):
        item = f"{path}, shapes[{place}]"
        label = shape.get("label") if isinstance(shape, dict) else None
        class_id = class_of.get(label) if isinstance(label, str) else None
        if not isinstance(shape, dict) or class_id is None:
            hint = f"add it to the label map; classes are {examples(class_of)}"
            faults.add("a label is not in the label map", f"{label!r} ({item})", hint=hint, kind="unknown_category")
            sound = False
            continue
        try:
            outline = _outline(shape)
        except ValueError as error:
            hint = "draw a polygon, rectangle, circle or mask"
            faults.add("a shape has no area to learn", f"{error} ({item})", hint=hint, kind="broken_shape")
            sound = False
            continue
        group = shape.get("group_id")
        key = (class_id, group) if isinstance(group, int | str) else place
        groups.setdefault(key, (class_id, []))[1].append(outline)
    return list(groups.values()) if sound else None


def _outline(shape: Shape) -> Any:
    """One shape -> a polygon [x0, y0, ...], or the offset and pixels of a mask. Raises ValueError."""
    points = shape.get("points")
    form = shape.get("shape_type") or "polygon"
    if not isinstance(points, list) or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise ValueError("points are no list of [x, y]")
    flat = [v for point in points for v in point]
    if not all(isinstance(v, int | float) and math.isfinite(v) for v in flat):
        raise ValueError("points are no numbers")
    if form == "mask" and len(points) == 2:
        return min(flat[0::2]), min(flat[1::2]), _mask_of(shape.get("mask"))
    if form == "rectangle" and len(points) == 2:
        x0, y0, x1, y1 = flat
        flat = [x0, y0, x1, y0, x1, y1, x0, y1]
    elif form == "circle" and len(points) == 2:
        x, y, radius = flat[0], flat[1], math.dist(points[0], points[1])
        turns = [2 * math.pi * i / CIRCLE_POINTS for i in range(CIRCLE_POINTS)]
        flat = [v for turn in turns for v in (x + radius * math.cos(turn), y + radius * math.sin(turn))]
    elif form != "polygon":
        raise ValueError(f"a {form} of {len(points)} points")
    if fault := polygon_fault(flat):
        raise ValueError(fault)
    return flat


def _mask_of(text: object) -> np.ndarray:
    """LabelMe's mask, a PNG as base64 text -> bool (h, w)."""
    try:
        data = base64.b64decode(text if isinstance(text, str) else "", validate=True)
        picture = Image.open(io.BytesIO(data), formats=("PNG",))
        if picture.width * picture.height > 2e8:
            raise ValueError("a mask is too large")
        pixels = np.asarray(picture)
    except (*BROKEN, binascii.Error, Image.DecompressionBombError) as error:
        raise ValueError(f"a mask cannot be read: {error}") from None
    return np.asarray(pixels.any(axis=2) if pixels.ndim == 3 else pixels != 0)


def _whole(parts: list[Any], size: tuple[int, int]) -> Any:
    """The polygons of an object, or one run-length mask when a part of it is a mask."""
    if all(isinstance(part, list) for part in parts):
        return parts
    whole = np.zeros(size, bool)
    for part in parts:
        if isinstance(part, list):
            whole |= shape_mask([part], size)
            continue
        x, y, mask = int(part[0]), int(part[1]), part[2]
        top, left = max(0, -y), max(0, -x)
        inside = mask[top : max(top, size[0] - y), left : max(left, size[1] - x)]
        whole[y + top : y + top + inside.shape[0], x + left : x + left + inside.shape[1]] |= inside
    return {"size": list(size), "counts": text_of_mask(whole)}
