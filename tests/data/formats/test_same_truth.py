"""The same photos and labels in every format give the same truth, as far as the format can say it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from oneformer.data.annotation import read_annotated
from oneformer.data.formats import read_records
from oneformer.data.formats.part import detect
from oneformer.data.labels import LabelMap, read_labels
from oneformer.data.record import Record, RecordTable, tasks_of
from oneformer.data.sample import BACKGROUND, VOID, Truth, make_target
from oneformer.metrics.evaluator import truth_classes, truth_segments
from tiny import CATEGORIES, TinyDataset, write_tiny_dataset
from tiny_formats import (
    ADE_OF,
    CITY_OF,
    Written,
    scenes,
    write_ade20k,
    write_cityscapes,
    write_coco_instances,
    write_labelme,
    write_mapillary,
    write_object_masks,
    write_parquet,
    write_semantic,
    write_yolo_seg,
)

ALL = ("semantic", "instance", "panoptic")
NAMES = {c["name"]: c["name"] for c in CATEGORIES}
ADE = {"person": "disk", "sky": "sky", "car": "box", "earth, ground": "ground"}
CITY = {"person": "disk", "sky": "sky", "car": "box", "road": "ground"}
VISTAS = {f"object--{name}": name for name in NAMES}


@dataclass(frozen=True)
class Way:
    """How a format is written and what it can say. `crowds`: kept, or told as `single` things, or `void`."""

    format: str
    write: Callable[..., Written]
    tasks: tuple[str, ...]
    names: dict[str, str]
    options: tuple[tuple[str, object], ...] = ()
    crowds: str = "kept"
    known_crowds: bool = False
    """Pixels of crowds are of the class for the semantic task."""


def no_objects(**options: object) -> tuple[tuple[str, object], ...]:
    return tuple(options.items())


WAYS = {
    "coco_instances": Way("coco_instances", write_coco_instances, ("instance",), NAMES),
    "semantic grey": Way("semantic_png", write_semantic, ("semantic",), NAMES, known_crowds=True),
    "semantic palette": Way("semantic_png", write_semantic, ("semantic",), NAMES, (("how", "palette"),), known_crowds=True),
    "semantic color": Way("semantic_png", write_semantic, ("semantic",), NAMES, (("how", "color"),), known_crowds=True),
    "ade20k": Way("ade20k", write_ade20k, ALL, ADE, crowds="void", known_crowds=True),
    "ade20k semantic": Way("ade20k", write_ade20k, ("semantic",), ADE, (("objects", False),), known_crowds=True),
    "cityscapes": Way("cityscapes", write_cityscapes, ALL, CITY, known_crowds=True),
    "cityscapes semantic": Way("cityscapes", write_cityscapes, ("semantic",), CITY, (("objects", False),), known_crowds=True),
    "mapillary": Way("mapillary", write_mapillary, ALL, VISTAS, crowds="single", known_crowds=True),
    "mapillary semantic": Way("mapillary", write_mapillary, ("semantic",), VISTAS, (("objects", False),), known_crowds=True),
    "object_masks": Way("object_masks", write_object_masks, ALL, NAMES, crowds="single", known_crowds=True),
    "object_masks by photo": Way("object_masks", write_object_masks, ALL, NAMES, (("layout", "by_photo"),), crowds="single", known_crowds=True),
    "labelme": Way("labelme", write_labelme, ALL, NAMES, crowds="single", known_crowds=True),
    "parquet": Way("parquet", write_parquet, ALL, NAMES),
    "parquet semantic": Way("parquet", write_parquet, ("semantic",), NAMES, (("kind", "semantic"),), known_crowds=True),
    "parquet instances": Way("parquet", write_parquet, ("instance",), NAMES, (("kind", "instances"),)),
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    return write_tiny_dataset(tmp_path_factory.mktemp("tiny"), images=6, size=(40, 56))


@pytest.fixture(scope="module")
def written(data: TinyDataset, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Written]:
    done: dict[str, Written] = {}

    def write(name: str) -> Written:
        if "parquet" in name:
            pytest.importorskip("pyarrow")
        if name not in done:
            done[name] = WAYS[name].write(data, tmp_path_factory.mktemp("written"), **dict(WAYS[name].options))
        return done[name]

    return write


def read(one: Written, format: str = "auto") -> tuple[LabelMap, list[Record]]:
    section = one.section(format)
    labels = read_labels(section)
    return labels, read_records(section, "train", labels)


def in_order(records: list[Record]) -> list[Record]:
    """In the order of the scenes; Cityscapes' come city by city."""
    if records[0].source.format != "cityscapes":
        return records
    return sorted(records, key=lambda record: str(record.image_id).split("_")[1])


@pytest.mark.parametrize("name", WAYS)
def test_the_format_is_told_from_the_files(name: str, written: Callable[[str], Written]) -> None:
    split = written(name).split
    assert detect(split["annotations"], images=split.get("images", "")) == WAYS[name].format


@pytest.mark.parametrize("name", WAYS)
def test_records_know_what_their_labels_are_enough_for(name: str, written: Callable[[str], Written]) -> None:
    labels, records = read(written(name))
    assert len(records) == 6 and tasks_of(records) == WAYS[name].tasks
    assert {r.source.format for r in records} == {WAYS[name].format}
    assert list(RecordTable(records)) == records
    named, by_name = read(written(name), WAYS[name].format)
    assert (named, by_name) == (labels, records), "naming the format changes nothing"


