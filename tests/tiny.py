"""A folder -> a small synthetic coco_panoptic data set with things, stuff, crowd and void, made to be learnable."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# Ids with gaps and things between stuff, so that code which mixes up category id and class id fails.
CATEGORIES: list[dict[str, Any]] = [
    {"id": 2, "name": "disk", "isthing": 1, "color": [220, 60, 40]},
    {"id": 5, "name": "sky", "isthing": 0, "color": [90, 150, 230]},
    {"id": 6, "name": "box", "isthing": 1, "color": [240, 200, 40]},
    {"id": 11, "name": "ground", "isthing": 0, "color": [70, 140, 70]},
]
DISK, SKY, BOX, GROUND = 2, 5, 6, 11


@dataclass(frozen=True)
class TinyDataset:
    """Where the parts of the data set lie."""

    folder: Path
    images: Path
    panoptic: Path
    annotations: Path
    label_map: Path

    def overrides(self, *splits: str) -> list[str]:
        """`key=value` items that point the given splits (default: all three) and the label map at this data set."""
        items = [f"dataset.label_map={self.label_map}", f"model.sem_seg_head.num_classes={len(CATEGORIES)}"]
        for split in splits or ("train", "val", "test"):
            items += [
                f"dataset.{split}.images={self.images}",
                f"dataset.{split}.panoptic={self.panoptic}",
                f"dataset.{split}.annotations={self.annotations}",
            ]
        return items


def write_tiny_dataset(
    folder: str | Path,
    *,
    images: int = 12,
    size: tuple[int, int] = (64, 96),
    seed: int = 0,
    crowd: bool = True,
    void: bool = True,
) -> TinyDataset:
    """Write `images` PNG photos of `size` (height, width) with their masks, annotations and label map.

    Every photo has sky, ground and one to four things; with `crowd` every third one has a crowd of disks, with `void`
    each has an unlabelled strip at the horizon. The same arguments give the same bytes.
    """
    root = Path(folder)
    data = TinyDataset(root, root / "images", root / "panoptic", root / "annotations.json", root / "label_map.json")
    data.images.mkdir(parents=True, exist_ok=True)
    data.panoptic.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    image_records, annotations = [], []
    for index in range(images):
        scene = _Scene(size, rng)
        scene.fill(crowd=crowd and index % 3 == 2, void=void)
        stem = f"scene_{index:03d}"
        Image.fromarray(scene.pixels(rng)).save(data.images / f"{stem}.png")
        Image.fromarray(ids_to_rgb(scene.ids)).save(data.panoptic / f"{stem}.png")
        image_records.append({"id": 100 + index, "file_name": f"{stem}.png", "height": size[0], "width": size[1]})
        segments = scene.segments_info()
        annotations.append({"image_id": 100 + index, "file_name": f"{stem}.png", "segments_info": segments})
    content = {"images": image_records, "annotations": annotations, "categories": CATEGORIES}
    data.annotations.write_text(json.dumps(content), encoding="utf-8")
    data.label_map.write_text(json.dumps(CATEGORIES), encoding="utf-8")
    return data


def ids_to_rgb(ids: np.ndarray) -> np.ndarray:
    """Segment ids (H, W) -> uint8 (H, W, 3) with id = R + 256 G + 65536 B."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)


class _Scene:
    """One photo in the making: segment ids (0 = void), the category and crowd flag of each."""

    def __init__(self, size: tuple[int, int], rng: np.random.Generator) -> None:
        self.height, self.width = size
        self.rng = rng
        self.ids = np.zeros(size, np.int32)
        self.category: dict[int, int] = {}
        self.crowds: set[int] = set()

    def paint(self, where: np.ndarray, category: int, *, crowd: bool = False) -> None:
        # Large ids, so that all three colour channels of the PNG carry something.
        segment_id = 70_000 * (len(self.category) + 1) + int(self.rng.integers(1, 60_000))
        self.ids[where] = segment_id
        self.category[segment_id] = category
        if crowd:
            self.crowds.add(segment_id)

    def fill(self, *, crowd: bool, void: bool) -> None:
        rows, columns = np.mgrid[: self.height, : self.width]
        horizon = int(self.height * self.rng.uniform(0.35, 0.6))
        self.paint(rows < horizon, SKY)
        self.paint(rows >= horizon, GROUND)
        if void:
            self.ids[np.abs(rows - horizon) < max(1, self.height // 32)] = 0
        unit = min(self.height, self.width)
        for _ in range(int(self.rng.integers(1, 5))):
            y, x = self.rng.uniform(0.2, 0.8) * self.height, self.rng.uniform(0.1, 0.9) * self.width
            radius = self.rng.uniform(0.1, 0.2) * unit
            if self.rng.random() < 0.5:
                self.paint((rows - y) ** 2 + (columns - x) ** 2 < radius**2, DISK)
            else:
                self.paint((np.abs(rows - y) < radius) & (np.abs(columns - x) < radius), BOX)
        if crowd:
            corner = (rows > 0.8 * self.height) & (columns > 0.7 * self.width)
            self.paint(corner, DISK, crowd=True)

    def pixels(self, rng: np.random.Generator) -> np.ndarray:
        """The photo, uint8 (H, W, 3): each class in its own colour, each object a little different, with noise."""
        colors = {c["id"]: np.array(c["color"], np.float64) for c in CATEGORIES}
        photo = np.full((self.height, self.width, 3), 128.0)
        for segment_id, category in self.category.items():
            photo[self.ids == segment_id] = colors[category] + rng.uniform(-20, 20, 3)
        return np.clip(photo + rng.normal(0, 8, photo.shape), 0, 255).astype(np.uint8)

    def segments_info(self) -> list[dict[str, Any]]:
        """COCO's `segments_info`; a thing that was painted over completely is left out."""
        infos = []
        for segment_id, category in self.category.items():
            rows, columns = np.nonzero(self.ids == segment_id)
            if not len(rows):
                continue
            x, y = int(columns.min()), int(rows.min())
            box = [x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1]
            infos.append(
                {
                    "id": segment_id,
                    "category_id": category,
                    "iscrowd": int(segment_id in self.crowds),
                    "area": len(rows),
                    "bbox": box,
                }
            )
        return infos
