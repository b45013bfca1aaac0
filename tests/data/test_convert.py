"""Converting to COCO files: nothing is lost that both sides can say, and a run that was cut short is gone on with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from oneformer.data.annotation import read_annotated
from oneformer.data.convert import ANNOTATIONS, INSTANCES, JOURNAL, PANOPTIC, Counts, Writer, convert, shared_tasks
from oneformer.data.formats import read_records
from oneformer.data.labels import LabelMap, read_labels
from oneformer.data.record import Record, tasks_of
from oneformer.data.sample import Truth
from oneformer.errors import UserError
from oneformer.metrics.evaluator import truth_classes, truth_segments
from oneformer.spec.data import DatasetSpec
from tiny import TinyDataset, write_tiny_dataset
from tiny_formats import (
    Written,
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

WRITERS: dict[str, Callable[..., Written]] = {
    "ade20k": write_ade20k,
    "cityscapes": write_cityscapes,
    "mapillary": write_mapillary,
    "object_masks": write_object_masks,
    "labelme": write_labelme,
    "yolo_seg": write_yolo_seg,
    "coco_instances": write_coco_instances,
    "semantic_png": write_semantic,
    "parquet": write_parquet,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    return write_tiny_dataset(tmp_path_factory.mktemp("tiny"), images=4, size=(30, 44))


def read(dataset: DatasetSpec) -> tuple[LabelMap, list[Record]]:
    labels = read_labels(dataset, splits=["train"])
    return labels, read_records(dataset, "train", labels)


def run(dataset: DatasetSpec, target: Path, to: str, **options: Any) -> Counts:
    labels, records = read(dataset)
    writer = Writer(str(target), to, labels, shared_tasks(records, to))
    return convert(records, writer, told={"sources": ["here"]}, workers=0, **options)


def written(target: Path, to: str) -> DatasetSpec:
    dataset = DatasetSpec(label_map=str(target / "label_map.json"))
    dataset.train.images, dataset.train.annotations = str(target / "images"), str(target / ANNOTATIONS)
    if to == PANOPTIC:
        dataset.train.panoptic = str(target / "panoptic")
    return dataset


def photos(records: list[Record]) -> list[bytes]:
    return [np.asarray(read_annotated(record)[0]).tobytes() for record in records]


def panoptic_truth(record: Record, labels: LabelMap) -> dict[str, Any]:
    """What the panoptic and the semantic scores see of a photo, without the numbers of its ids."""
    truth = Truth.of(read_annotated(record)[1], record.source.tasks)
    segments = truth_segments(truth)
    found = sorted(
        (labels.names[c], bool(crowd), (truth.id_map == i).tobytes())
        for i, c, crowd in zip(segments.ids, segments.class_ids, segments.iscrowd, strict=True)
    )
    return {"segments": found, "classes": truth_classes(truth).tobytes()}


def objects(record: Record, labels: LabelMap) -> list[tuple[str, bool, bytes]]:
    labelled = read_annotated(record)[1]
    return sorted(
        (labels.names[s.class_id], s.iscrowd, labelled.mask(i).tobytes())
        for i, s in enumerate(labelled.segments)
        if labels.is_thing[s.class_id] and s.area and (s.iscrowd or not s.only_semantic)
    )


@pytest.mark.parametrize("name", WRITERS)
def test_coco_panoptic_keeps_every_segment(name: str, data: TinyDataset, tmp_path: Path) -> None:
    if name == "parquet":
        pytest.importorskip("pyarrow")
    source = WRITERS[name](data, tmp_path / "in").section()
    counts = run(source, tmp_path / "out", PANOPTIC)
    labels, before = read(source)
    again, after = read(written(tmp_path / "out", PANOPTIC))
    assert again == labels and tasks_of(after) == tasks_of(before)
    assert (counts.images, counts.faults) == (4, []) and photos(after) == photos(before)
    for old, new in zip(before, after, strict=True):
        mine, theirs = panoptic_truth(old, labels), panoptic_truth(new, labels)
        if name in ("ade20k", "cityscapes"):  # pixels that are only semantic have no place in COCO panoptic
            del mine["classes"], theirs["classes"]
        if name in ("coco_instances", "yolo_seg"):  # overlaps: only what lies on top
            mine["segments"] = [s for s in mine["segments"] if np.frombuffer(s[2], bool).any()]
        assert mine == theirs
        assert old.source.rest_is_background == new.source.rest_is_background


@pytest.mark.parametrize("name", [n for n in WRITERS if n != "semantic_png"])
def test_coco_instances_keep_every_whole_mask(name: str, data: TinyDataset, tmp_path: Path) -> None:
    if name == "parquet":
        pytest.importorskip("pyarrow")
    source = WRITERS[name](data, tmp_path / "in").section()
    run(source, tmp_path / "out", INSTANCES)
    labels, before = read(source)
    again, after = read(written(tmp_path / "out", INSTANCES))
    assert again.names == tuple(labels.names[i] for i in labels.thing_ids)
    for old, new in zip(before, after, strict=True):
        assert objects(old, labels) == objects(new, again)
    coco = COCO(str(tmp_path / "out" / ANNOTATIONS))
    for annotation in coco.loadAnns(coco.getAnnIds()):
        mask = coco.annToMask(annotation)
        rows, columns = np.nonzero(mask)
        assert annotation["area"] == mask.sum()
        assert annotation["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]


def test_coco_panoptic_to_itself_keeps_ids_and_bytes(data: TinyDataset, tmp_path: Path) -> None:
    dataset = DatasetSpec(label_map=str(data.label_map))
    dataset.train.images, dataset.train.annotations = str(data.images), str(data.annotations)
    dataset.train.panoptic = str(data.panoptic)
    run(dataset, tmp_path / "out", PANOPTIC)
    before, after = (json.loads(p.read_text()) for p in (data.annotations, tmp_path / "out" / ANNOTATIONS))
    assert [a["segments_info"] for a in before["annotations"]] == [a["segments_info"] for a in after["annotations"]]
    assert before["images"] == after["images"]
    for path in data.panoptic.iterdir():
        old, new = (np.asarray(Image.open(p)) for p in (path, tmp_path / "out" / "panoptic" / path.name))
        assert np.array_equal(old, new)


class Killed(Exception):
    """As if the process was killed."""


def test_a_run_that_was_killed_is_gone_on_with(data: TinyDataset, tmp_path: Path) -> None:
    source = write_object_masks(data, tmp_path / "in").section()

    def kill(images: int) -> None:
        seen.append(images)
        if len(seen) == 3:  # 0 resumed, then two images
            raise Killed

    seen: list[int] = []
    with pytest.raises(Killed):
        run(source, tmp_path / "out", PANOPTIC, done=kill)
    assert not (tmp_path / "out" / ANNOTATIONS).exists()
    with (tmp_path / "out" / JOURNAL).open("a") as file:
        file.write('{"image": {"id"')  # half a line
    rest: list[int] = []
    counts = run(source, tmp_path / "out", PANOPTIC, done=rest.append)
    assert (counts.resumed, rest) == (2, [2, 1, 1])
    run(source, tmp_path / "whole", PANOPTIC)
    files = sorted(p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*"))
    assert files == sorted(p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*"))
    assert all((tmp_path / "out" / f).read_bytes() == (tmp_path / "whole" / f).read_bytes() for f in files if f.suffix)


def test_another_conversion_or_a_finished_one_is_not_written_over(data: TinyDataset, tmp_path: Path) -> None:
    source = write_object_masks(data, tmp_path / "in").section()
    labels, records = read(source)
    writer = Writer(str(tmp_path / "out"), PANOPTIC, labels, shared_tasks(records, PANOPTIC))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / JOURNAL).write_text('{"sources": ["elsewhere"]}\n')
    with pytest.raises(UserError, match="another conversion was begun in this folder"):
        convert(records, writer, told={"sources": ["here"]}, workers=0)
    (tmp_path / "out" / JOURNAL).unlink()
    convert(records, writer, told={"sources": ["here"]}, workers=0)
    with pytest.raises(UserError, match="holds a data set already"):
        convert(records, writer, told={"sources": ["here"]}, workers=0)


def test_two_processes_write_what_one_writes(data: TinyDataset, tmp_path: Path) -> None:
    labels, records = read(write_coco_instances(data, tmp_path / "in").section())
    for name, workers in (("one", 0), ("two", 2)):
        writer = Writer(str(tmp_path / name), PANOPTIC, labels, ("instance",))
        convert(records, writer, told={}, workers=workers)
    assert (tmp_path / "one" / ANNOTATIONS).read_bytes() == (tmp_path / "two" / ANNOTATIONS).read_bytes()
    for path in (tmp_path / "one" / "panoptic").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / "panoptic" / path.name).read_bytes()


def test_photos_of_one_name_and_broken_ones(data: TinyDataset, tmp_path: Path) -> None:
    first, second = (write_object_masks(data, tmp_path / name).section() for name in ("a", "b"))
    first.train.annotations = [str(first.train.annotations), str(second.train.annotations)]
    labels, records = read(first)
    Path(records[1].image_path).write_bytes(b"no photo")
    counts = convert(records, Writer(str(tmp_path / "out"), PANOPTIC, labels, tasks_of(records)), told={}, workers=0)
    assert counts.images == 7 and len(counts.faults) == 1 and records[1].image_path in counts.faults[0]
    names = [image["file_name"] for image in json.loads((tmp_path / "out" / ANNOTATIONS).read_text())["images"]]
    assert names == ["scene_000.png", "scene_002.png", "scene_003.png", *(f"scene_00{i}_2.png" for i in range(4))]


def test_links_share_their_bytes_with_the_source(data: TinyDataset, tmp_path: Path) -> None:
    labels, records = read(write_coco_instances(data, tmp_path / "in").section())
    convert(records, Writer(str(tmp_path / "out"), INSTANCES, labels, ("instance",), link=True), told={}, workers=0)
    assert (tmp_path / "out" / "images" / "scene_000.png").samefile(records[0].image_path)


def test_what_the_target_cannot_hold_is_refused(data: TinyDataset, tmp_path: Path) -> None:
    _, semantic = read(write_semantic(data, tmp_path / "s").section())
    _, instances = read(write_coco_instances(data, tmp_path / "i").section())
    with pytest.raises(UserError, match="no single objects"):
        shared_tasks(semantic, INSTANCES)
    with pytest.raises(UserError, match="labels for different tasks: semantic; instance"):
        shared_tasks([*semantic, *instances], PANOPTIC)
    assert shared_tasks(instances, INSTANCES) == ("instance",)