@pytest.mark.parametrize("name", [n for n, w in WAYS.items() if "semantic" in w.tasks])
def test_every_format_has_the_same_classes_per_pixel(
    name: str, written: Callable[[str], Written], data: TinyDataset
) -> None:
    way = WAYS[name]
    labels, records = read(written(name))
    ours = {c["id"]: c["name"] for c in CATEGORIES}
    for record, scene in zip(in_order(records), scenes(data), strict=True):
        _, found = read_annotated(record)
        classes = truth_classes(Truth.of(found, record.source.tasks))
        seen = np.array([*(way.names.get(n, n) for n in labels.names), "void"])[classes]
        true = np.full(scene.ids.shape, "void", object)
        for segment_id, category, crowd in scene.segments:
            true[scene.ids == segment_id] = ours[category] if way.known_crowds or not crowd else "void"
        assert (seen == true).all()


def expected(scene: object, way: Way) -> tuple[Counter[tuple[str, bytes]], Counter[tuple[str, bytes]]]:
    """The things and the crowds of a scene: (name, mask)."""
    ours = {c["id"]: c["name"] for c in CATEGORIES}
    things: Counter[tuple[str, bytes]] = Counter()
    crowds: Counter[tuple[str, bytes]] = Counter()
    for category, mask, crowd in scene.things():  # type: ignore[attr-defined]
        if crowd and way.crowds == "void":
            continue
        (crowds if crowd and way.crowds == "kept" else things)[ours[category], mask.tobytes()] += 1
    return things, crowds


@pytest.mark.parametrize("name", [n for n, w in WAYS.items() if "instance" in w.tasks])
def test_every_format_has_the_same_objects(name: str, written: Callable[[str], Written], data: TinyDataset) -> None:
    way = WAYS[name]
    labels, records = read(written(name))
    for record, scene in zip(in_order(records), scenes(data), strict=True):
        _, found = read_annotated(record)
        things: Counter[tuple[str, bytes]] = Counter()
        crowds: Counter[tuple[str, bytes]] = Counter()
        for place, segment in enumerate(found.segments):
            if labels.is_thing[segment.class_id] and (segment.iscrowd or not segment.only_semantic):
                item = (way.names[labels.names[segment.class_id]], found.mask(place).tobytes())
                (crowds if segment.iscrowd else things)[item] += 1
                assert segment.area == found.mask(place).sum()
        assert (things, crowds) == expected(scene, way)


@pytest.mark.parametrize("name", ["coco_instances", "parquet instances"])
def test_where_only_things_are_labelled_the_rest_is_background(name: str, written: Callable[[str], Written]) -> None:
    labels, records = read(written(name))
    for record in records:
        _, found = read_annotated(record)
        rest = BACKGROUND if record.source.rest_is_background else VOID
        target = make_target(found.index, found.segments, labels, task="instance", rest=rest)
        crowd = np.zeros(found.index.shape, bool)
        for place, segment in enumerate(found.segments):
            crowd |= segment.iscrowd & found.mask(place)
        assert np.array_equal(target.void.numpy(), crowd)


def test_ade20k_pixels_of_things_without_an_object_are_only_semantic(
    written: Callable[[str], Written], data: TinyDataset
) -> None:
    labels, records = read(written("ade20k"))
    assert (labels.num_classes, len(labels.thing_ids)) == (150, 100)
    crowded = [s for s in scenes(data) if any(crowd for *_, crowd in s.things())]
    assert crowded
    for scene in crowded:
        record = next(r for r in records if r.image_id == scene.stem)
        _, found = read_annotated(record)
        crowd = next(mask for _, mask, crowd in scene.things() if crowd)
        truth = Truth.of(found, record.source.tasks)
        person = labels.names.index("person")
        assert (truth_classes(truth)[crowd] == person).all()
        known = np.isin(truth.id_map, truth_segments(truth).ids)
        assert not known[crowd].any(), "no panoptic segment: void, as OneFormer's data is prepared"
        for task in ("instance", "panoptic"):
            target = make_target(found.index, found.segments, labels, task=task)
            assert target.void.numpy()[crowd].all()


def test_cityscapes_has_its_19_classes_and_group_regions_are_crowds(written: Callable[[str], Written]) -> None:
    labels, records = read(written("cityscapes"))
    assert labels.names[0] == "road" and labels.category_ids[0] == CITY_OF[11]
    assert (labels.num_classes, len(labels.thing_ids)) == (19, 8)
    segments = [s for r in records for s in read_annotated(r)[1].segments]
    assert any(s.iscrowd and s.only_semantic for s in segments)
    assert [r.image_id for r in records][:2] == ["aachen_000000_000019", "aachen_000002_000019"]


def test_ade_values_are_one_above_the_class_ids() -> None:
    assert sorted(ADE_OF.values()) == [3, 13, 14, 21]  # sky, person, earth, car of objectInfo150.txt


def test_yolo_polygons_are_rasterised_as_coco_does(data: TinyDataset, tmp_path: Path) -> None:
    labels, records = read(write_yolo_seg(data, tmp_path))
    assert labels.names == ("disk", "box") and tasks_of(records) == ("instance",)
    for record, scene in zip(in_order(records), scenes(data), strict=True):
        _, found = read_annotated(record)
        boxes = Counter()
        for category, mask, _ in scene.things():
            rows, columns = np.nonzero(mask)
            box = np.zeros(mask.shape, bool)
            box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
            boxes[{2: "disk", 6: "box"}[category], box.tobytes()] += 1
        seen = Counter((labels.names[s.class_id], found.mask(i).tobytes()) for i, s in enumerate(found.segments))
        assert seen == boxes, "rectangles that overlap keep their whole masks"
