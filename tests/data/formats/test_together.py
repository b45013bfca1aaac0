"""Data sets of several formats in one list: classes of one name are one class, whatever number each file gives them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from oneformer.data.annotation import read_annotated
from oneformer.data.check import check
from oneformer.data.findings import Finding, Findings
from oneformer.data.formats import read_records
from oneformer.data.labels import LabelMap, read_labels
from oneformer.errors import DataError, UserErrors
from oneformer.spec.data import DatasetSpec
from tiny import CATEGORIES, TinyDataset, write_tiny_dataset
from tiny_formats import scenes, write_coco_instances, write_yolo_seg

NAMES = {c["id"]: c["name"] for c in CATEGORIES}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    return write_tiny_dataset(tmp_path_factory.mktemp("tiny"), images=4, size=(40, 56))


@pytest.fixture
def both(data: TinyDataset, tmp_path: Path) -> DatasetSpec:
    """COCO instances that number disk and box 2 and 6, and YOLO labels that number them 0 and 1."""
    coco, yolo = write_coco_instances(data, tmp_path / "coco"), write_yolo_seg(data, tmp_path / "yolo")
    dataset = DatasetSpec()
    dataset.train.annotations = [coco.split["annotations"], yolo.split["annotations"]]
    dataset.train.images = [coco.split["images"], str(tmp_path / "yolo" / "images" / "train")]
    return dataset


def objects(dataset: DatasetSpec, labels: LabelMap) -> Counter[tuple[str, str]]:
    """(photo, class name) of each object of all data sets."""
    found: Counter[tuple[str, str]] = Counter()
    for record in read_records(dataset, "train", labels):
        _, labelled = read_annotated(record)
        found.update((Path(record.image_path).stem, labels.names[s.class_id]) for s in labelled.segments)
    return found


def twice(data: TinyDataset) -> Counter[tuple[str, str]]:
    """What the scenes hold, from both data sets."""
    return Counter((scene.stem, NAMES[category]) for scene in scenes(data) for category, *_ in scene.things() * 2)


def test_one_class_may_have_another_id_in_each_file(both: DatasetSpec, data: TinyDataset) -> None:
    labels = read_labels(both)
    assert (labels.names, labels.category_ids) == (("disk", "box"), (2, 6))
    assert objects(both, labels) == twice(data)


@pytest.mark.parametrize("ids", [(0, 1), (1, 0), (6, 2), (40, 41)])
def test_a_label_map_with_ids_of_its_own_decides(
    ids: tuple[int, int], both: DatasetSpec, data: TinyDataset, tmp_path: Path
) -> None:
    """Also when its ids are those of other classes in a file."""
    disk, box = ({"id": i, "name": name} for i, name in zip(ids, ("disk", "box"), strict=True))
    both.label_map = str(tmp_path / "map.json")
    Path(both.label_map).write_text(json.dumps([box, {"id": 90, "name": "tree"}, disk]))
    labels = read_labels(both)
    assert labels.names == ("box", "tree", "disk")
    assert objects(both, labels) == twice(data)


def test_the_check_says_that_names_decided(both: DatasetSpec) -> None:
    found: list[Finding] = []
    check(both, findings=Findings(found.append), workers=0)
    told = [f for f in found if f.kind == "label_map"]
    assert [f.severity for f in told] == ["warning"] and told[0].file == both.train.annotations[1]
    assert "'disk' (id 0 here, 2 elsewhere), 'box' (id 1 here, 6 elsewhere)" in told[0].what


def test_ids_of_a_data_set_alone_stay_its_own(both: DatasetSpec) -> None:
    """The reader of the second file knows its ids and no others."""
    path = Path(both.train.annotations[1])
    label = next(path.glob("*.txt"))
    label.write_text("6 0.1 0.1 0.2 0.1 0.2 0.2\n")
    labels = read_labels(both)
    with pytest.raises(DataError, match="class 6 is not in the label map"):
        read_records(both, "train", labels)


def test_a_new_name_under_an_id_that_is_taken_is_refused(both: DatasetSpec, tmp_path: Path) -> None:
    (tmp_path / "yolo" / "data.yaml").write_text("names: {2: bird, 0: disk}\n")
    with pytest.raises(DataError, match="id 2 is 'bird' here and 'disk' there") as told:
        read_labels(both)
    assert "dataset.label_map" in told.value.hint


def test_ids_that_are_classes_themselves_have_to_agree(both: DatasetSpec, tmp_path: Path) -> None:
    both.contiguous_id = False
    (tmp_path / "coco" / "instances.json").write_text(
        json.dumps(
            {"images": [], "annotations": [], "categories": [{"id": 0, "name": "box"}, {"id": 2, "name": "disk"}]}
        )
    )
    with pytest.raises((DataError, UserErrors)) as told:
        read_labels(both)
    assert "id 0 is 'disk' here and 'box' there" in told.value.message
    assert "a class has another id in another file: box" in told.value.message
