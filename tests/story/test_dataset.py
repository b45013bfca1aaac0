"""`oneformer dataset ...` as a user types it, and training and scoring on data with labels for some tasks only."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from oneformer.cli import main
from oneformer.data.decode import read_panoptic
from oneformer.model.weights.checkpoint import read_checkpoint
from story.tiny_model import TINY, write_tiny_checkpoint
from tiny import TinyDataset, ids_to_rgb, write_tiny_dataset
from tiny_formats import Written, write_coco_instances, write_object_masks, write_semantic
from train.small import SMALL


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    return write_tiny_dataset(tmp_path_factory.mktemp("data"), images=4, size=(48, 64))


def oneformer(*words: str | Path) -> tuple[int, str, str]:
    """One command -> exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(w) for w in words])
    return code, out.getvalue(), err.getvalue()


def spec_of(root: Path, *splits: tuple[str, Written], **dataset: Any) -> Path:
    """A spec file for data in some format."""
    text: dict[str, Any] = dict(dataset)
    for name, one in splits:
        text |= one.dataset
        text[name] = {**one.split, "num_workers": 0}
    path = root / "spec.yaml"
    path.write_text(json.dumps({"dataset": text, "results_dir": str(root / "results")}))
    return path


def coco(data: TinyDataset) -> Written:
    split = {"images": str(data.images), "annotations": str(data.annotations), "panoptic": str(data.panoptic)}
    return Written(split, {"label_map": str(data.label_map)})


