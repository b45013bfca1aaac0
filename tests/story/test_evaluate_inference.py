"""The stories of `oneformer evaluate` and `oneformer inference`, from the command line to the last file."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from oneformer.cli import main
from oneformer.data.labels import LabelMap
from predict.fake import LABELS
from story.tiny_model import TINY, write_tiny_checkpoint
from tiny import TinyDataset, write_tiny_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    return write_tiny_dataset(tmp_path_factory.mktemp("data"), images=4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("train") / "oneformer_model_best.pth")


@pytest.fixture(scope="module")
def empty_spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "spec.yaml"
    path.write_text("preset: nano\n", encoding="utf-8")
    return path


def oneformer(*words: str | Path) -> tuple[int, str, str]:
    """One command -> exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(w) for w in words])
    return code, out.getvalue(), err.getvalue()


def status(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "status.json").read_text().splitlines()]


class Story:
    """The results of one evaluation and one inference of everything."""

    def __init__(self, root: Path, spec: Path, data: TinyDataset, checkpoint: Path) -> None:
        self.root, self.data = root, data
        words = [*TINY, *data.overrides("test"), f"results_dir={root}", "dataset.test.num_workers=0"]
        (checkpoint.parent / "metrics.csv").write_text("epoch,step,train_loss\n0,1,5\n0,2,4\n", encoding="utf-8")
        self.evaluate = oneformer("evaluate", "--json", "-e", spec, *words, f"evaluate.checkpoint={checkpoint}")
        self.inference = oneformer(
            "inference", "-e", spec, *words, f"inference.checkpoint={checkpoint}",
            f"inference.images_dir={data.images}", "inference.mode=all",
        )  # fmt: skip

    def json(self, name: str) -> Any:
        return json.loads((self.root / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, empty_spec: Path, data: TinyDataset, checkpoint: Path) -> Story:
    return Story(tmp_path_factory.mktemp("results"), empty_spec, data, checkpoint)


def test_evaluate_scores_all_three_tasks(story: Story) -> None:
    code, out, err = story.evaluate
    assert code == 0, err
    metrics = story.json("evaluate/metrics.json")
    assert set(metrics) == {"semantic", "instance", "panoptic"}
    assert set(metrics["semantic"]) >= {"mIoU", "fwIoU", "mAcc", "pAcc", "per_class"}
    assert {"all", "things", "stuff", "per_class"} <= set(metrics["panoptic"])
    assert set(metrics["instance"]) >= {"AP", "AP50", "AP75", "APs", "APm", "APl", "per_class"}
    assert list(metrics["semantic"]["per_class"]) == list(LABELS.names)
    assert json.loads(out)["semantic"] == metrics["semantic"]


def test_evaluate_ends_its_status_with_success_and_the_scores(story: Story) -> None:
    lines = status(story.root / "evaluate")
    assert (lines[0]["status"], lines[-1]["status"]) == ("STARTED", "SUCCESS")
    metrics = story.json("evaluate/metrics.json")
    kpi = lines[-1]["kpi"]
    assert kpi["test_mIoU"] == metrics["semantic"]["mIoU"] and kpi["test_ACC_all"] == metrics["semantic"]["pAcc"]
    assert kpi["test_PQ"] == metrics["panoptic"]["all"]["PQ"]
    assert "test_IoU_sky" in kpi


def test_evaluate_writes_a_report_of_its_own(story: Story) -> None:
    page = (story.root / "evaluate" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 12  # two best and two worst images, three pictures each
    assert "oneformer_model_best.pth" in page and "epoch 3, step 42" in page and "polyline" in page
    assert "scene_00" in page and "<link" not in page and "http" not in page.replace("http-equiv", "")


def test_inference_writes_the_files_of_the_contract(story: Story) -> None:
    code, out, err = story.inference
    assert code == 0, err
    folder = story.root / "inference"
    for index in range(4):
        for name in (
            f"semantic/scene_{index:03d}.png",
            f"panoptic/scene_{index:03d}.png",
            f"overlays/scene_{index:03d}.jpg",
        ):
            assert Image.open(folder / name).size == (96, 64), name
    assert "4 images" in out
    assert status(folder)[-1]["status"] == "SUCCESS"
    assert not list(folder.rglob("*.part")) and not list(folder.rglob(".*"))


def test_every_panoptic_segment_of_the_json_is_in_the_png_and_the_reverse(story: Story) -> None:
    content = story.json("inference/panoptic.json")
    known = {c["id"]: c for c in content["categories"]}
    assert [c["name"] for c in content["categories"]] == list(LABELS.names)
    sizes = {i["id"]: (i["height"], i["width"]) for i in content["images"]}
    assert len(content["annotations"]) == 4
    for annotation in content["annotations"]:
        rgb = np.asarray(Image.open(story.root / "inference" / "panoptic" / annotation["file_name"])).astype(int)
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
        assert ids.shape == sizes[annotation["image_id"]]
        infos = {s["id"]: s for s in annotation["segments_info"]}
        assert set(np.unique(ids)) - {0} == set(infos)
        for segment_id, info in infos.items():
            assert info["area"] == np.count_nonzero(ids == segment_id)
            assert info["isthing"] == known[info["category_id"]]["isthing"]


def test_instances_load_with_pycocotools(story: Story) -> None:
    results = story.json("inference/instances.json")
    assert results
    index = story.json("inference/predictions.json")
    truth = COCO()
    truth.dataset = {
        "images": [{"id": i["image_id"], "width": i["width"], "height": i["height"]} for i in index["images"]],
        "annotations": [],
        "categories": [{"id": c, "name": n} for c, n in zip(LABELS.category_ids, LABELS.names, strict=True)],
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        loaded = truth.loadRes(str(story.root / "inference" / "instances.json"))
    assert len(loaded.anns) == len(results)
    things = {LABELS.category_ids[i] for i in LABELS.thing_ids}
    for item in results:
        assert item["category_id"] in things and 0 < item["score"] <= 1
        assert item["segmentation"]["size"] == [64, 96] and coco_mask.area(item["segmentation"]) > 0
        assert "bbox" not in item


def test_the_index_names_every_file_and_what_the_numbers_mean(story: Story) -> None:
    index = story.json("inference/predictions.json")
    assert [i["file"] for i in index["images"]] == [f"scene_{n:03d}.png" for n in range(4)]
    for item in index["images"]:
        for kind in ("semantic", "panoptic", "overlay"):
            assert (story.root / "inference" / item["outputs"][kind]).is_file()
        assert item["seconds"] > 0
        values = np.unique(np.asarray(Image.open(story.root / "inference" / item["outputs"]["semantic"])))
        assert set(values.tolist()) <= {c["class_id"] for c in index["classes"]}
    assert index["meaning"]["semantic"] == {"value": "class_id", "bits": 8, "no_class": 255}
    assert [c["category_id"] for c in index["classes"]] == list(LABELS.category_ids)
    assert index["failed"] == []


@pytest.mark.parametrize(
    ("action", "names"),
    [
        ("evaluate", ["metrics.json"]),
        pytest.param("inference", ["panoptic.json", "instances.json"], marks=pytest.mark.slow),
    ],
)
def test_two_processes_give_the_same_scores_and_files_as_one(
    action: str, names: list[str], story: Story, tmp_path: Path, words: list[str]
) -> None:
    two = [*words, *story.data.overrides("test"), f"inference.images_dir={story.data.images}", "inference.mode=all"]
    code, _, err = oneformer(action, *two, f"{action}.num_gpus=2", f"{action}.accelerator=cpu")
    assert code == 0, err
    for name in names:
        both = json.loads((tmp_path / "results" / action / name).read_text(encoding="utf-8"))
        assert both == story.json(f"{action}/{name}"), name
    assert [line["status"] for line in status(tmp_path / "results" / action)] == ["STARTED", "RUNNING", "SUCCESS"]


def test_a_process_that_fails_ends_the_others_with_its_words(
    tmp_path: Path, words: list[str], data: TinyDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oneformer.predict.ranks.to_dict", lambda spec: {"evaluate": {"checkpoint": ""}})
    code, _, err = oneformer(
        "evaluate", *words, *data.overrides("test"), "evaluate.num_gpus=2", "evaluate.accelerator=cpu"
    )
    assert code == 1 and "process 2 of 2 failed" in err and "no weight file" in err
    assert status(tmp_path / "results/evaluate")[-1]["status"] == "FAILURE"
    assert not (tmp_path / "results/evaluate/metrics.json").exists()


@pytest.fixture
def words(tmp_path: Path, empty_spec: Path, checkpoint: Path) -> list[str]:
    return [
        "-e", str(empty_spec), *TINY, f"results_dir={tmp_path / 'results'}",
        f"inference.checkpoint={checkpoint}", f"evaluate.checkpoint={checkpoint}", "dataset.test.num_workers=0",
    ]  # fmt: skip


def photos(folder: Path, *names: str, size: tuple[int, int] = (40, 30)) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    return folder


def test_files_of_one_stem_do_not_overwrite_each_other(tmp_path: Path, words: list[str]) -> None:
    folder = photos(tmp_path / "in", "a.png", "a.jpg", "sub/a.png", size=(33, 47))
    code, _, err = oneformer("inference", *words, f"inference.images_dir={folder}", "inference.mode=semantic")
    assert code == 0, err
    found = sorted(p.name for p in (tmp_path / "results/inference/semantic").iterdir())
    assert found == ["a_jpg.png", "a_png.png", "sub_a_png.png"]
    assert not (tmp_path / "results/inference/panoptic.json").exists()


def test_a_broken_image_is_named_and_the_others_are_done(tmp_path: Path, words: list[str]) -> None:
    folder = photos(tmp_path / "in", "a.png", "c.jpg")
    whole = (folder / "c.jpg").read_bytes()
    (folder / "b.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("x")
    code, out, err = oneformer("inference", *words, f"inference.images_dir={folder}", "inference.mode=panoptic")
    assert code == 1
    assert "b.jpg" in err and "1 of 3 images" in err and out == ""
    index = json.loads((tmp_path / "results/inference/predictions.json").read_text())
    assert [i["file"] for i in index["images"]] == ["a.png", "c.jpg"]
    assert [i["file"] for i in index["failed"]] == ["b.jpg"] and index["passed_over"] == 1
    assert status(tmp_path / "results/inference")[-1]["status"] == "FAILURE"


def test_an_empty_folder_is_a_wrong_request_and_leaves_nothing(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "in").mkdir()
    code, _, err = oneformer("inference", *words, f"inference.images_dir={tmp_path / 'in'}")
    assert code == 2 and "no image" in err
    assert not (tmp_path / "results").exists()


def test_an_interrupt_leaves_valid_files_of_what_was_done(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from oneformer.predict.writer import PredictionWriter

    folder = photos(tmp_path / "in", "a.png", "b.png", "c.png")
    add = PredictionWriter.add

    def add_one_then_stop(self: PredictionWriter, *args: Any, **options: Any) -> None:
        if self.images:
            raise KeyboardInterrupt
        add(self, *args, **options)

    monkeypatch.setattr(PredictionWriter, "add", add_one_then_stop)
    code, _, _ = oneformer("inference", *words, f"inference.images_dir={folder}", "inference.mode=all")
    assert code == 130
    results = tmp_path / "results/inference"
    assert [i["file"] for i in json.loads((results / "predictions.json").read_text())["images"]] == ["a.png"]
    assert len(json.loads((results / "panoptic.json").read_text())["annotations"]) == 1
    assert status(results)[-1]["status"] == "FAILURE"


def test_the_image_size_changes_the_network_input_and_not_the_size_of_the_results(
    tmp_path: Path, words: list[str]
) -> None:
    folder = photos(tmp_path / "in", "a.png", size=(90, 50))
    maps = []
    for number, size in enumerate(("[]", "[160,160]")):
        results = tmp_path / f"r{number}"
        code, _, err = oneformer(
            "inference", *words, f"inference.images_dir={folder}", f"inference.image_size={size}",
            f"inference.results_dir={results}", "inference.overlay=false",
        )  # fmt: skip
        assert code == 0, err
        maps.append(np.asarray(Image.open(results / "semantic/a.png")))
        assert not (results / "overlays").exists()
    assert maps[0].shape == maps[1].shape == (50, 90)


def test_a_checkpoint_of_other_classes_is_refused_with_the_differences(
    tmp_path: Path, words: list[str], data: TinyDataset
) -> None:
    other = LabelMap(("disk", "sky", "crate", "ground"), (True, True, True, False), LABELS.colors, LABELS.category_ids)
    path = write_tiny_checkpoint(tmp_path / "other.pth", labels=other)
    code, _, err = oneformer("evaluate", *words, *data.overrides("test"), f"evaluate.checkpoint={path}")
    assert code == 2
    assert "'crate' (thing) in the checkpoint, 'box' (thing) in the data" in err and "'sky' (thing)" in err
    folder = tmp_path / "results/evaluate"
    assert status(folder)[-1]["status"] == "FAILURE"
    assert not (folder / "metrics.json").exists() and not (folder / "report.html").exists()


def test_one_task_and_no_classes_are_evaluated_when_asked_for(
    tmp_path: Path, words: list[str], data: TinyDataset
) -> None:
    code, out, err = oneformer(
        "evaluate", *words, *data.overrides("val"), "evaluate.task=semantic", "evaluate.iou_per_class=false",
        "evaluate.report_images=0", "evaluate.batch_size=3", "dataset.val.num_workers=0",
    )  # fmt: skip
    assert code == 0, err
    assert set(json.loads((tmp_path / "results/evaluate/metrics.json").read_text())) == {"semantic"}
    assert "dataset.val" in out and "ground" not in out
    assert "data:image" not in (tmp_path / "results/evaluate/report.html").read_text()
    assert not any("IoU_" in name for name in status(tmp_path / "results/evaluate")[-1]["kpi"])


@pytest.mark.parametrize("action", ["evaluate", "inference"])
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("{}.checkpoint=", "no weight file"),
        ("{}.checkpoint=/no/such.pth", "does not exist"),
        ("{}.checkpoint=model.engine", "does not exist"),
        ("{}.trt_engine=model.onnx", "no TensorRT engine"),
        ("{}.num_nodes=2", "no launcher"),
        ("{}.accelerator=gpu", "accelerator=cpu"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_written(
    action: str, word: str, said: str, tmp_path: Path, words: list[str], data: TinyDataset
) -> None:
    more = [*data.overrides("test"), f"inference.images_dir={data.images}", word.format(action)]
    code, out, err = oneformer(action, *words, *more)
    assert code == 2 and said in err and out == ""
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("action", ["evaluate", "inference"])
def test_a_dry_run_names_the_files_and_writes_nothing(
    action: str, tmp_path: Path, words: list[str], data: TinyDataset
) -> None:
    code, out, err = oneformer(
        action, "--dry-run", *words, *data.overrides("test"), f"inference.images_dir={data.images}"
    )
    assert code == 0, err
    assert "would read" in out and "would write" in out
    assert not (tmp_path / "results").exists()


def test_several_data_sets_are_scored_apart_and_together(
    words: list[str], data: TinyDataset, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = write_tiny_dataset(tmp_path / "harbour", images=3, seed=5)
    pairs = {name: f"[{getattr(data, name)}, {getattr(other, name)}]" for name in ("images", "panoptic", "annotations")}
    more = [*data.overrides("train"), *(f"dataset.test.{name}={value}" for name, value in pairs.items())]
    code, out, err = oneformer("evaluate", *words, *more, "evaluate.report_images=2")
    assert code == 0, err
    metrics = json.loads((tmp_path / "results/evaluate/metrics.json").read_text())
    first = data.annotations.parent.name
    assert set(metrics["datasets"]) == {first, "harbour"}
    alone = [*data.overrides("train"), *other.overrides("test"), f"results_dir={tmp_path / 'alone'}"]
    assert oneformer("evaluate", *words, *alone)[0] == 0
    assert metrics["datasets"]["harbour"] == json.loads((tmp_path / "alone/evaluate/metrics.json").read_text())
    table = [line.split()[0] for line in out.splitlines() if line.startswith((first, "harbour", "data set"))]
    assert table == ["data", first, "harbour"]
    assert "<h2>Data sets</h2>" in (tmp_path / "results/evaluate/report.html").read_text()
    status = (tmp_path / "results/evaluate/status.json").read_text()
    assert '"test_PQ/harbour"' in status
