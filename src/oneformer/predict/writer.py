"""Results of photos -> the files of `oneformer inference`, each written whole or not at all.

semantic/<stem>.png   class id of each pixel; 8 bit up to 255 classes, else 16 bit; the highest value means no class
panoptic/<stem>.png   segment id of each pixel as R + 256 G + 65536 B, 0 = none; panoptic.json is COCO's panoptic format
instances.json        COCO results: image_id, category_id, score, segmentation (RLE)
overlays/<stem>.jpg   the photo with its segments
predictions.json      what was done, photo by photo, and what every number means
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oneformer import __version__
from oneformer.errors import DataError
from oneformer.predict.files import distinct_names
from oneformer.runs.atomic import write_atomic, write_json, write_text

if TYPE_CHECKING:
    from oneformer.data.labels import LabelMap
    from oneformer.predict.result import Result

INDEX, PANOPTIC, INSTANCES = "predictions.json", "panoptic.json", "instances.json"
PARTS = ("images", "failed", "panoptic", "instances")
PNG_LEVEL = 3  # id maps are flat: the highest level costs five times the time for a few per cent
JPEG_QUALITY = 90


class PredictionWriter:
    """Writes photo after photo; the JSON files follow when it closes, also after an exception, and name what was done.

    Args:
        folder: made when it does not exist.
        tasks: which results each photo brings.
        keep: `new` starts the JSON files anew, `add` goes on with those an earlier writer left (`Result.save`), `part`
            leaves them to another process, which gets `part()` of this one.
        about: further facts for the index (checkpoint, sizes).
    """

    def __init__(
        self,
        folder: str | Path,
        labels: LabelMap,
        *,
        tasks: Sequence[str],
        overlay: bool = True,
        keep: Literal["new", "add", "part"] = "new",
        about: dict[str, Any] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.labels = labels
        self.tasks = tuple(tasks)
        self.overlay = overlay
        self.about = dict(about or {})
        self.index = keep != "part"
        self.images: list[dict[str, Any]] = []
        self.failed: list[dict[str, Any]] = []
        self.panoptic: list[dict[str, Any]] = []
        self.instances: list[dict[str, Any]] = []
        self.folder.mkdir(parents=True, exist_ok=True)
        if keep == "add":
            self._read_earlier()

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(
        self, result: Result, *, file: str, stem: str = "", image_id: int | None = None, seconds: float | None = None
    ) -> None:
        """Write the maps and the overlay of one photo and note it for the JSON files.

        Args:
            file: the photo's name as the index gives it; a photo of the same name added before is replaced.
            stem: name of the files; made from `file` when empty, never one that another photo has.
            image_id: number in the JSON files; the next free one when None.
        """
        self._forget(file)
        stem = stem or distinct_names([*(i["file"] for i in self.images), file])[file]
        if any(i["stem"].casefold() == stem.casefold() for i in self.images):
            stem = self._free(stem)
        number = self._next_id() if image_id is None else image_id
        outputs: dict[str, Any] = {}
        if "semantic" in self.tasks:
            outputs["semantic"] = self._save(
                f"semantic/{stem}.png", semantic_image(result.semantic_map, self.labels.num_classes)
            )
        if "panoptic" in self.tasks:
            outputs["panoptic"] = self._save(f"panoptic/{stem}.png", panoptic_image(result.panoptic_map))
            entry = panoptic_entry(result, image_id=number, file_name=f"{stem}.png")
            self.panoptic.append(entry)
            outputs["segments"] = len(entry["segments_info"])
        if "instance" in self.tasks:
            entries = instance_entries(result, image_id=number)
            self.instances += entries
            outputs["instances"] = len(entries)
        if self.overlay:
            drawing = result.draw(next(t for t in ("panoptic", "instance", "semantic") if t in self.tasks))
            outputs["overlay"] = self._save(f"overlays/{stem}.jpg", drawing.image)
            outputs["labels_left_out"] = drawing.labels_left_out
        height, width = result.size
        item = {"file": file, "stem": stem, "image_id": number, "width": width, "height": height, "outputs": outputs}
        self.images.append(item if seconds is None else {**item, "seconds": round(seconds, 4)})

    def fail(self, file: str, reason: str) -> None:
        """Note a photo that could not be done."""
        self.failed.append({"file": file, "reason": reason})

    def close(self) -> None:
        """Write the JSON files of what was added so far."""
        if not self.index:
            return
        if "panoptic" in self.tasks:
            images = [
                {"id": i["image_id"], "file_name": i["file"], "width": i["width"], "height": i["height"]}
                for i in self.images
                if "panoptic" in i["outputs"]
            ]
            content = {"images": images, "annotations": self.panoptic, "categories": self.categories()}
            write_text(self.folder / PANOPTIC, json.dumps(content))
        if "instance" in self.tasks:
            write_text(self.folder / INSTANCES, json.dumps(self.instances))
        write_json(self.folder / INDEX, self.content())

    def part(self) -> dict[str, list[dict[str, Any]]]:
        """What this writer knows, for `absorb` in another process."""
        return {name: getattr(self, name) for name in PARTS}

    def absorb(self, parts: Sequence[dict[str, list[dict[str, Any]]]], *, order: Sequence[str]) -> None:
        """Add what other processes wrote; `order` lists all files as the index shall name them."""
        for part in parts:
            for name in PARTS:
                getattr(self, name).extend(part[name])
        place = {file: i for i, file in enumerate(order)}
        self.images.sort(key=lambda item: place[item["file"]])
        self.failed.sort(key=lambda item: place[item["file"]])
        turn = {item["image_id"]: i for i, item in enumerate(self.images)}
        self.panoptic.sort(key=lambda item: turn[item["image_id"]])
        self.instances.sort(key=lambda item: turn[item["image_id"]])

    def counts(self) -> dict[str, int]:
        """Files written, by place in the folder."""
        kinds = {"semantic": "semantic/", "panoptic": "panoptic/", "overlay": "overlays/"}
        found = {place: sum(kind in i["outputs"] for i in self.images) for kind, place in kinds.items()}
        json_files = {PANOPTIC: "panoptic" in self.tasks, INSTANCES: "instance" in self.tasks, INDEX: True}
        return {name: int(number) for name, number in {**found, **json_files}.items() if number}

    def content(self) -> dict[str, Any]:
        """What the index holds."""
        void = void_value(self.labels.num_classes)
        meaning: dict[str, Any] = {}
        if "semantic" in self.tasks:
            meaning["semantic"] = {"value": "class_id", "bits": 8 if void == 255 else 16, "no_class": void}
        if "panoptic" in self.tasks:
            meaning["panoptic"] = {"value": "segment id = R + 256 G + 65536 B", "no_segment": 0, "segments": PANOPTIC}
        if "instance" in self.tasks:
            meaning["instance"] = {"results": INSTANCES, "category_id": "the data set's own id"}
        return {
            "format": 1,
            "oneformer": __version__,
            **self.about,
            "tasks": list(self.tasks),
            "meaning": meaning,
            "classes": [
                {"class_id": i, "category_id": c["id"], **{k: c[k] for k in c if k != "id"}}
                for i, c in enumerate(self.categories())
            ],
            "images": self.images,
            "failed": self.failed,
        }

    def categories(self) -> list[dict[str, Any]]:
        """The classes as COCO lists them."""
        labels = self.labels
        return [
            {"id": category, "name": name, "isthing": int(thing), "color": list(color)}
            for category, name, thing, color in zip(
                labels.category_ids, labels.names, labels.is_thing, labels.colors, strict=True
            )
        ]

    def _read_earlier(self) -> None:
        index = _read(self.folder / INDEX)
        if index is None:
            return
        mine = [c["name"] for c in self.categories()]
        if not isinstance(index, dict) or [c.get("name") for c in index.get("classes", [])] != mine:
            raise DataError(
                "the folder holds predictions of a model with other classes",
                where=str(self.folder / INDEX),
                hint="save into another folder",
            )
        self.tasks = tuple(t for t in ("semantic", "instance", "panoptic") if t in (*index["tasks"], *self.tasks))
        self.images, self.failed = index["images"], index["failed"]
        self.panoptic = (_read(self.folder / PANOPTIC) or {}).get("annotations", [])
        self.instances = _read(self.folder / INSTANCES) or []

    def _forget(self, file: str) -> None:
        gone = {i["image_id"] for i in self.images if i["file"] == file}
        if gone:
            self.images = [i for i in self.images if i["file"] != file]
            self.panoptic = [a for a in self.panoptic if a["image_id"] not in gone]
            self.instances = [a for a in self.instances if a["image_id"] not in gone]

    def _next_id(self) -> int:
        return max((i["image_id"] for i in self.images), default=0) + 1

    def _free(self, stem: str) -> str:
        taken = {i["stem"].casefold() for i in self.images}
        return next(name for n in range(2, len(taken) + 3) if (name := f"{stem}_{n}").casefold() not in taken)

    def _save(self, name: str, image: Image.Image) -> str:
        options: dict[str, int] = {"quality": JPEG_QUALITY} if name.endswith(".jpg") else {"compress_level": PNG_LEVEL}
        kind = "JPEG" if name.endswith(".jpg") else "PNG"
        write_atomic(self.folder / name, lambda file: image.save(file, kind, **options))
        return name


def void_value(num_classes: int) -> int:
    """The value of a semantic PNG that stands for no class: above all class ids, 8 bit when they leave room for it."""
    return 255 if num_classes <= 255 else 65535


def semantic_image(class_map: NDArray[np.integer], num_classes: int) -> Image.Image:
    """Class ids (H, W) as an 8- or 16-bit grey image; ids outside the classes become the void value."""
    void = void_value(num_classes)
    ids = np.where((class_map >= 0) & (class_map < num_classes), class_map, void)
    return Image.fromarray(ids.astype(np.uint8 if void == 255 else np.uint16))


def panoptic_image(id_map: NDArray[np.int32]) -> Image.Image:
    """Segment ids (H, W) as RGB, id = R + 256 G + 65536 B."""
    quads = np.ascontiguousarray(id_map.astype("<u4")).view(np.uint8).reshape(*id_map.shape, 4)
    return Image.fromarray(np.ascontiguousarray(quads[..., :3]))


def panoptic_entry(result: Result, *, image_id: int, file_name: str) -> dict[str, Any]:
    """The photo's item of `annotations` in COCO's panoptic results."""
    keys = ("id", "category_id", "area", "score", "isthing")
    infos = [{**{k: s[k] for k in keys}, "isthing": int(s["isthing"]), "iscrowd": 0} for s in result.segments]
    return {"image_id": image_id, "file_name": file_name, "segments_info": infos}


def instance_entries(result: Result, *, image_id: int) -> list[dict[str, Any]]:
    """The photo's items of COCO's instance results.

    They carry no bbox: with one, pycocotools takes its area for the mask's and sorts objects into wrong size groups.
    """
    found = result.encoded_instances
    categories = result.labels.category_ids
    return [
        {"image_id": image_id, "category_id": categories[class_id], "score": score, "segmentation": dict(rle)}
        for class_id, score, rle in zip(found.class_ids.tolist(), found.scores.tolist(), found.rles, strict=True)
    ]


def _read(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"the file is not valid JSON: {error}", where=str(path), hint="save into another folder"
        ) from None
