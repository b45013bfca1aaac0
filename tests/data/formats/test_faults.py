"""What can be wrong with files of each format: the check names kind, file and remedy, and reading refuses."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.corruptions import with_junk
from oneformer.data.check import check, quick_check
from oneformer.data.findings import Finding, Findings
from oneformer.data.formats import read_records
from oneformer.data.formats.part import detect
from oneformer.data.labels import read_labels
from oneformer.data.loader import train_loader
from oneformer.errors import DataError, MissingExtra, SpecError, UserError
from oneformer.spec.data import DatasetSpec
from oneformer.spec.model import ModelSpec
from tiny import TinyDataset, write_tiny_dataset
from tiny_formats import (
    Written,
    save_png,
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

Break = Callable[[Path], Any]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    return write_tiny_dataset(tmp_path_factory.mktemp("tiny"), images=3, size=(24, 36))


def first(root: Path, pattern: str) -> Path:
    return sorted(root.rglob(pattern))[0]


def instances(change: Callable[[Any], Any]) -> Break:
    """Change the annotations of COCO instances."""

    def edit(root: Path) -> None:
        path = root / "instances.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return edit


def shape(value: Any) -> Break:
    return instances(lambda c: c["annotations"][0].update(segmentation=value))


def labelme(**change: Any) -> Break:
    """Change the first shape of the first LabelMe file."""

    def edit(root: Path) -> None:
        path = first(root, "*.json")
        content = json.loads(path.read_text())
        content["shapes"][0].update(change)
        path.write_text(json.dumps(content))

    return edit


def yolo(line: str) -> Break:
    def edit(root: Path) -> None:
        path = first(root, "*.txt")
        path.write_text(f"{path.read_text()}{line}\n")

    return edit


def picture(pattern: str, change: Callable[[np.ndarray], np.ndarray]) -> Break:
    """Change the pixels of the first file of a name."""

    def edit(root: Path) -> None:
        path = first(root, pattern)
        Image.fromarray(change(np.asarray(Image.open(path)).copy())).save(path)

    return edit


def smaller(root: Path) -> None:
    path = first(root, "labels/*.png")
    Image.open(path).resize((5, 5)).save(path)


def smooth(root: Path) -> None:
    path = first(root, "labels/*.png")
    image = Image.open(path)
    image.resize((360, 240), Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BICUBIC).save(path)


def spot(value: Any) -> Callable[[np.ndarray], np.ndarray]:
    def change(pixels: np.ndarray) -> np.ndarray:
        pixels[:3, :3] = value
        return pixels

    return change


def overlapping(root: Path) -> None:
    masks = sorted((root / "scene_000" / "masks").rglob("*.png"))
    whole = np.full((24, 36), 255, np.uint8)
    save_png(whole, masks[0])


def gone(pattern: str) -> Break:
    return lambda root: first(root, pattern).unlink()


COLORS = {"how": "color"}
FAULTS: list[tuple[str, Callable[..., Written], dict[str, Any], Break, str, str]] = [
    ("box only", write_coco_instances, {}, instances(lambda c: c["annotations"][0].pop("segmentation")), "annotation", "a box is not enough"),
    ("empty polygon list", write_coco_instances, {}, shape([]), "empty_segment", "segmentation is empty"),
    ("two points", write_coco_instances, {}, shape([[1, 1, 5, 5]]), "broken_shape", "fewer than three points"),
    ("odd numbers", write_coco_instances, {}, shape([[1, 1, 5, 5, 9, 9, 1]]), "broken_shape", "odd number"),
    ("no number", write_coco_instances, {}, shape([[1, 1, 5, 5, "9", 9]]), "broken_shape", "not a list of numbers"),
    ("far away", write_coco_instances, {}, shape([[1, 1, 5, 5, 9e8, 9]]), "broken_shape", "far outside"),
    ("runs of another size", write_coco_instances, {}, shape({"size": [5, 5], "counts": [25]}), "broken_shape", "the photo 36 x 24"),
    ("runs too long", write_coco_instances, {}, shape({"size": [24, 36], "counts": [5, 2**50]}), "broken_shape", "the photo has 864"),
    ("runs cut off", write_coco_instances, {}, shape({"size": [24, 36], "counts": "a"}), "broken_shape", "ends inside a number"),
    ("too small to draw", write_coco_instances, {}, shape([[1, 1, 1.1, 1, 1.1, 1.1]]), "empty_segment", "without a pixel"),
    ("same object twice", write_coco_instances, {}, instances(lambda c: c["annotations"].append({**c["annotations"][0], "id": 999})), "duplicate_object", "same mask"),
    ("same id twice", write_coco_instances, {}, instances(lambda c: c["annotations"][1].update(id=1)), "duplicate_id", "same id"),
    ("unknown class", write_coco_instances, {}, instances(lambda c: c["annotations"][0].update(category_id=99)), "unknown_category", "id 99"),
    ("area that lies", write_coco_instances, {}, instances(lambda c: c["annotations"][0].update(area=1)), "wrong_area", "1 instead of"),
    ("photo of another size", write_coco_instances, {}, instances(lambda c: c["images"][0].update(width=24, height=36)), "size_mismatch", "24 x 36"),
    ("number of no class", write_semantic, {}, picture("labels/*.png", spot(77)), "unknown_category", "numbers that are no class: 77"),
    ("colour of no class", write_semantic, COLORS, picture("labels/*.png", spot([9, 9, 8])), "wrong_encoding", "(9, 9, 8)"),
    ("red and blue swapped", write_semantic, COLORS, picture("labels/*.png", lambda p: p[..., ::-1].copy()), "wrong_encoding", "BGR"),
    ("smoothed colours", write_semantic, COLORS, smooth, "wrong_encoding", "smoothing or JPEG"),
    ("grey as RGB", write_semantic, {}, picture("labels/*.png", lambda p: np.stack([p] * 3, -1)), "wrong_encoding", "equal everywhere"),
    ("labels of another size", write_semantic, {}, smaller, "size_mismatch", "5 x 5"),
    ("labels without a photo", write_semantic, {}, lambda root: shutil.copy(first(root, "labels/*.png"), root / "labels" / "x.png"), "missing_file", "no image file"),
    ("all void", write_semantic, {}, picture("labels/*.png", lambda p: np.full_like(p, 255)), "all_void", "no labelled pixel"),
    ("ADE label above 150", write_ade20k, {}, picture("annotations/**/*.png", spot(200)), "wrong_encoding", "outside of 0 to 150"),
    ("ADE object of no class", write_ade20k, {}, picture("annotations_instance/**/*.png", spot([120, 1, 0])), "wrong_encoding", "outside of 1 to 100"),
    ("ADE object image missing", write_ade20k, {}, gone("annotations_instance/**/*.png"), "missing_file", "mask file does not exist"),
    ("Cityscapes label ids in place of objects", write_cityscapes, {}, picture("*_instanceIds.png", spot(40 * 1000)), "wrong_encoding", "labels that cityscapes does not have: 40"),
    ("Cityscapes photo missing", write_cityscapes, {}, gone("*_leftImg8bit.png"), "missing_file", "no image file"),
    ("Cityscapes objects missing", write_cityscapes, {}, gone("*_instanceIds.png"), "missing_file", "no instanceIds file"),
    ("Vistas label beyond the config", write_mapillary, {}, picture("instances/*.png", spot(90 * 256)), "wrong_encoding", "labels that mapillary does not have: 90"),
    ("Vistas config missing", write_mapillary, {}, gone("config_v1.2.json"), "missing_file", "config_v1.2.json"),
    ("objects that overlap", write_object_masks, {}, overlapping, "overlap", "masks overlap"),
    ("object without pixels", write_object_masks, {}, picture("masks/**/*.png", np.zeros_like), "empty_segment", "without a pixel"),
    ("object of another size", write_object_masks, {}, lambda root: save_png(np.ones((3, 3), np.uint8), first(root, "masks/**/*.png")), "size_mismatch", "3 x 3"),
    ("folder of no class", write_object_masks, {}, lambda root: first(root, "masks/sky").rename(root / "scene_000/masks/skies"), "unknown_category", "named after no class"),
    ("photo missing", write_object_masks, {}, gone("scene_001/images/*.png"), "missing_file", "no image file"),
    ("unknown label", write_labelme, {}, labelme(label="disc"), "unknown_category", "'disc'"),
    ("a line", write_labelme, {}, labelme(shape_type="line", points=[[1, 1], [5, 5]]), "broken_shape", "a line of 2 points"),
    ("broken mask", write_labelme, {}, labelme(mask="!!"), "broken_shape", "a mask cannot be read"),
    ("broken file", write_labelme, {}, lambda root: first(root, "*.json").write_text("{"), "unreadable_file", "cannot be read"),
    ("a COCO file among them", write_labelme, {}, lambda root: (root / "a.json").write_text('{"images": []}'), "wrong_level", "name the file itself"),
    ("class beyond the names", write_yolo_seg, {}, yolo("7 0.1 0.1 0.2 0.1 0.2 0.2"), "unknown_category", "class 7"),
    ("a box", write_yolo_seg, {}, yolo("0 0.5 0.5 0.2 0.2"), "broken_shape", "a box, not a polygon"),
    ("pixels in place of shares", write_yolo_seg, {}, yolo("0 10 10 20 10 20 20"), "broken_shape", "outside of 0..1"),
    ("no numbers", write_yolo_seg, {}, yolo("disk 0.1 0.1"), "broken_shape", "not a class and numbers"),
    ("labels of no photo", write_yolo_seg, {}, lambda root: (root / "labels" / "train" / "x.txt").write_text(""), "missing_file", "no image file"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("write", "options", "corrupt", "kind", "said"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS]
)
def test_each_fault_is_found_with_its_file_and_reading_refuses(
    write: Callable[..., Written], options: dict[str, Any], corrupt: Break, kind: str, said: str, data: TinyDataset, tmp_path: Path
) -> None:  # fmt: skip
    section = write(data, tmp_path / "set", **options).section()
    section.val.annotations = section.test.annotations = ""
    corrupt(tmp_path / "set")
    found: list[Finding] = []
    check(section, findings=Findings(found.append), workers=0)
    own = [f for f in found if f.kind == kind and said in f"{f.what} {f.id} {f.hint}"]
    assert own, found
    assert all(f.file and f.hint for f in own)
    assert bool([f for f in found if f.severity == "error"]) == bool(refusal(section)), found


def refusal(section: DatasetSpec) -> str:
    """What a run on the training split says instead of starting."""
    try:
        labels = read_labels(section)
        records = read_records(section, "train", labels)
    except UserError as error:
        return error.message
    return "\n".join(error.message for error in quick_check(section, {"train": records}, labels))


FUZZED = (write_coco_instances, write_labelme, write_yolo_seg, write_mapillary, write_ade20k, write_cityscapes, write_object_masks, write_semantic)  # fmt: skip


@pytest.mark.parametrize("write", FUZZED, ids=lambda w: w.__name__)
def test_no_change_of_a_file_crashes_the_check(
    write: Callable[..., Written], data: TinyDataset, tmp_path: Path
) -> None:
    """Values of JSON files replaced by junk, bytes of others changed, cut off or gone: findings, never an exception."""
    section = write(data, tmp_path / "whole").section()
    for name in ("images", "annotations"):
        path = str(getattr(section.train, name)).replace(str(tmp_path / "whole"), str(tmp_path / "broken"))
        setattr(section.train, name, path)
    section.val.annotations = section.test.annotations = ""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        shutil.rmtree(tmp_path / "broken", ignore_errors=True)
        shutil.copytree(tmp_path / "whole", tmp_path / "broken")
        files = sorted(p for p in (tmp_path / "broken").rglob("*") if p.is_file())
        path = files[int(rng.integers(len(files)))]
        change = int(rng.integers(4))
        if path.suffix == ".json" and change:
            path.write_text(json.dumps(with_junk(json.loads(path.read_text()), rng)))
        elif change == 1:
            raw = bytearray(path.read_bytes())
            raw[int(rng.integers(len(raw)))] ^= 1 << int(rng.integers(8))
            path.write_bytes(bytes(raw))
        elif change == 2:
            path.write_bytes(path.read_bytes()[: int(rng.integers(60))])
        else:
            path.unlink()
        findings = Findings()
        check(section, findings=findings, workers=0)
        assert bool(findings.number("error")) == bool(refusal(section))


def test_stuff_that_no_mask_is_of_asks_for_the_background(
    data: TinyDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = write_object_masks(data, tmp_path / "set")
    for folder in [*(tmp_path / "set").rglob("sky"), *(tmp_path / "set").rglob("ground")]:
        shutil.rmtree(folder)
    section = one.section()
    with caplog.at_level(logging.WARNING):
        read_records(section, "train", read_labels(section))
    assert "set dataset.background=sky if it is what no object covers" in caplog.text
    section.background = "sky"
    labels = read_labels(section)
    records = read_records(section, "train", labels)
    assert all(record.source.tasks == ("semantic", "instance", "panoptic") for record in records)
    section.background = "disk"
    with pytest.raises(
        SpecError, match=r"dataset\.background: 'disk' is no stuff class\n.*stuff classes are sky, ground"
    ):
        read_records(section, "train", labels)


def test_classes_come_from_the_files_where_there_is_no_label_map(data: TinyDataset, tmp_path: Path) -> None:
    for write in (write_labelme, write_object_masks):
        one = write(data, tmp_path / write.__name__)
        one.dataset.clear()
        section = one.section()
        section.val.annotations = [str(section.val.annotations)]
        assert read_labels(section).names == ("box", "disk", "ground", "sky")
    assert read_labels(write_yolo_seg(data, tmp_path / "yolo").section()).names == ("disk", "box")
    bare = write_object_masks(data, tmp_path / "bare")
    for folder in (tmp_path / "bare").glob("*/masks"):
        for path in sorted(folder.rglob("*.png")):
            path.rename(folder / f"{path.parent.name}_{path.name}")
        for inner in folder.iterdir():
            if inner.is_dir():
                inner.rmdir()
    bare.dataset.clear()
    assert read_labels(bare.section()).names == ("object",)


def test_a_yaml_with_names_is_a_label_map(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("names: {0: cat, 2: dog}\n")
    labels = read_labels(DatasetSpec(label_map=str(tmp_path / "a.yaml")))
    assert (labels.names, labels.category_ids) == (("cat", "dog"), (0, 2))
    for text, said in (("names: 5", "no names of classes"), ("a: [", "not valid YAML")):
        (tmp_path / "b.yml").write_text(text)
        with pytest.raises(DataError, match=said):
            read_labels(DatasetSpec(label_map=str(tmp_path / "b.yml")))


def test_pictures_without_a_label_map_say_that_they_need_one(data: TinyDataset, tmp_path: Path) -> None:
    one = write_semantic(data, tmp_path)
    one.dataset.clear()
    with pytest.raises(DataError, match=r"no classes are known.*\n.*set dataset\.label_map"):
        read_labels(one.section())


def test_endings_of_label_names_are_recognised(data: TinyDataset, tmp_path: Path) -> None:
    section = write_semantic(data, tmp_path).section()
    for path in sorted((tmp_path / "labels").iterdir()):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    assert len(read_records(section, "train", read_labels(section))) == 3


def test_a_folder_that_is_no_data_set_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "readme.md").write_text("hello")
    with pytest.raises(DataError, match=r"no known format(.|\n)*readme\.md; set dataset\.train\.format"):
        detect(str(tmp_path), key="dataset.train")
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="is an archive"):
        detect(str(tmp_path / "a.zip"))


def test_photos_that_are_not_beside_their_labels_are_asked_for(data: TinyDataset, tmp_path: Path) -> None:
    for write, folder in ((write_cityscapes, "leftImg8bit"), (write_yolo_seg, "images"), (write_mapillary, "training/images"),
                          (write_ade20k, "ADEChallengeData2016/images")):  # fmt: skip
        section = write(data, tmp_path / write.__name__).section()
        shutil.rmtree(tmp_path / write.__name__ / folder)
        with pytest.raises(SpecError, match=r"dataset\.train\.images: the folder of the photos is not found"):
            read_records(section, "train", read_labels(section))


def test_parquet_without_pyarrow_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    section = Written({"annotations": str(tmp_path / "a.parquet")}).section()
    with pytest.raises(MissingExtra) as caught:
        read_labels(section)
    assert 'pip install "oneformer[parquet]"' in caught.value.message and len(caught.value.message.splitlines()) == 2


def test_broken_tables_are_named(data: TinyDataset, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    one = write_parquet(data, tmp_path)
    path = Path(one.split["annotations"])
    path.write_bytes(path.read_bytes()[:300])
    section = one.section()
    with pytest.raises(DataError, match="the Parquet file is broken"):
        read_records(section, "train", read_labels(DatasetSpec(label_map=str(data.label_map))))


def test_a_split_can_have_parts_of_several_formats(data: TinyDataset, tmp_path: Path) -> None:
    """Lists of annotations train together: each photo on the tasks it has labels for."""
    shapes = write_coco_instances(data, tmp_path / "i").section()
    pictures = write_semantic(data, tmp_path / "s").section()
    section = DatasetSpec(label_map=str(data.label_map))
    section.train.images = str(data.images)
    section.train.annotations = [str(data.annotations), str(shapes.train.annotations), str(pictures.train.annotations)]
    section.train.panoptic = [str(data.panoptic), "", ""]
    records = read_records(section, "train", read_labels(section))
    assert [r.source.tasks for r in records[::3]] == [
        ("semantic", "instance", "panoptic"),
        ("instance",),
        ("semantic",),
    ]
    spec = ModelSpec()
    spec.one_former.num_object_queries, spec.text_encoder.n_ctx = 20, 4
    section.augmentation.train_crop_size = [24, 36]
    loader = train_loader(section, read_labels(section), records, model=spec, seed=0)
    drawn: dict[int, set[str]] = {}
    for epoch in range(12):
        for index, record in enumerate(records):
            sample = loader.dataset[(epoch, index)]
            assert sample.task in record.source.tasks
            drawn.setdefault(index // 3, set()).add(sample.task)
    assert drawn == {0: {"semantic", "instance", "panoptic"}, 1: {"instance"}, 2: {"semantic"}}
