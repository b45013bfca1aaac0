"""Files that are missing, broken or contradict others, given to the commands: one message with the file's name, exit
code 2, status FAILURE, and nothing half-written."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from oneformer import cli
from oneformer.data import check
from story.tiny_model import TINY, write_tiny_checkpoint
from tiny import TinyDataset, ids_to_rgb, write_tiny_dataset

QUICK = ("train.accelerator=cpu", "train.num_epochs=1", "evaluate.accelerator=cpu", "inference.accelerator=cpu")
# All that a run which does no work may leave: what was asked for, that it failed, and a table without numbers.
RECORDS = {"experiment.yaml", "status.json", "metrics.csv"}


@dataclass
class Bench:
    """A data set to break, a checkpoint to break, and the commands."""

    data: TinyDataset
    checkpoint: Path
    results: Path
    err: Callable[[], str]

    def run(self, verb: str, *more: str) -> str:
        """A command that must refuse the request -> what it said."""
        words = [*TINY, *self.data.overrides(), *QUICK, f"results_dir={self.results}"]
        words += [f"dataset.{split}.num_workers=0" for split in ("train", "val", "test")]
        words += [f"evaluate.checkpoint={self.checkpoint}", f"inference.checkpoint={self.checkpoint}"]
        words += [f"inference.images_dir={self.data.images}"]
        code = cli.main([verb, *words, *more])
        said = self.err()
        assert code == cli.WRONG_REQUEST, said
        assert "Traceback" not in said and "fault of the program" not in said
        assert said.count("error: ") == 1, said
        self.left_nothing(verb)
        return said

    def left_nothing(self, verb: str) -> None:
        """The results folder holds records of a failure, or is not there."""
        folder = self.results / verb
        if not folder.exists():
            return
        names = {p.name for p in folder.iterdir() if not p.name.startswith("events.out.tfevents.")}
        assert names <= RECORDS, names
        if "metrics.csv" in names:
            assert len((folder / "metrics.csv").read_text().splitlines()) == 1
        last = json.loads((folder / "status.json").read_text().splitlines()[-1])
        assert last["status"] == "FAILURE" and last["message"].startswith(f"OneFormer {verb} failed: ")

    def edit(self, change: Callable[[Any], Any]) -> None:
        """Rewrite the annotation file."""
        content = json.loads(self.data.annotations.read_text())
        change(content)
        self.data.annotations.write_text(json.dumps(content))

    def mask(self, change: Callable[[np.ndarray], Any]) -> None:
        """Rewrite the second mask's ids."""
        path = self.data.panoptic / "scene_001.png"
        rgb = np.asarray(Image.open(path)).astype(np.int32)
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
        change(ids)
        Image.fromarray(ids_to_rgb(ids)).save(path)

    def cut(self, path: Path) -> None:
        """Keep the first half of a file."""
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])

    def as_jpeg(self) -> Path:
        """Turn the second photo into a JPEG; its path."""
        path = (self.data.images / "scene_001.png").rename(self.data.images / "scene_001.jpg")
        Image.open(path).convert("RGB").save(path, "JPEG")
        self.edit(lambda c: c["images"][1].update(file_name="scene_001.jpg"))
        return path


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    data = write_tiny_dataset(tmp_path / "data", images=3)
    checkpoint = write_tiny_checkpoint(tmp_path / "ready.pth")
    return Bench(data, checkpoint, tmp_path / "results", lambda: capsys.readouterr().err)


