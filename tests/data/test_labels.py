"""The class table: order, ids, colours, and every contradiction named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oneformer.data.labels import LabelMap, check_num_classes, read_labels
from oneformer.errors import DataError, SpecError, UserErrors
from oneformer.spec.data import DatasetSpec


def write(path: Path, content: object) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def section(
    tmp_path: Path, label_map: object = None, categories: object = None, used: tuple[int, ...] = ()
) -> DatasetSpec:
    dataset = DatasetSpec()
    if label_map is not None:
        dataset.label_map = write(tmp_path / "label_map.json", label_map)
    if categories is not None:
        segments = [{"id": i + 1, "category_id": c} for i, c in enumerate(used)]
        content = {"images": [], "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}]}
        dataset.train.annotations = write(tmp_path / "annotations.json", {**content, "categories": categories})
    return dataset


CAT, DOG, SKY = {"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}, {"id": 9, "name": "sky", "isthing": 0}


def test_classes_are_numbered_in_the_order_of_the_label_map(tmp_path: Path) -> None:
    labels = read_labels(section(tmp_path, [CAT, SKY, DOG], [DOG, CAT, SKY]))
    assert labels.names == ("cat", "sky", "dog")
    assert labels.category_ids == (7, 9, 3) and labels.class_of == {7: 0, 9: 1, 3: 2}
    assert labels.thing_ids == (0, 2) and labels.stuff_ids == (1,)


def test_without_a_label_map_the_categories_of_all_files_are_taken(tmp_path: Path) -> None:
    dataset = section(tmp_path, None, [DOG, CAT])
    dataset.val.annotations = [write(tmp_path / "val.json", {"annotations": [], "categories": [CAT, SKY]})]
    assert read_labels(dataset).names == ("dog", "cat", "sky")
    assert read_labels(dataset, splits=["val"]).names == ("cat", "sky")


def test_missing_colours_are_distinct_and_the_same_each_time(tmp_path: Path) -> None:
    entries = [{"id": i, "name": f"class {i}"} for i in range(200)]
    entries[5]["color"] = [1, 2, 3]
    first, second = (read_labels(section(tmp_path, entries)).colors for _ in range(2))
    assert first == second and len(set(first)) == 200 and first[5] == (1, 2, 3)


def test_every_contradiction_is_named_at_once(tmp_path: Path) -> None:
    categories = [{"id": 7, "name": "kitten"}, {"id": 3, "name": "dog", "isthing": 0}, SKY]
    with pytest.raises(UserErrors) as caught:
        read_labels(section(tmp_path, [CAT, DOG, SKY], categories))
    message = caught.value.message
    assert "annotations.json" in message and "label_map.json" in message
    assert "id 7 is 'kitten' here and 'cat' there" in message and "id 3 is 0 here and 1 there" in message


def test_a_used_category_outside_the_label_map_is_named_with_its_file(tmp_path: Path) -> None:
    dataset = section(tmp_path, [CAT], [CAT, DOG, SKY], used=(7, 3, 42))
    with pytest.raises(DataError) as caught:
        read_labels(dataset)
    message = caught.value.message
    assert "annotations.json" in message and "id 3 (dog)" in message and "id 42" in message
    assert "sky" not in message, "a category that is declared but not used does no harm"


def test_ids_used_as_they_are_must_have_no_gap(tmp_path: Path) -> None:
    dataset = section(tmp_path, [{"id": i, "name": str(i)} for i in (0, 1, 3)])
    dataset.contiguous_id = False
    with pytest.raises(DataError, match=r"must be 0 to 2, but 2 .*3 lie outside") as caught:
        read_labels(dataset)
    assert "contiguous_id: true" in caught.value.message


def test_ids_used_as_they_are_are_the_classes(tmp_path: Path) -> None:
    dataset = section(tmp_path, [{"id": i, "name": f"c{i}"} for i in (2, 0, 1)])
    dataset.contiguous_id = False
    labels = read_labels(dataset)
    assert labels.names == ("c0", "c1", "c2") and labels.category_ids == (0, 1, 2)


@pytest.mark.parametrize(
    ("label_map", "said"),
    [
        ({"id": 1}, "not a list"),
        ([], "no classes"),
        ([CAT, {**DOG, "id": 7}], "same id"),
        ([CAT, {**DOG, "name": "cat"}], "same name"),
        ([{"id": "7", "name": "cat"}], "whole number"),
        ([{"id": True, "name": "cat"}], "whole number"),
        ([{"id": 1, "name": " "}], "no name"),
        ([{**CAT, "isthing": 2}], "isthing"),
        ([{**CAT, "color": [1, 2]}], "color"),
        (["cat"], "not an object"),
    ],
)
def test_a_bad_label_map_is_refused_by_name(tmp_path: Path, label_map: object, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read_labels(section(tmp_path, label_map))
    assert "label_map.json" in caught.value.message


def test_broken_json_is_named_with_line_and_column(tmp_path: Path) -> None:
    dataset = DatasetSpec(label_map=str(tmp_path / "label_map.json"))
    Path(dataset.label_map).write_text('[{"id": 1,\n "name" "cat"}]')
    with pytest.raises(DataError, match=r"label_map\.json:2:9: the label map is not valid JSON"):
        read_labels(dataset)


def test_a_missing_file_is_named_with_what_lies_there_instead(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text("[]")
    with pytest.raises(DataError, match=r"the label map does not exist(.|\n)*holds labels\.json"):
        read_labels(DatasetSpec(label_map=str(tmp_path / "label_map.json")))


def test_no_source_of_classes_is_an_error() -> None:
    with pytest.raises(DataError, match="no classes are known"):
        read_labels(DatasetSpec())


def test_labels_survive_storing(tmp_path: Path) -> None:
    labels = read_labels(section(tmp_path, [CAT, DOG, SKY]))
    assert LabelMap.from_dict(json.loads(json.dumps(labels.to_dict()))) == labels


@pytest.mark.parametrize(
    "stored", [{}, {"names": ["a"], "is_thing": [], "colors": [], "category_ids": []}, {"names": 1}]
)
def test_a_broken_stored_class_list_is_refused(stored: dict[str, object]) -> None:
    with pytest.raises(DataError, match="class list is broken"):
        LabelMap.from_dict(stored)


def test_a_class_count_that_does_not_fit_is_said_with_both_numbers(tmp_path: Path) -> None:
    labels = read_labels(section(tmp_path, [CAT, DOG]))
    check_num_classes(labels, 2)
    with pytest.raises(SpecError, match=r"the label map has 2 classes, model.sem_seg_head.num_classes is 133"):
        check_num_classes(labels, 133)


def test_categories_that_do_not_say_isthing_contradict_nothing(tmp_path: Path) -> None:
    labels = read_labels(section(tmp_path, [CAT, SKY], [CAT, {"id": 9, "name": "sky"}]))
    assert labels.is_thing == (True, False)


def test_all_unreadable_annotation_files_are_named_together(tmp_path: Path) -> None:
    dataset = section(tmp_path, [CAT])
    dataset.train.annotations, dataset.val.annotations = str(tmp_path / "a.json"), str(tmp_path / "b.json")
    with pytest.raises(UserErrors, match=r"a\.json(.|\n)*b\.json"):
        read_labels(dataset)
