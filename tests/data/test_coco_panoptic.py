"""Reading COCO panoptic files: what becomes a record, and each kind of fault as one message that names the file."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oneformer.data.formats import read_records
from oneformer.data.labels import read_labels
from oneformer.data.record import Record, RecordTable
from oneformer.errors import DataError, SpecError, UserError, UserErrors
from oneformer.spec.data import DatasetSpec
from tiny import TinyDataset

Section = Callable[[TinyDataset], DatasetSpec]
Edit = Callable[[Path, Callable[[Any], Any]], None]


def read(dataset: DatasetSpec) -> list[Record]:
    labels = read_labels(DatasetSpec(label_map=dataset.label_map, contiguous_id=dataset.contiguous_id))
    return read_records(dataset, "train", labels)


def message_of(dataset: DatasetSpec) -> str:
    with pytest.raises(UserError) as caught:
        read(dataset)
    assert caught.value.exit_code == 2
    return caught.value.message


def test_records_hold_what_the_file_says(tiny: TinyDataset, dataset: DatasetSpec) -> None:
    records = read(dataset)
    assert [r.image_id for r in records] == list(range(100, 112))
    assert (records[0].width, records[0].height) == (96, 64)
    assert records[0].image_path == str(tiny.images / "scene_000.png")
    assert {s.class_id for r in records for s in r.segments} == {0, 1, 2, 3}
    assert sum(s.iscrowd for r in records for s in r.segments) == 4


def test_the_compact_table_gives_equal_records(dataset: DatasetSpec) -> None:
    records = read(dataset)
    table = RecordTable(records)
    assert list(table) == records and table[-1] == records[-1] and table[2:4] == records[2:4]
    with pytest.raises(IndexError):
        table[len(records)]


def test_several_data_sets_share_a_single_folder(tiny: TinyDataset, dataset: DatasetSpec) -> None:
    dataset.train.annotations = [str(tiny.annotations)] * 2
    assert len(read(dataset)) == 24
    dataset.train.images = [str(tiny.images)] * 2
    assert len(read(dataset)) == 24


def test_folders_and_files_have_to_pair_up(tiny: TinyDataset, dataset: DatasetSpec) -> None:
    dataset.train.images = [str(tiny.images)] * 3
    dataset.train.annotations = [str(tiny.annotations)] * 2
    with pytest.raises(SpecError, match=r"dataset\.train\.images: 3 folders are given for 2 annotation files"):
        read(dataset)


def test_paths_that_are_not_set_are_named_together(dataset: DatasetSpec) -> None:
    dataset.train.images = dataset.train.panoptic = ""
    with pytest.raises(UserErrors, match=r"dataset\.train\.images(.|\n)*dataset\.train\.panoptic"):
        read(dataset)


def test_missing_folders_name_the_nearest_one(broken: TinyDataset, section: Section) -> None:
    dataset = section(broken)
    dataset.train.images = str(broken.folder / "pictures")
    message = message_of(dataset)
    assert "pictures" in message and "images/" in message


def test_a_missing_annotation_file_is_named(broken: TinyDataset, section: Section) -> None:
    broken.annotations.unlink()
    assert "annotations.json: the annotation file does not exist" in message_of(section(broken))


@pytest.mark.parametrize(
    ("text", "said"), [("", "the file is empty"), ('{"images": [', "ends too early"), ("{]", ":1:2:")]
)
def test_broken_json_is_named_with_its_place(broken: TinyDataset, section: Section, text: str, said: str) -> None:
    broken.annotations.write_text(text)
    message = message_of(section(broken))
    assert "annotations.json:" in message and "not valid JSON" in message and said in message


def test_missing_files_are_counted_in_one_message(broken: TinyDataset, section: Section) -> None:
    (broken.images / "scene_001.png").unlink()
    (broken.images / "scene_002.png").unlink()
    (broken.panoptic / "scene_003.png").unlink()
    message = message_of(section(broken))
    assert message.count("annotations.json") == 2, "one message for images, one for masks"
    assert "there is no image file (2 times)" in message and "scene_001.png" in message
    assert "there is no mask file: " in message and "scene_003.png" in message


def test_a_folder_one_level_too_high_is_recognised(broken: TinyDataset, section: Section) -> None:
    inner = broken.images / "train2017"
    inner.mkdir()
    for path in broken.images.glob("*.png"):
        shutil.move(path, inner / path.name)
    message = message_of(section(broken))
    assert f"lies in {inner}: set dataset.train.images to that folder" in message


def test_a_folder_one_level_too_deep_is_recognised(broken: TinyDataset, section: Section, edit_json: Edit) -> None:
    def into_subfolder(content: Any) -> None:
        for image in content["images"]:
            image["file_name"] = f"images/{image['file_name']}"

    edit_json(broken.annotations, into_subfolder)
    message = message_of(section(broken))
    assert f"scene_000.png lies in {broken.images}" in message


def break_image_id(content: Any) -> None:
    content["images"][1]["id"] = 100


def repeat_annotation(content: Any) -> None:
    content["annotations"].append(content["annotations"][0])


def repeat_annotation_id(content: Any) -> None:
    for annotation in content["annotations"]:
        annotation["id"] = 5


def repeat_segment_id(content: Any) -> None:
    segments = content["annotations"][0]["segments_info"]
    segments[1]["id"] = segments[0]["id"]


def category_77(content: Any) -> None:
    content["annotations"][0]["segments_info"][0]["category_id"] = 77


def segment_0(content: Any) -> None:
    content["annotations"][0]["segments_info"][0]["id"] = 0


def leave_the_folder(content: Any) -> None:
    content["images"][0]["file_name"] = "../panoptic/scene_000.png"


def absolute_file_name(content: Any) -> None:
    content["annotations"][0]["file_name"] = "/etc/hostname"


def absent_img_path(content: Any) -> None:
    content["images"][0]["img_path"] = "/nowhere/scene.png"


def instance_file(content: Any) -> None:
    content["annotations"] = [{"id": 1, "image_id": 100, "category_id": 2, "bbox": [0, 0, 1, 1], "segmentation": []}]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (break_image_id, "two images have the same id: 100"),
        (repeat_annotation, "an image has two annotations: image id 100"),
        (repeat_annotation_id, r"two annotations have the same id \(3 times\): 5"),
        (repeat_segment_id, r"two segments of an image have the same id: \d+ \(image id 100\)"),
        (category_77, r"a category is not in the label map: id 77 \(image id 100\)"),
        (segment_0, r"a segment id is not between 1 and 16777215: 0 \(image id 100\)"),
        (leave_the_folder, r"leads out of its folder: \.\./panoptic"),
        (absolute_file_name, "leads out of its folder: /etc/hostname"),
        (absent_img_path, "there is no file at img_path: /nowhere/scene.png"),
        (instance_file, r"no file_name and no segments_info: annotations\[0\](.|\n)*COCO instance file"),
        (lambda c: c.pop("images"), "has no list 'images'"),
        (lambda c: c["images"][0].pop("file_name"), r"an image has no file_name: images\[0\], id 100"),
        (lambda c: c["annotations"][0].update(image_id=7), r"belongs to no image: annotations\[0\], image_id 7"),
        (lambda c: c["annotations"][0].update(segments_info=None), "segments_info is not a list"),
        (lambda c: c["annotations"][0]["segments_info"][0].pop("category_id"), "no category_id: image id 100"),
        (lambda c: c["annotations"][0]["segments_info"][0].update(iscrowd=3), "iscrowd"),
        (lambda c: c["images"][0].update(width=-1), "width and height"),
        (lambda c: c["images"][0].update(width="a"), "width and height"),
        (lambda c: c.update(images=[], annotations=[]), "there is not one annotated image"),
        (lambda c: c.update(annotations=[]), "there is not one annotated image"),
    ],
)
def test_each_fault_is_one_message_that_names_the_file(
    broken: TinyDataset, section: Section, edit_json: Edit, edit: Callable[[Any], Any], said: str
) -> None:
    edit_json(broken.annotations, edit)
    with pytest.raises((DataError, UserErrors), match=said) as caught:
        read(section(broken))
    assert str(broken.annotations) in caught.value.message and caught.value.exit_code == 2


def test_a_file_that_is_no_object_is_refused(broken: TinyDataset, section: Section) -> None:
    broken.annotations.write_text("[1]")
    assert "has no list 'images'" in message_of(section(broken))


def test_all_faults_of_a_file_come_together(broken: TinyDataset, section: Section, edit_json: Edit) -> None:
    edit_json(broken.annotations, lambda c: [category_77(c), repeat_annotation(c)])
    (broken.images / "scene_003.png").unlink()
    message = message_of(section(broken))
    for said in ("id 77", "two annotations", "scene_003.png", "[3/3]"):
        assert said in message


def test_images_without_annotation_are_counted_and_said(
    broken: TinyDataset, section: Section, edit_json: Edit, caplog: pytest.LogCaptureFixture
) -> None:
    edit_json(broken.annotations, lambda c: c["annotations"].pop())
    with caplog.at_level(logging.WARNING):
        assert len(read(section(broken))) == 3
    assert "an image has no labels and is left out: scene_003.png" in caplog.text


def test_img_path_wins_over_file_name(broken: TinyDataset, section: Section, edit_json: Edit) -> None:
    other = broken.folder / "elsewhere.png"
    shutil.copy(broken.images / "scene_000.png", other)

    def two_ways(content: Any) -> None:
        content["images"][0]["img_path"] = str(other)
        content["images"][1]["img_path"] = "scene_002.png"

    edit_json(broken.annotations, two_ways)
    records = read(section(broken))
    assert records[0].image_path == str(other)
    assert records[1].image_path == str(broken.images / "scene_002.png")


def test_sizes_come_from_the_image_when_the_file_has_none(
    broken: TinyDataset, section: Section, edit_json: Edit
) -> None:
    def without_size(content: Any) -> None:
        for image in content["images"]:
            del image["width"], image["height"]

    edit_json(broken.annotations, without_size)
    assert {(r.width, r.height) for r in read(section(broken))} == {(96, 64)}


def test_optional_keys_may_be_absent(broken: TinyDataset, section: Section, edit_json: Edit) -> None:
    def bare(content: Any) -> None:
        for annotation in content["annotations"]:
            annotation["segments_info"] = [
                {"id": s["id"], "category_id": s["category_id"]} for s in annotation["segments_info"]
            ]

    edit_json(broken.annotations, bare)
    assert all(not s.iscrowd and s.area == 0 for r in read(section(broken)) for s in r.segments)