SECOND = {"segments": lambda c: c["annotations"][1]["segments_info"]}
# What is broken -> how, and what the message says (the file and the fault).
DATA: dict[str, tuple[Callable[[Bench], Any], tuple[str, ...]]] = {
    "no annotation file": (lambda b: b.data.annotations.unlink(), ("annotations.json", "does not exist")),
    "no photo": (lambda b: (b.data.images / "scene_001.png").unlink(), ("scene_001.png", "there is no image file")),
    "no mask": (lambda b: (b.data.panoptic / "scene_001.png").unlink(), ("scene_001.png", "there is no mask file")),
    "no label map": (lambda b: b.data.label_map.unlink(), ("label_map.json", "does not exist")),
    "JSON cut off": (lambda b: b.cut(b.data.annotations), ("annotations.json", "not valid JSON")),
    "JSON of another kind": (lambda b: b.data.annotations.write_text("[]"), ("annotations.json", "no list 'images'")),
    "mask cut off": (lambda b: b.cut(b.data.panoptic / "scene_001.png"), ("scene_001.png", "mask file is broken")),
    "mask is no image": (
        lambda b: (b.data.panoptic / "scene_001.png").write_bytes(b"hello"),
        ("scene_001.png", "not an image of a known format"),
    ),
    "JPEG cut off": (lambda b: b.cut(b.as_jpeg()), ("scene_001.jpg", "broken")),
    "id in the mask only": (
        lambda b: b.mask(lambda ids: ids.__setitem__((0, 0), 7)),
        ("scene_001.png", "does not list: 7"),
    ),
    "id in the JSON only": (
        lambda b: b.edit(lambda c: SECOND["segments"](c).append({"id": 7, "category_id": 5, "area": 1})),
        ("scene_001.png", "without a pixel in the mask: 7"),
    ),
    "image id twice": (
        lambda b: b.edit(lambda c: c["images"][1].update(id=100)),
        ("annotations.json", "two images have the same id: 100"),
    ),
    "segment id twice": (
        lambda b: b.edit(lambda c: SECOND["segments"](c).append(SECOND["segments"](c)[0])),
        ("annotations.json", "two segments of an image have the same id"),
    ),
    "photo of another size": (
        lambda b: Image.new("RGB", (50, 40)).save(b.data.images / "scene_001.png"),
        ("scene_001.png", "the photo is 50 x 40"),
    ),
    "class outside the label map": (
        lambda b: b.edit(lambda c: SECOND["segments"](c)[0].update(category_id=99)),
        ("annotations.json", "a category is not in the label map: id 99"),
    ),
    "no annotations at all": (
        lambda b: b.edit(lambda c: c.update(images=[], annotations=[])),
        ("annotations.json", "there is not one annotated image"),
    ),
}


@pytest.mark.parametrize("verb", ["train", "evaluate"])
@pytest.mark.parametrize("fault", DATA)
def test_broken_data_is_refused_by_name(fault: str, verb: str, bench: Bench) -> None:
    spoil, words = DATA[fault]
    spoil(bench)
    said = bench.run(verb)
    assert all(word in said for word in words), said


def test_all_faults_of_the_data_come_in_one_answer(bench: Bench) -> None:
    DATA["mask cut off"][0](bench)
    (bench.data.images / "scene_000.png").write_bytes(b"hello")
    said = bench.run("train", "dataset.val.annotations=")
    assert "[1/2]" in said and "[2/2]" in said and "scene_000.png" in said and "scene_001.png" in said


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_what_the_quick_look_has_missed_is_refused_by_name_too(
    verb: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large data set only some files are opened before the run."""
    monkeypatch.setattr(check, "check_pixels", lambda *_, **__: [])
    DATA["id in the mask only"][0](bench)
    said = bench.run(verb, "dataset.train.batch_size=3", "dataset.augmentation.train_crop_size=[64,64]")
    assert "scene_001.png" in said and "does not list: 7" in said


class Bomb:
    """Runs code when it is unpickled: makes a folder, if anybody lets it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def other_network(path: Path) -> None:
    torch.save({"state_dict": {"fc.weight": torch.ones(2, 3)}}, path)


# What is wrong with the file -> how, and words that each command says of it.
WEIGHTS: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "missing": (lambda path: path.unlink(missing_ok=True), ("does not exist", "there is no such")),
    "another network": (other_network, ("hold", "no training state")),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:2000]), ("broken or cut short",)),
    "text": (lambda path: path.write_text("not weights", encoding="utf-8"), ("not a weight file", "broken")),
    "pickled code": (lambda path: path.write_bytes(pickle.dumps(Bomb(path.with_suffix(".ran")))), ("could run code",)),
    "code in a torch file": (lambda path: torch.save({"a": Bomb(path.with_suffix(".ran"))}, path), ("could run code",)),
}
KEYS = {
    "evaluate.checkpoint": "evaluate",
    "inference.checkpoint": "inference",
    "train.pretrained_model": "train",
    "train.pretrained_backbone": "train",
    "train.resume_training_checkpoint_path": "train",
}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("fault", WEIGHTS)
def test_broken_weights_are_refused_by_name_and_run_nothing(fault: str, key: str, bench: Bench) -> None:
    spoil, words = WEIGHTS[fault]
    spoilt = bench.checkpoint.rename(bench.checkpoint.with_name("spoilt.pth"))
    spoil(spoilt)
    said = bench.run(KEYS[key], f"{key}={spoilt}")
    assert "spoilt.pth" in said and any(word in said for word in words), said
    assert not spoilt.with_suffix(".ran").exists()


def test_the_bomb_would_go_off_elsewhere(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "ran")))
    assert (tmp_path / "ran").is_dir()


def test_an_image_folder_that_is_empty_or_missing_is_refused_by_name(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, fault in (("empty", "the folder holds no image"), ("nowhere", "the image folder does not exist")):
        assert f"{tmp_path / name}: {fault}" in bench.run("inference", f"inference.images_dir={tmp_path / name}")
