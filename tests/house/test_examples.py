"""The scripts in `examples/`: the demo's commands, the README's picture and its table."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from house.pages import ROOT
from oneformer.cli import VERBS
from oneformer.spec.load import load
from predict.fake import scene
from story.tiny_model import write_tiny_checkpoint

METRICS = {
    "semantic": {"mIoU": 81.26},
    "panoptic": {"all": {"PQ": 60.0}, "things": {"PQ": 25.04}},
    "instance": {"AP": 9.87},
}
EXPERIMENT = "# started: 2026-01-02T03:04:05+00:00\n# torch: 2.13.0\n# git: 0123456789abcdef\npreset: nano\n"


def example(name: str) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("full", [False, True])
def test_the_commands_of_the_demo_are_understood(full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for verb, flag, spec, *words in example("demo").commands(full):
        assert flag == "-e" and VERBS[verb].takes_spec
        assert load(spec, words, action=verb).warnings == []


def test_the_demo_ends_with_the_scores_of_checkpoint_and_exported_file(tmp_path: Path) -> None:
    worse = {**METRICS, "semantic": {"mIoU": 81.16}}
    for name, content in (("evaluate", METRICS), ("export/evaluate", worse)):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "metrics.json").write_text(json.dumps(content), encoding="utf-8")
    lines = [line.split() for line in example("demo").table(tmp_path).splitlines()]
    assert lines[1:] == [
        ["mIoU", "81.26", "81.16", "-0.10"],
        ["PQ", "60.00", "60.00", "0.00"],
        ["AP", "9.87", "9.87", "0.00"],
    ]


def test_the_picture_shows_the_image_and_three_answers(tmp_path: Path) -> None:
    from PIL import Image

    picture = example("picture")
    Image.fromarray(scene((64, 64))).save(tmp_path / "scene.png")
    sheet = picture.three_tasks(write_tiny_checkpoint(tmp_path / "model.pth"), tmp_path / "scene.png")
    assert sheet.size == (4 * picture.PANEL + 3 * picture.GAP, picture.HEAD + picture.PANEL)
    panels = [
        sheet.crop((left, picture.HEAD, left + picture.PANEL, sheet.height)).tobytes()
        for left in range(0, sheet.width, picture.PANEL + picture.GAP)
    ]
    assert len(set(panels)) == 4


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, looking at a run of ours and a README of ours."""
    module = example("results_table")
    files = {"evaluate/metrics.json": json.dumps(METRICS), "train/experiment.yaml": EXPERIMENT}
    lines = [("STARTED", "03:00:00"), ("FAILURE", "03:30:00"), ("STARTED", "04:00:00"), ("SUCCESS", "04:06:20")]
    files["train/status.json"] = "\n".join(
        json.dumps({"date": "01/02/2026", "time": time, "status": status}) for status, time in lines
    )
    for name, text in files.items():
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(module, "RUN", tmp_path / "run")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


def test_the_table_has_each_number_with_its_source(table: ModuleType) -> None:
    text = table.table()
    for part in ("| mIoU | 81.3 | `semantic.mIoU` |", "| 25.0 | `panoptic.things.PQ` |", "| 9.9 | `instance.AP` |"):
        assert part in text
    source = text.splitlines()[-1]
    for part in ("`make demo`", "6 minutes", "cores", "2026-01-02", "`0123456`", "torch 2.13.0"):
        assert part in source


def test_the_table_replaces_the_old_one_in_the_readme(
    table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.MARKS[0]}\nold\n{table.MARKS[1]}\nafter\n", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["results_table.py", "--write"])
    table.main()
    text = readme.read_text(encoding="utf-8")
    assert "old" not in text and "81.3" in text and text.startswith("before\n") and text.endswith("after\n")
    table.main()
    assert readme.read_text(encoding="utf-8") == text


def test_the_readme_has_a_table_from_the_script() -> None:
    module = example("results_table")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.index(module.MARKS[0]) < text.index("Source: `make demo`") < text.index(module.MARKS[1])
