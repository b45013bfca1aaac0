"""A tiny COCO panoptic data set -> the same photos and labels in every other format, laid out as it is published."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from oneformer.data.decode import read_panoptic
from oneformer.spec.data import DatasetSpec
from tiny import CATEGORIES, TinyDataset

THINGS = [c for c in CATEGORIES if c["isthing"]]


@dataclass
class Scene:
    """One photo of the tiny data set: its id map and, per segment, (id, category id, crowd)."""

    stem: str
    photo: Path
    ids: np.ndarray
    segments: list[tuple[int, int, bool]]

    def things(self) -> list[tuple[int, np.ndarray, bool]]:
        """(category id, mask, crowd) of each thing."""
        things = {c["id"] for c in THINGS}
        return [(category, self.ids == i, crowd) for i, category, crowd in self.segments if category in things]


@dataclass
class Written:
    """Where a data set in some format lies, as the keys of a split and of `dataset`."""

    split: dict[str, str]
    dataset: dict[str, Any] = field(default_factory=dict)

    def section(self, format: str = "auto", **more: Any) -> DatasetSpec:
        """A dataset section that trains, validates and tests on it."""
        spec = DatasetSpec(**{**self.dataset, **more})
        for split in (spec.train, spec.val, spec.test):
            split.format, split.num_workers = format, 0
            for name, value in self.split.items():
                setattr(split, name, value)
        spec.augmentation.train_crop_size = [64, 64]
        spec.augmentation.test_min_size = 48
        return spec


def scenes(data: TinyDataset) -> Iterator[Scene]:
    """The photos of a tiny data set."""
    content = json.loads(data.annotations.read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    for annotation in content["annotations"]:
        photo = data.images / names[annotation["image_id"]]
        segments = [(s["id"], s["category_id"], bool(s["iscrowd"])) for s in annotation["segments_info"]]
        yield Scene(photo.stem, photo, read_panoptic(data.panoptic / annotation["file_name"]), segments)


def save_png(array: np.ndarray, path: Path, *, palette: list[int] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette:
        image = image.convert("P") if image.mode != "P" else image
        image.putpalette(palette)
    image.save(path)


def copy_photo(scene: Scene, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(scene.photo, path)


def class_map(scene: Scene, value_of: Callable[[int], int], void: int) -> np.ndarray:
    """(H, W): a number for the category of each pixel, crowds included, `void` where nothing is labelled."""
    found = np.full(scene.ids.shape, void, np.int32)
    for segment_id, category, _ in scene.segments:
        found[scene.ids == segment_id] = value_of(category)
    return found


def write_coco_instances(data: TinyDataset, root: Path) -> Written:
    """Things only: polygons where a mask is one rectangle, compressed or plain run lengths elsewhere."""
    images: list[Any] = []
    annotations: list[Any] = []
    for number, scene in enumerate(scenes(data), start=1):
        height, width = scene.ids.shape
        images.append({"id": number, "file_name": scene.photo.name, "width": width, "height": height})
        for category, mask, crowd in scene.things():
            shape: Any = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            shape["counts"] = shape["counts"].decode()
            if crowd:
                flat = mask.ravel(order="F").astype(int)
                edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]]))).tolist()
                runs = np.diff([0, *edges, flat.size]).tolist()
                shape = {"size": [height, width], "counts": runs}
            item = {"id": len(annotations) + 1, "image_id": number, "category_id": category, "iscrowd": int(crowd)}
            annotations.append({**item, "segmentation": shape, "area": int(mask.sum()), "bbox": [0, 0, 1, 1]})
    content = {"images": images, "annotations": annotations, "categories": THINGS}
    root.mkdir(parents=True, exist_ok=True)
    (root / "instances.json").write_text(json.dumps(content))
    return Written({"images": str(data.images), "annotations": str(root / "instances.json")})


def write_semantic(data: TinyDataset, root: Path, *, how: str = "grey") -> Written:
    """Label images as one channel, with a palette, or as colours; 255 (or black) is void."""
    color_of = {c["id"]: c["color"] for c in CATEGORIES}
    palette = [0, 0, 0] * 256
    for category, color in color_of.items():
        palette[3 * category : 3 * category + 3] = color
    for scene in scenes(data):
        numbers = class_map(scene, lambda category: category, 255)
        path = root / "labels" / f"{scene.stem}.png"
        if how == "color":
            picture = np.zeros((*numbers.shape, 3), np.uint8)
            for category, color in color_of.items():
                picture[numbers == category] = color
            save_png(picture, path)
        else:
            save_png(numbers.astype(np.uint8), path, palette=palette if how == "palette" else None)
    return Written(
        {"images": str(data.images), "annotations": str(root / "labels")}, {"label_map": str(data.label_map)}
    )


# Category of the tiny data set -> a class of the published data sets of the same kind (thing or stuff).
ADE_OF = {2: 13, 5: 3, 6: 21, 11: 14}  # person, sky, car, earth: pixel values 1..150
CITY_OF = {2: 24, 5: 23, 6: 26, 11: 7}  # person, sky, car, road: label ids
VISTAS_OF = {2: 0, 5: 1, 6: 2, 11: 3}
ADE_THINGS = {13: 4, 21: 9}  # pixel value -> the red value of annotations_instance


def write_ade20k(data: TinyDataset, root: Path, *, objects: bool = True) -> Written:
    top = root / "ADEChallengeData2016"
    for scene in scenes(data):
        copy_photo(scene, top / "images" / "training" / f"{scene.stem}.png")
        numbers = class_map(scene, ADE_OF.__getitem__, 0)
        save_png(numbers.astype(np.uint8), top / "annotations" / "training" / f"{scene.stem}.png")
        coded = np.zeros((*scene.ids.shape, 3), np.uint8)
        for number, (category, mask, crowd) in enumerate(scene.things(), start=1):
            if not crowd:
                coded[mask] = [ADE_THINGS[ADE_OF[category]], number, 0]
        if objects:
            save_png(coded, top / "annotations_instance" / "training" / f"{scene.stem}.png")
    (top / "objectInfo150.txt").write_text("Idx\tRatio\n")
    return Written({"annotations": str(top / "annotations" / "training")})


def write_cityscapes(data: TinyDataset, root: Path, *, objects: bool = True) -> Written:
    for number, scene in enumerate(scenes(data)):
        city = ("aachen", "bochum")[number % 2]
        stem = f"{city}_{number:06d}_000019"
        copy_photo(scene, root / "leftImg8bit" / "train" / city / f"{stem}_leftImg8bit.png")
        labels = class_map(scene, CITY_OF.__getitem__, 4)  # 4 is "static", which is not scored
        coded = labels.copy()
        for place, (category, mask, crowd) in enumerate(scene.things()):
            coded[mask] = CITY_OF[category] * (1 if crowd else 1000) + (0 if crowd else place)
        fine = root / "gtFine" / "train" / city
        save_png(labels.astype(np.uint8), fine / f"{stem}_gtFine_labelIds.png")
        if objects:
            save_png(coded.astype(np.uint16), fine / f"{stem}_gtFine_instanceIds.png")
    return Written({"annotations": str(root / "gtFine" / "train")})


def write_mapillary(data: TinyDataset, root: Path, *, objects: bool = True) -> Written:
    entries = [
        {"name": f"object--{c['name']}", "instances": bool(c["isthing"]), "evaluate": True, "color": c["color"]}
        for c in CATEGORIES
    ]
    entries.append({"name": "void--unlabeled", "instances": False, "evaluate": False, "color": [0, 0, 0]})
    root.mkdir(parents=True, exist_ok=True)
    (root / "config_v1.2.json").write_text(json.dumps({"labels": entries}))
    for scene in scenes(data):
        copy_photo(scene, root / "training" / "images" / f"{scene.stem}.png")
        labels = class_map(scene, VISTAS_OF.__getitem__, 4)
        coded = labels * 256
        for place, (category, mask, _) in enumerate(scene.things()):
            coded[mask] = VISTAS_OF[category] * 256 + place
        where = root / "training" / "v1.2"
        save_png(labels.astype(np.uint8), where / "labels" / f"{scene.stem}.png", palette=[7, 7, 7] * 256)
        if objects:
            save_png(coded.astype(np.uint16), where / "instances" / f"{scene.stem}.png")
    return Written({"annotations": str(root / "training" / "v1.2")})


def write_object_masks(data: TinyDataset, root: Path, *, layout: str = "science_bowl") -> Written:
    """Every thing as a picture in a folder of its class; the stuff too, so that nothing is lost."""
    names = {c["id"]: c["name"] for c in CATEGORIES}
    for scene in scenes(data):
        inner = root / scene.stem
        if layout == "science_bowl":
            copy_photo(scene, inner / "images" / scene.photo.name)
            inner = inner / "masks"
        for number, (segment_id, category, _) in enumerate(scene.segments):
            mask = (scene.ids == segment_id).astype(np.uint8) * 255
            save_png(mask, inner / names[category] / f"{number:02d}.png")
    split = {"annotations": str(root)}
    if layout != "science_bowl":
        split["images"] = str(data.images)
    return Written(split, {"label_map": str(data.label_map)})


def write_labelme(data: TinyDataset, root: Path) -> Written:
    """Masks as LabelMe's base64 PNG of the box around each object."""
    names = {c["id"]: c["name"] for c in CATEGORIES}
    root.mkdir(parents=True, exist_ok=True)
    for scene in scenes(data):
        shapes = []
        for segment_id, category, _ in scene.segments:
            mask = scene.ids == segment_id
            rows, columns = np.nonzero(mask)
            top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
            buffer = io.BytesIO()
            Image.fromarray(mask[top:bottom, left:right]).save(buffer, "PNG")
            points = [[float(left), float(top)], [float(right - 1), float(bottom - 1)]]
            text = base64.b64encode(buffer.getvalue()).decode()
            shapes.append({"label": names[category], "points": points, "shape_type": "mask", "mask": text})
        height, width = scene.ids.shape
        content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"..\\images\\{scene.photo.name}"}
        content |= {"imageData": None, "imageHeight": height, "imageWidth": width}
        (root / f"{scene.stem}.json").write_text(json.dumps(content))
    return Written({"images": str(data.images), "annotations": str(root)}, {"label_map": str(data.label_map)})


