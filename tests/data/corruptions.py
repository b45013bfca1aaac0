"""Ways in which a data set can be broken: each changes files, and names the kinds of finding that must tell it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from oneformer.data.decode import read_panoptic
from oneformer.spec.data import DatasetSpec
from tiny import CATEGORIES, SKY, TinyDataset, ids_to_rgb
from tiny_formats import Written, write_coco_instances, write_object_masks, write_semantic, write_yolo_seg


@dataclass
class Set:
    """A training and a validation set that may be broken, and what the spec says of them."""

    train: TinyDataset
    val: TinyDataset
    rng: np.random.Generator
    dataset: dict[str, Any] = field(default_factory=dict)
    written: Written | None = None
    """The training set in another format, when that is what is broken."""

    def spec(self) -> DatasetSpec:
        spec = DatasetSpec(**{"label_map": str(self.train.label_map), **self.dataset})
        for split, data in ((spec.train, self.train), (spec.val, self.val)):
            split.images, split.panoptic, split.annotations = (
                str(data.images),
                str(data.panoptic),
                str(data.annotations),
            )
        if self.written:
            spec.label_map = self.written.dataset.get("label_map", "")
            spec.train.images, spec.train.panoptic = self.written.split.get("images", ""), ""
            spec.train.annotations = self.written.split["annotations"]
            spec.val.annotations = ""
        return spec

    def edit(self, change: Callable[[Any], Any]) -> None:
        """Change the training annotations in place."""
        content = json.loads(self.train.annotations.read_text())
        change(content)
        self.train.annotations.write_text(json.dumps(content))

    def any(self, folder: Path, pattern: str = "*.png") -> Path:
        files = sorted(folder.rglob(pattern))
        return files[int(self.rng.integers(len(files)))]

    def annotation(self, content: Any) -> Any:
        return content["annotations"][int(self.rng.integers(len(content["annotations"])))]

    def segment(self, content: Any) -> Any:
        segments = self.annotation(content)["segments_info"]
        return segments[int(self.rng.integers(len(segments)))]

    def repaint(self, change: Callable[[np.ndarray], np.ndarray]) -> Path:
        path = self.any(self.train.panoptic)
        Image.fromarray(ids_to_rgb(change(read_panoptic(path)))).save(path)
        return path


def truncate(path: Path, rng: np.random.Generator) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(rng.integers(10, len(data) * 3 // 4))])


def missing_image(s: Set) -> None:
    s.any(s.train.images).unlink()


def missing_mask(s: Set) -> None:
    s.any(s.train.panoptic).unlink()


def truncated_image(s: Set) -> None:
    truncate(s.any(s.train.images), s.rng)


def truncated_mask(s: Set) -> None:
    truncate(s.any(s.train.panoptic), s.rng)


def garbage_image(s: Set) -> None:
    s.any(s.train.images).write_bytes(s.rng.bytes(200))


def empty_image(s: Set) -> None:
    s.any(s.train.images).write_bytes(b"")


def small_image(s: Set) -> None:
    path = s.any(s.train.images)
    Image.open(path).resize((11, 9)).save(path)


def small_mask(s: Set) -> None:
    path = s.any(s.train.panoptic)
    Image.open(path).resize((11, 9), Image.Resampling.NEAREST).save(path)


def wrong_size_in_json(s: Set) -> None:
    s.edit(lambda c: c["images"][int(s.rng.integers(len(c["images"])))].update(width=777))


def stray_id_in_mask(s: Set) -> None:
    def stray(ids: np.ndarray) -> np.ndarray:
        ids[: int(s.rng.integers(1, 4)), :2] = int(s.rng.integers(1, 2**24 - 1)) | 1 << 23
        return ids

    s.repaint(stray)


def segment_not_in_json(s: Set) -> None:
    s.edit(lambda c: s.annotation(c)["segments_info"].pop())


def phantom_segment(s: Set) -> None:
    s.edit(lambda c: s.annotation(c)["segments_info"].append({"id": 5, "category_id": 2, "iscrowd": 0, "area": 4}))


def erased_segment(s: Set) -> None:
    def erase(ids: np.ndarray) -> np.ndarray:
        ids[ids == s.rng.choice(np.unique(ids[ids > 0]))] = 0
        return ids

    s.repaint(erase)


def two_images_of_one_id(s: Set) -> None:
    s.edit(lambda c: c["images"][1].update(id=c["images"][0]["id"]))


def two_annotations_of_one_image(s: Set) -> None:
    s.edit(lambda c: c["annotations"].append(s.annotation(c)))


def two_segments_of_one_id(s: Set) -> None:
    def repeat(content: Any) -> None:
        segments = s.annotation(content)["segments_info"]
        segments[1]["id"] = segments[0]["id"]

    s.edit(repeat)


def wrong_area(s: Set) -> None:
    s.edit(lambda c: s.segment(c).update(area=100_000))


def unknown_category(s: Set) -> None:
    s.edit(lambda c: s.segment(c).update(category_id=int(s.rng.integers(50, 90))))


def gap_in_class_ids(s: Set) -> None:
    s.dataset["contiguous_id"] = False


def flipped_isthing(s: Set) -> None:
    def flip(content: Any) -> None:
        category = content["categories"][int(s.rng.integers(4))]
        category["isthing"] = 1 - category["isthing"]

    s.edit(flip)


def renamed_category(s: Set) -> None:
    s.edit(lambda c: c["categories"][int(s.rng.integers(4))].update(name="something else"))


def crowd_of_stuff(s: Set) -> None:
    def crowd(content: Any) -> None:
        for segment in s.annotation(content)["segments_info"]:
            if segment["category_id"] == SKY:
                segment["iscrowd"] = 1

    s.edit(crowd)


def split_stuff(s: Set) -> None:
    """A stuff class with two segments in a photo."""
    content = json.loads(s.train.annotations.read_text())
    annotation = s.annotation(content)
    path = s.train.panoptic / annotation["file_name"]
    ids = read_panoptic(path)
    sky = next(x for x in annotation["segments_info"] if x["category_id"] == SKY)
    rows, columns = np.nonzero(ids == sky["id"])
    left = columns < np.median(columns)
    ids[rows[left], columns[left]] = 77
    Image.fromarray(ids_to_rgb(ids)).save(path)
    annotation["segments_info"].append({"id": 77, "category_id": SKY, "iscrowd": 0})
    sky.pop("area")
    s.train.annotations.write_text(json.dumps(content))


def leaked_photo(s: Set) -> None:
    shutil.copy(s.any(s.train.images), s.any(s.val.images))


def photo_twice(s: Set) -> None:
    first, second = sorted(s.train.images.iterdir())[:2]
    shutil.copy(first, second)


def nothing_labelled(s: Set) -> None:
    path = s.repaint(np.zeros_like)

    def clear(content: Any) -> None:
        for annotation in content["annotations"]:
            if annotation["file_name"] == path.name:
                annotation["segments_info"] = []

    s.edit(clear)


def wrapper_folder(s: Set) -> None:
    folder = (s.train.images, s.train.panoptic)[int(s.rng.integers(2))]
    inner = folder / "inner"
    inner.mkdir()
    for path in sorted(folder.glob("*.png")):
        path.rename(inner / path.name)


def names_repeat_the_folder(s: Set) -> None:
    def repeat(content: Any) -> None:
        for image in content["images"]:
            image["file_name"] = f"images/{image['file_name']}"

    s.edit(repeat)


def red_and_blue_swapped(s: Set) -> None:
    path = s.any(s.train.panoptic)
    Image.fromarray(np.ascontiguousarray(np.asarray(Image.open(path))[..., ::-1])).save(path)


def palette_mask(s: Set) -> None:
    path = s.any(s.train.panoptic)
    Image.open(path).quantize(8).save(path)


def jpeg_mask(s: Set) -> None:
    path = s.any(s.train.panoptic)
    image = Image.open(path)
    image.load()
    image.save(path, "JPEG")


def class_that_never_occurs(s: Set) -> None:
    s.train.label_map.write_text(json.dumps([*CATEGORIES, {"id": 40, "name": "unicorn", "isthing": 1}]))


def two_classes_of_one_id(s: Set) -> None:
    s.train.label_map.write_text(json.dumps([*CATEGORIES, {"id": 2, "name": "unicorn", "isthing": 1}]))


def annotation_of_no_image(s: Set) -> None:
    s.edit(lambda c: s.annotation(c).update(image_id=4711))


def image_without_annotation(s: Set) -> None:
    s.edit(lambda c: c["annotations"].pop(int(s.rng.integers(len(c["annotations"])))))


def file_of_no_annotation(s: Set) -> None:
    shutil.copy(s.any(s.train.images), s.train.images / "extra.png")


def cut_json(s: Set) -> None:
    truncate(s.train.annotations, s.rng)


def file_name_that_leads_away(s: Set) -> None:
    s.edit(lambda c: c["images"][0].update(file_name="../../../etc/passwd"))


def missing_key(s: Set) -> None:
    s.edit(lambda c: s.segment(c).pop("category_id"))


def beside(s: Set) -> Path:
    """Where the training set is written in another format."""
    return s.train.folder.parent / "other"


def masks_that_overlap(s: Set) -> None:
    """One object's picture covers another's, in a format in which each pixel is of one object."""
    s.written = write_object_masks(s.train, beside(s))
    thing = s.any(beside(s), "box/*.png")
    sky = sorted(thing.parent.parent.glob("sky/*.png"))[0]
    Image.fromarray(np.asarray(Image.open(sky)) | np.asarray(Image.open(thing))).save(sky)


def instances_of(s: Set, change: Callable[[Any], Any]) -> None:
    """Change one annotation of the training set as COCO instances."""
    s.written = write_coco_instances(s.train, beside(s))
    path = Path(s.written.split["annotations"])
    content = json.loads(path.read_text())
    place = int(s.rng.integers(len(content["annotations"])))
    content["annotations"] += change(content["annotations"][place]) or []
    path.write_text(json.dumps(content))


def object_twice(s: Set) -> None:
    instances_of(s, lambda a: [{**a, "id": 4711, "iscrowd": 0}, {**a, "id": 4712, "iscrowd": 0}])


def outline_of_two_points(s: Set) -> None:
    instances_of(s, lambda a: a.update(segmentation=[[1.0, 2.0, 3.0, 4.0]]))


def run_lengths_of_another_size(s: Set) -> None:
    instances_of(s, lambda a: a.update(segmentation={"size": [7, 7], "counts": [0, 49]}))


def boxes_for_outlines(s: Set) -> None:
    s.written = write_yolo_seg(s.train, beside(s))
    path = s.any(beside(s), "*.txt")
    path.write_text(path.read_text() + "0 0.5 0.5 0.2 0.2\n")


def colours_of_no_class(s: Set) -> None:
    s.written = write_semantic(s.train, beside(s), how="color")
    path = s.any(beside(s))
    Image.fromarray(np.ascontiguousarray(np.asarray(Image.open(path))[..., ::-1])).save(path)


def number_of_no_class(s: Set) -> None:
    s.written = write_semantic(s.train, beside(s))
    path = s.any(beside(s))
    numbers = np.asarray(Image.open(path)).copy()
    numbers[: int(s.rng.integers(1, 9))] = int(s.rng.integers(50, 200))
    Image.fromarray(numbers).save(path)


CORRUPTIONS: dict[Callable[[Set], None], set[str]] = {
    missing_image: {"missing_file"},
    missing_mask: {"missing_file"},
    truncated_image: {"unreadable_file"},
    truncated_mask: {"unreadable_file"},
    garbage_image: {"unreadable_file"},
    empty_image: {"unreadable_file"},
    small_image: {"size_mismatch"},
    small_mask: {"size_mismatch"},
    wrong_size_in_json: {"size_mismatch"},
    stray_id_in_mask: {"unlisted_id"},
    segment_not_in_json: {"unlisted_id"},
    phantom_segment: {"empty_segment"},
    erased_segment: {"empty_segment"},
    two_images_of_one_id: {"duplicate_id"},
    two_annotations_of_one_image: {"duplicate_id"},
    two_segments_of_one_id: {"duplicate_id"},
    wrong_area: {"wrong_area"},
    unknown_category: {"unknown_category"},
    gap_in_class_ids: {"label_gap"},
    flipped_isthing: {"thing_stuff"},
    renamed_category: {"label_map"},
    crowd_of_stuff: {"thing_stuff"},
    split_stuff: {"thing_stuff"},
    leaked_photo: {"leak"},
    photo_twice: {"duplicate_photo"},
    nothing_labelled: {"all_void"},
    wrapper_folder: {"wrong_level"},
    names_repeat_the_folder: {"wrong_level"},
    red_and_blue_swapped: {"wrong_encoding"},
    palette_mask: {"wrong_encoding"},
    jpeg_mask: {"wrong_encoding"},
    class_that_never_occurs: {"absent_class"},
    two_classes_of_one_id: {"duplicate_id"},
    annotation_of_no_image: {"unknown_image"},
    image_without_annotation: {"unlabelled_image"},
    file_of_no_annotation: {"unused_file"},
    cut_json: {"unreadable_file"},
    file_name_that_leads_away: {"annotation"},
    missing_key: {"annotation"},
    masks_that_overlap: {"overlap"},
    object_twice: {"duplicate_object"},
    outline_of_two_points: {"broken_shape"},
    run_lengths_of_another_size: {"broken_shape"},
    boxes_for_outlines: {"broken_shape"},
    colours_of_no_class: {"wrong_encoding"},
    number_of_no_class: {"unknown_category"},
}


JUNK: tuple[Any, ...] = (None, -1, 0, 2**70, 1.5, float("nan"), "", "\0", "x" * 300, [], {}, [[]], True, "../a", 10**9)


def with_junk(content: Any, rng: np.random.Generator) -> Any:
    """A copy in which one value, somewhere, is junk or gone."""
    node = content
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = keys[int(rng.integers(len(keys)))]
        inner = node[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.8:
            node = inner
            continue
        if rng.random() < 0.2:
            del node[key]
        else:
            node[key] = JUNK[int(rng.integers(len(JUNK)))]
        return content
