"""Every template of `default_specs`, and TAO's own, does its work when nothing but the data is named.

The networks are small, so that it takes seconds: what is laid over a template are sizes, as `house/sandbox.py` has them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from exported import tiny_export
from house.sandbox import SMALL
from oneformer import cli
from oneformer.schema.inputs import ACTIONS
from oneformer.schema.tao_schema import roots
from oneformer.schema.templates import template
from story.tiny_model import write_tiny_checkpoint
from tiny import TinyDataset, write_tiny_dataset

LEAVES: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).resolve().parents[1] / "spec" / "tao_leaves.json").read_text(encoding="utf-8")
)
FORMS = ("minimal", "full", "tao")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    return write_tiny_dataset(tmp_path_factory.mktemp("data"), images=3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("train") / "oneformer_model_best.pth")


def spec_of(action: str, form: str, folder: Path) -> Path:
    """A template in one of its forms; TAO's is made of the facts of its schema."""
    if form == "tao":
        tree: dict[str, Any] = {}
        for key, fact in LEAVES.items():
            *above, name = key.split(".")
            if "default" in fact and key.split(".")[0] in roots(action):
                at = tree
                for section in above:
                    at = at.setdefault(section, {})
                at[name] = fact["default"]
        tree["train"] |= {"precision": "32", "num_gpus": 1}  # 8 processes are too many for a test
        text = json.dumps(tree)
    else:
        text = template(action, minimal=form == "minimal")
    file = folder / f"{action}.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def paths(action: str, data: TinyDataset, checkpoint: Path) -> list[str]:
    """What a user names."""
    named = {
        "train": data.overrides("train", "val"),
        "evaluate": [*data.overrides("test"), f"evaluate.checkpoint={checkpoint}"],
        "inference": [f"inference.checkpoint={checkpoint}", f"inference.images_dir={data.images}"],
        "export": [f"export.checkpoint={checkpoint}"],
        "quantize": [f"quantize.model_path={checkpoint}"],
        "gen_trt_engine": [f"gen_trt_engine.onnx_file={tiny_export().onnx}"],
    }
    return named[action]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("action", ACTIONS)
def test_a_template_plans_its_work(
    action: str, form: str, tmp_path: Path, data: TinyDataset, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*paths(action, data, checkpoint), f"results_dir={tmp_path}", "--dry-run"]
    assert cli.main([action, "-e", str(spec_of(action, form, tmp_path)), *words]) == cli.DONE, capsys.readouterr().err
    told = capsys.readouterr()
    assert "would write" in told.out and "is not there" not in told.out
    assert "warning" not in told.err


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("action", ["train", "evaluate", "inference"])
def test_a_template_does_its_work(
    action: str, form: str, tmp_path: Path, data: TinyDataset, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*paths(action, data, checkpoint), f"results_dir={tmp_path}", *SMALL]
    assert cli.main([action, "-e", str(spec_of(action, form, tmp_path)), *words]) == cli.DONE, capsys.readouterr().err
    assert json.loads((tmp_path / action / "status.json").read_text().splitlines()[-1])["status"] == "SUCCESS"
    first = (tmp_path / action / "experiment.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=file://") and first.endswith(f"/{action}.schema.json")


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("action", ["export", "quantize"])
def test_a_template_of_a_graph_does_its_work(
    action: str, form: str, tmp_path: Path, data: TinyDataset, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["export.input_width=64", "export.input_height=64"]
    words = [*paths(action, data, checkpoint), f"results_dir={tmp_path}", *size]
    assert cli.main([action, "-e", str(spec_of(action, form, tmp_path)), *words]) == cli.DONE, capsys.readouterr().err


def test_a_number_of_classes_that_the_label_map_does_not_have_ends_training_before_its_first_step(
    tmp_path: Path, data: TinyDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*data.overrides("train"), *SMALL, f"results_dir={tmp_path}", "num_classes=7"]
    assert cli.main(["train", "preset=nano", *words]) == cli.WRONG_REQUEST
    said = capsys.readouterr().err
    assert "the label map has 4 classes, model.sem_seg_head.num_classes is 7" in said
    assert list((tmp_path / "train").glob("*.pth")) == []