def write_yolo_seg(data: TinyDataset, root: Path) -> Written:
    """Each thing as the rectangle around it: polygons cannot tell more without loss."""
    place_of = {c["id"]: i for i, c in enumerate(THINGS)}
    (root / "labels" / "train").mkdir(parents=True, exist_ok=True)
    for scene in scenes(data):
        copy_photo(scene, root / "images" / "train" / scene.photo.name)
        lines = []
        for category, mask, _ in scene.things():
            rows, columns = np.nonzero(mask)
            x0, x1 = columns.min() / mask.shape[1], (columns.max() + 1) / mask.shape[1]
            y0, y1 = rows.min() / mask.shape[0], (rows.max() + 1) / mask.shape[0]
            corners = " ".join(f"{v:.9f}" for v in (x0, y0, x1, y0, x1, y1, x0, y1))
            lines.append(f"{place_of[category]} {corners}")
        (root / "labels" / "train" / f"{scene.stem}.txt").write_text("\n".join(lines) + "\n")
    (root / "data.yaml").write_text("train: images/train\nnames: [disk, box]\n")
    return Written({"annotations": str(root / "labels" / "train")})


def write_parquet(data: TinyDataset, root: Path, *, kind: str = "panoptic") -> Written:
    """A table with photos as bytes and the labels as a picture, a picture and segments, or objects."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for number, scene in enumerate(scenes(data)):
        row: dict[str, Any] = {"image": {"bytes": scene.photo.read_bytes(), "path": scene.photo.name}}
        if kind == "panoptic":
            row["label"] = {"bytes": (data.panoptic / f"{scene.stem}.png").read_bytes(), "path": None}
            row["segments_info"] = [{"id": i, "category_id": c, "iscrowd": int(w)} for i, c, w in scene.segments]
            row["image_id"] = 100 + number
        elif kind == "semantic":
            buffer = io.BytesIO()
            Image.fromarray(class_map(scene, int, 255).astype(np.uint8)).save(buffer, "PNG")
            row["annotation"] = {"bytes": buffer.getvalue(), "path": None}
        else:
            objects = []
            for category, mask, crowd in scene.things():
                shape = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
                shape = {"size": [int(v) for v in shape["size"]], "counts": shape["counts"].decode()}
                place = [c["id"] for c in THINGS].index(category)
                objects.append({"segmentation": shape, "category": place, "iscrowd": int(crowd)})
            row["objects"] = objects
        rows.append(row)
    table = pa.Table.from_pylist(rows)
    if kind == "instances":
        label = {"_type": "ClassLabel", "names": [c["name"] for c in THINGS]}
        noted = {"info": {"features": {"objects": [{"category": label}]}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(noted)})
    root.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, root / "train-00000-of-00001.parquet", row_group_size=3)
    settings = {} if kind == "instances" else {"label_map": str(data.label_map)}
    return Written({"annotations": str(root / "train-00000-of-00001.parquet")}, settings)
