"""Roots of data sets: TAO's table of actions and files, from folders and web addresses; what is set already wins."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data.sources.servers import Server, web
from oneformer import cli
from oneformer.data.formats import read_records
from oneformer.data.labels import read_labels
from oneformer.data.sources import fetched, planned
from oneformer.errors import UserError, UserErrors
from oneformer.spec import ExperimentSpec
from oneformer.spec.load import load_spec
from oneformer.spec.write import changed_from_default
from tiny import TinyDataset

Make = Callable[..., ExperimentSpec]


@pytest.fixture
def spec(tmp_path: Path) -> Make:
    def make(*words: str) -> ExperimentSpec:
        cache = f"dataset.sources.cache_dir={tmp_path / 'cache'}"
        return load_spec(None, [cache, "dataset.sources.retries=1", *words], action="train")

    return make


@pytest.fixture
def site(packed: Path) -> Iterator[Server]:
    with web({f"/set/{p.name}": p.read_bytes() for p in packed.iterdir()}) as server:
        yield server


T, E = "dataset.sources.train_datasets", "dataset.sources.eval_dataset"
TABLE = {
    "train": {
        "dataset.train.images": "T/images.tar.gz", "dataset.train.annotations": "T/annotations.json",
        "dataset.train.panoptic": "T/images_panoptic.tar.gz", "dataset.label_map": "T/label_map.json",
        "dataset.val.images": "E/images.tar.gz", "dataset.val.annotations": "E/annotations.json",
        "dataset.val.panoptic": "E/images_panoptic.tar.gz",
    },
    "evaluate": {
        "dataset.label_map": "T/label_map.json", "dataset.test.images": "E/images.tar.gz",
        "dataset.test.annotations": "E/annotations.json", "dataset.test.panoptic": "E/images_panoptic.tar.gz",
    },
    "inference": {"dataset.label_map": "T/label_map.json", "inference.images_dir": "I/images.tar.gz"},
    "quantize": {
        "dataset.train.images": "T/images.tar.gz", "dataset.train.annotations": "T/annotations.json",
        "dataset.train.panoptic": "T/images_panoptic.tar.gz", "dataset.label_map": "T/label_map.json",
        "dataset.val.images": "E/images.tar.gz", "dataset.val.annotations": "E/annotations.json",
        "dataset.val.panoptic": "E/images_panoptic.tar.gz",
        "dataset.quant_calibration_dataset.images_dir": "C/images.tar.gz",
    },
    "export": {
        "dataset.label_map": "T/label_map.json", "dataset.test.images": "E/images.tar.gz",
        "dataset.test.annotations": "E/annotations.json", "dataset.test.panoptic": "E/images_panoptic.tar.gz",
    },
    "gen_trt_engine": {
        "dataset.label_map": "T/label_map.json", "dataset.test.images": "E/images.tar.gz",
        "dataset.test.annotations": "E/annotations.json", "dataset.test.panoptic": "E/images_panoptic.tar.gz",
        "gen_trt_engine.tensorrt.calibration_dir": "C/images.tar.gz",
    },
}  # fmt: skip
ROOTS = (
    f"{T}=s3://b/T",
    f"{E}=s3://b/E/",
    "dataset.sources.inference_dataset=s3://b/I",
    "dataset.sources.calibration_dataset=s3://b/C",
)


@pytest.mark.parametrize("action", TABLE)
def test_each_action_takes_what_the_table_says_without_looking(action: str, spec: Make) -> None:
    before = spec(*ROOTS)
    plan, fetches = planned(before, action)
    changed = {k: v for k, v in changed_from_default(plan).items() if "sources" not in k}
    assert changed == {key: f"s3://b/{place}" for key, place in TABLE[action].items()}
    assert changed_from_default(before).keys() & TABLE[action].keys() == set()
    if action == "inference":
        assert fetches == ["s3://b/I/images.tar.gz"]  # the checkpoint has the classes
    elif action != "quantize":
        assert set(fetches) == set(changed.values())


def test_a_key_that_is_set_wins(spec: Make) -> None:
    words = ("dataset.train.images=mine", "dataset.label_map=map.json", "dataset.val.annotations=[a.json]")
    dataset = planned(spec(*ROOTS, *words), "train")[0].dataset
    assert (dataset.train.images, dataset.label_map, dataset.val.annotations) == ("mine", "map.json", ["a.json"])
    assert dataset.train.panoptic == "s3://b/T/images_panoptic.tar.gz"


def test_formats_without_panoptic_masks_take_none(spec: Make) -> None:
    dataset = planned(spec(*ROOTS, "dataset.train.format=coco"), "train")[0].dataset
    assert dataset.train.panoptic == "" and dataset.val.panoptic


def test_inference_prefers_the_label_map_of_its_format(spec: Make, packed: Path, tmp_path: Path) -> None:
    for name in ("annotations.json", "images.tar.gz", "label_map.json", "label_map_panoptic.json"):
        (tmp_path / "root").mkdir(exist_ok=True)
        (tmp_path / "root" / name).write_bytes(b"")
    words = (f"{T}={tmp_path}/root", f"dataset.sources.inference_dataset={tmp_path}/root")
    assert planned(spec(*words), "inference")[0].dataset.label_map.endswith("label_map_panoptic.json")
    assert planned(spec(*words, "dataset.train.format=coco"), "inference")[0].dataset.label_map.endswith(
        "/label_map.json"
    )
    assert planned(spec(*words), "train")[0].dataset.label_map.endswith("/label_map.json")


def images_of(spec: ExperimentSpec, split: str) -> set[str]:
    labels = read_labels(spec.dataset, splits=(split,))
    return {Path(r.image_path).name for r in read_records(spec.dataset, split, labels)}


def test_a_folder_a_root_with_archives_and_a_web_address_give_the_same_records(
    spec: Make, packed: Path, small: TinyDataset, site: Server
) -> None:
    names = {p.name for p in small.images.iterdir()}
    for root in (packed, f"file://{packed}", small.folder, f"{site.address}/set", f"{site.address}/set/?sig=hush"):
        here = fetched(spec(f"{T}={root}"), "train")
        assert images_of(here, "train") == names
        assert here.dataset.sources.train_datasets == ""
        again = fetched(here, "train")
        assert again.dataset == here.dataset


def test_several_roots_make_lists_that_pair_up(spec: Make, packed: Path, small: TinyDataset) -> None:
    here = fetched(spec(f"{T}=[{packed}, {small.folder}]"), "train")
    assert [len(v) for v in (here.dataset.train.images, here.dataset.train.panoptic)] == [2, 2]
    labels = read_labels(here.dataset, splits=("train",))
    assert len(read_records(here.dataset, "train", labels)) == 8


def test_what_a_root_lacks_is_told_at_once(spec: Make, small: TinyDataset, tmp_path: Path, site: Server) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserErrors) as told:
        fetched(spec(f"{T}={tmp_path}/empty", f"{E}={tmp_path}/none"), "train")
    text = told.value.message
    assert "holds no images (images.tar.gz)" in text and "holds no annotations (annotations.json)" in text
    assert f"{tmp_path}/none: the folder dataset.sources.eval_dataset does not exist" in text
    assert len(told.value.errors) == 3
    with pytest.raises(UserError, match="holds no images"):
        fetched(spec(f"{T}={site.address}/other"), "train")


def test_archives_among_annotations_are_opened_too(
    spec: Make, packed: Path, small: TinyDataset, tmp_path: Path
) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "annotations.zip", "w") as packed_json:
        packed_json.write(small.annotations, "wrapper/panoptic.json")
    words = (f"dataset.train.annotations={tmp_path}/annotations.zip", f"dataset.train.images={packed}/images.tar.gz")
    here = fetched(spec(*words, f"dataset.train.panoptic={packed}/images_panoptic.tar.gz"), "train")
    assert len(images_of(here, "train")) == 4


def test_a_wrapper_folder_that_was_unpacked_by_hand_is_found_by_the_check(
    spec: Make, small: TinyDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images" / "set").mkdir(parents=True)
    (tmp_path / "images" / "set" / "photos").symlink_to(small.images)
    words = [
        f"dataset.train.images={tmp_path}/images", f"dataset.train.annotations={small.annotations}",
        f"dataset.train.panoptic={small.panoptic}", f"results_dir={tmp_path}/results",
    ]  # fmt: skip
    assert cli.main(["dataset", "check", *words, "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    kinds = {finding["kind"] for finding in found["findings"]}
    assert "wrong_level" in kinds
    hints = " ".join(f["hint"] for f in found["findings"])
    assert f"{tmp_path}/images/set/photos: set dataset.train.images to that folder" in hints


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.main(words)
    return code, *capsys.readouterr()


def test_options_name_roots_and_a_dry_run_asks_nobody(
    site: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "train",
        "--train-dataset",
        f"{site.address}/set?sig=hush",
        "--eval-dataset",
        "s3://bucket/val",
        "--dry-run",
    ]
    code, out, err = run([*words, f"results_dir={tmp_path}"], capsys)
    assert code == 0, err
    assert f"would fetch  {site.address}/set/images.tar.gz?********" in out
    assert "would fetch  s3://bucket/val/annotations.json" in out
    assert "hush" not in out + err and site.asked == []
    code, out, _ = run([*words, "--json"], capsys)
    plan: dict[str, Any] = json.loads(out)["plan"]
    assert len(plan["fetches"]) == 7 and "hush" not in out


def test_an_option_given_twice_is_a_list_and_a_key_wins_over_it(
    packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--train-dataset", str(packed), "--train-dataset", str(packed), "--dry-run"]
    code, out, err = run([*words, "dataset.label_map=none.json"], capsys)
    assert code == 0, err
    assert f"['{packed}/images.tar.gz', '{packed}/images.tar.gz']" in out
    assert "none.json  (is not there)" in out


def test_dataset_check_and_stats_and_convert_take_archives(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [f"results_dir={tmp_path}", f"dataset.sources.cache_dir={tmp_path}/cache"]
    for command in ("check", "stats"):
        code, out, err = run(["dataset", command, "--train-dataset", str(packed), *results], capsys)
        assert code == 0, err
        assert "dataset.train: 4 images" in out
    options = ["--images", f"{packed}/images.tar.gz", "--panoptic", f"{packed}/images_panoptic.tar.gz"]
    words = ["dataset", "convert", f"file://{packed}/annotations.json", f"{tmp_path}/out", *options, "--workers", "0"]
    code, out, err = run(words, capsys)
    assert code == 0, err
    assert out.startswith("4 images with")