@pytest.fixture
def broken(tmp_path: Path) -> TinyDataset:
    data = write_tiny_dataset(tmp_path / "broken", images=4, size=(24, 36))
    path = data.panoptic / "scene_001.png"
    ids = read_panoptic(path)
    ids[:2] = 4711
    Image.fromarray(ids_to_rgb(ids)).save(path)
    (data.images / "scene_002.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    content = json.loads(data.annotations.read_text())
    content["annotations"][3]["segments_info"][0]["area"] = 10**6
    data.annotations.write_text(json.dumps(content))
    return data


def test_check_tells_what_is_wrong_and_how_to_mend_it(broken: TinyDataset, tmp_path: Path) -> None:
    code, out, err = oneformer("dataset", "check", "-e", spec_of(tmp_path, ("train", coco(broken))))
    assert code == 2 and "Traceback" not in err
    assert "error unlisted_id (1): a mask has ids that the annotation does not list" in out
    assert f"{broken.panoptic / 'scene_001.png'}: the mask has segment ids" in out and "4711" in out
    assert "hint: list them in segments_info, or paint their pixels black" in out
    assert "error unreadable_file (1)" in out and "warning wrong_area (1)" in out
    assert out.rstrip().endswith("check.html") and "2 errors, 1 warnings" in out
    folder = tmp_path / "results" / "dataset"
    lines = [json.loads(line) for line in (folder / "findings.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["unlisted_id", "unreadable_file", "wrong_area"]
    assert set(lines[0]) == {"severity", "kind", "file", "id", "what", "hint", "split"}
    page = (folder / "check.html").read_text()
    assert page.count("data:image/jpeg") == 4, "photo and mask of two photos; the third cannot be read"
    assert "scene_001.png" in page and "grey: ids that are not listed" in page


def test_check_as_json_is_for_machines(broken: TinyDataset, tmp_path: Path) -> None:
    code, out, _ = oneformer("dataset", "check", "--json", "-e", spec_of(tmp_path, ("train", coco(broken))))
    told = json.loads(out)
    assert code == 2 and (told["errors"], told["warnings"]) == (2, 1)
    assert [(k["severity"], k["kind"], k["count"]) for k in told["kinds"]] == [
        ("error", "unreadable_file", 1), ("error", "unlisted_id", 1), ("warning", "wrong_area", 1),
    ]  # fmt: skip
    assert told["splits"] == {"train": {"images": 4, "broken": 2, "tasks": ["semantic", "instance", "panoptic"]}}
    assert all(Path(path).is_file() for path in told["files"].values())


def test_check_of_sound_data_is_a_success(data: TinyDataset, tmp_path: Path) -> None:
    code, out, _ = oneformer("dataset", "check", "-e", spec_of(tmp_path, ("train", coco(data))))
    assert code == 0 and "0 errors, 0 warnings" in out


def test_what_is_wrong_with_many_ids_at_once_is_told_once(data: TinyDataset, tmp_path: Path) -> None:
    classes = json.loads(data.label_map.read_text())
    classes += [{"id": 100 + i, "name": f"unicorn {i}"} for i in range(30)]
    (tmp_path / "map.json").write_text(json.dumps(classes))
    one = Written(coco(data).split, {"label_map": str(tmp_path / "map.json")})
    _, out, _ = oneformer("dataset", "check", "-e", spec_of(tmp_path, ("train", one)))
    assert "warning absent_class (30): a class never occurs" in out
    assert out.count("classes of the label map never occur") == 1 and "... and" not in out
    findings = (tmp_path / "results" / "dataset" / "findings.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in findings] == [f"unicorn {i}" for i in range(30)]


def test_training_refuses_with_what_the_check_tells(broken: TinyDataset, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, ("train", coco(broken)))
    checked = json.loads(oneformer("dataset", "check", "--json", "-e", spec)[1])
    code, _, err = oneformer("train", "-e", spec, "preset=nano", "train.accelerator=cpu")
    assert code == 2
    for finding in checked["findings"]:
        assert finding["what"] in err or finding["severity"] == "warning"
    assert "an area in the annotation is not that of the mask (1)" in err, "warnings are logged"
    assert not list((tmp_path / "results").rglob("*.pth"))


def test_stats_count_and_show(data: TinyDataset, tmp_path: Path) -> None:
    code, out, _ = oneformer("dataset", "stats", "-e", spec_of(tmp_path, ("train", coco(data)), ("val", coco(data))))
    assert code == 0 and "dataset.train: 4 images, 0 unusable" in out and "64 / 64 / 64, 48 / 48 / 48" in out
    folder = tmp_path / "results" / "dataset"
    numbers = json.loads((folder / "stats.json").read_text())
    assert numbers["train"] == numbers["val"] and numbers["train"]["classes"]["sky"]["images"] == 4
    page = (folder / "stats.html").read_text()
    assert (
        page.count("data:image/jpeg") == 2 * 2 * 4
        and "<script src" not in page
        and "http:" not in page
        and "https:" not in page
    )


def test_stats_of_broken_data_say_what_is_not_counted(broken: TinyDataset, tmp_path: Path) -> None:
    code, out, err = oneformer("dataset", "stats", "-e", spec_of(tmp_path, ("train", coco(broken))))
    assert code == 0 and "4 images, 2 unusable" in out and "2 images cannot be read" in err


def test_augmentation_is_shown_change_by_change(data: TinyDataset, tmp_path: Path) -> None:
    augmentation = {"train_crop_size": [64, 64], "blur_prob": 0.25}
    spec = spec_of(tmp_path, ("train", coco(data)), augmentation=augmentation, cutmix_prob=0.5)
    code, out, _ = oneformer("dataset", "augment-preview", "-e", spec)
    lines = dict(line.split()[:2] for line in out.splitlines() if line.startswith("dataset."))
    assert code == 0 and lines["dataset.cutmix_prob"] == "0.5" and lines["dataset.augmentation.blur_prob"] == "0.25"
    assert lines["dataset.augmentation.rotation_prob"] == "0"
    page = (tmp_path / "results" / "dataset" / "augment.html").read_text()
    marks = dict(re.findall(r"<figcaption><span>[^<]*?([\w ]+)</span><b>(.*?)</b>", page))
    assert marks["cutmix_prob"] == "probability 0.5" and marks["erase_prob"] == "off in this spec"
    rows = [re.findall(r'src="(data:[^"]+)"', figure) for figure in page.split("<figure")[1:]]
    assert len(rows) == 13 and all(len(row) == 3 for row in rows) and "http:" not in page
    assert all(row != rows[0] for row in rows[1:]), "each changes the photos of the first row, used in the spec or not"


def test_a_preview_of_overlapping_objects_as_json(data: TinyDataset, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, ("train", write_coco_instances(data, tmp_path)))
    code, out, err = oneformer("dataset", "augment-preview", "--json", "-e", spec)
    told = json.loads(out)
    assert code == 0, err
    assert told["changes"]["dataset.augmentation.flip_prob"] == 0.5 and Path(told["files"]["page"]).is_file()


def test_a_preview_of_broken_data_names_the_file(broken: TinyDataset, tmp_path: Path) -> None:
    code, _, err = oneformer("dataset", "augment-preview", "-e", spec_of(tmp_path, ("train", coco(broken))))
    assert code == 2 and "scene_00" in err and "Traceback" not in err


@pytest.mark.parametrize("verb", ["check", "stats", "augment-preview"])
def test_a_dry_run_reads_and_writes_nothing(verb: str, data: TinyDataset, tmp_path: Path) -> None:
    code, out, _ = oneformer("dataset", verb, "--dry-run", "-e", spec_of(tmp_path, ("train", coco(data))))
    assert (
        code == 0
        and "would read   dataset.train.annotations" in out
        and f"dataset/{verb.partition('-')[0]}.html" in out
    )
    assert not (tmp_path / "results").exists()
    assert oneformer("dataset", verb, "results_dir=x")[0] == 2, "no data is named"


def test_convert_gives_a_data_set_and_the_lines_for_a_spec(data: TinyDataset, tmp_path: Path) -> None:
    write_object_masks(data, tmp_path / "in")
    words = ("dataset", "convert", tmp_path / "in", tmp_path / "out", "--label-map", data.label_map, "--workers", "0")
    code, out, err = oneformer(*words)
    assert code == 0, err
    assert "4 images with" in out and "segments as coco_panoptic" in out
    lines = [line for line in out.splitlines() if line.startswith("dataset.")]
    assert len(lines) == 4 and oneformer("dataset", "check", *lines, f"results_dir={tmp_path / 'results'}")[0] == 0
    code, _, err = oneformer(*words)
    assert code == 2 and "the folder holds a data set already" in err
    assert oneformer(*words, "--overwrite", "--to", "coco_instances")[0] == 0
    assert not (tmp_path / "out" / "panoptic").exists()


def test_convert_tells_what_it_left_out(data: TinyDataset, tmp_path: Path) -> None:
    write_object_masks(data, tmp_path / "in")
    (tmp_path / "in" / "scene_001" / "images" / "scene_001.png").write_bytes(b"nothing")
    words = ["dataset", "convert", tmp_path / "in", tmp_path / "out", "--label-map", data.label_map]
    code, out, _ = oneformer(*words)
    assert code == 1 and "1 images were left out:" in out and "scene_001.png" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a"], "a source and a target are needed"),
        (["{data}/nothing", "{out}"], "does not exist"),
        (["{data}/annotations.json", "{data}"], "the target holds a source"),
        (["{data}/annotations.json", "{out}", "--format", "coco"], "there is no format coco"),
        (["{data}/annotations.json", "{out}", "--workers", "many"], "'many' is not a whole number"),
        (["{data}/annotations.json", "{out}"], "dataset.train.images: no path is given"),
        (["{data}/annotations.json", "{data}/annotations.json.out", "--to", "voc"], "invalid choice"),
    ],
)
def test_wrong_requests_of_convert(words: list[str], said: str, data: TinyDataset, tmp_path: Path) -> None:
    filled = [w.format(data=data.folder, out=tmp_path / "out") for w in words]
    if "--workers" in filled:
        filled += ["--images", str(data.images), "--panoptic", str(data.panoptic)]
    code, out, err = oneformer("dataset", "convert", *filled)
    assert code == 2 and said in err and out == ""


def test_overwrite_removes_nothing_that_no_conversion_wrote(data: TinyDataset, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    paths = ["--images", data.images, "--panoptic", data.panoptic, "--overwrite"]
    code, _, err = oneformer("dataset", "convert", data.annotations, tmp_path / "mine", *paths)
    assert code == 2 and "no conversion wrote" in err and (tmp_path / "mine" / "thesis.tex").exists()


@pytest.mark.parametrize(("task", "write"), [("instance", write_coco_instances), ("semantic", write_semantic)])
def test_data_for_one_task_trains_and_is_scored_on_that_one(
    task: str, write: Any, data: TinyDataset, tmp_path: Path
) -> None:
    one = write(data, tmp_path / "in")
    spec = spec_of(tmp_path, ("train", one), ("val", one), ("test", one))
    short = ["train.num_epochs=1", "train.iters_per_epoch=2"]
    code, out, err = oneformer("train", "--json", "-e", spec, *SMALL, *short)
    assert code == 0, err
    others = " and ".join(t for t in ("semantic", "instance", "panoptic") if t != task)
    assert f"no labels for the {others} task" in err and "switched off (model.task_toggling)" in err
    done = json.loads(out)
    metric = {"instance": "AP", "semantic": "mIoU"}[task]
    assert done["best"]["metric"] == metric and set(done["metrics"]) >= {metric} and "PQ" not in done["metrics"]
    info = read_checkpoint(done["checkpoint"])
    on = info.model.task_toggling
    assert [t for t in ("semantic", "instance", "panoptic") if getattr(on, f"{t}_on")] == [task]
    more = [f"evaluate.checkpoint={done['checkpoint']}", "evaluate.accelerator=cpu"]
    code, out, err = oneformer("evaluate", "-e", spec, *more)
    assert code == 0, err
    assert f"tasks: {task}" in out
    metrics = json.loads((tmp_path / "results" / "evaluate" / "metrics.json").read_text())
    assert set(metrics) == {task}
    page = (tmp_path / "results" / "evaluate" / "report.html").read_text()
    assert page.count("data:image/jpeg") == 3 * 4, "pictures of that task"


def test_a_model_of_all_tasks_is_scored_on_what_the_data_has(data: TinyDataset, tmp_path: Path) -> None:
    one = write_semantic(data, tmp_path / "in")
    spec = spec_of(tmp_path, ("test", one))
    checkpoint = write_tiny_checkpoint(tmp_path / "model.pth")
    words = ["-e", spec, *TINY, f"evaluate.checkpoint={checkpoint}", "evaluate.accelerator=cpu"]
    code, _, err = oneformer("evaluate", *words)
    assert code == 0 and "labels for the semantic task only: instance and panoptic is not scored" in err
    assert set(json.loads((tmp_path / "results" / "evaluate" / "metrics.json").read_text())) == {"semantic"}
    code, _, err = oneformer("evaluate", *words, "evaluate.task=panoptic")
    assert code == 2 and "labels for the semantic task only, so panoptic cannot be scored" in err


def test_a_task_that_is_never_drawn_is_refused(data: TinyDataset, tmp_path: Path) -> None:
    one = write_coco_instances(data, tmp_path / "in")
    code, _, err = oneformer(
        "train", "-e", spec_of(tmp_path, ("train", one)), *SMALL, "dataset.task_prob_train={semantic: 1}"
    )
    assert code == 2 and "labels for the instance task only, which is never drawn" in err


def test_background_makes_objects_panoptic(data: TinyDataset, tmp_path: Path) -> None:
    one = write_object_masks(data, tmp_path / "in")
    for name in ("sky", "ground"):
        for folder in sorted((tmp_path / "in").rglob(name)):
            shutil.rmtree(folder)
    spec = spec_of(tmp_path, ("train", one), background="sky")
    told = json.loads(oneformer("dataset", "stats", "--json", "-e", spec)[1])["splits"]["train"]
    assert told["tasks"] == ["semantic", "instance", "panoptic"] and told["unlabelled"] == 0
    shares = [c["share"] for c in told["classes"].values()]
    assert np.isclose(sum(shares), 1, atol=1e-5)
