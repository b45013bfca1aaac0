"""Seeded corruptions: the check finds each planted fault, never crashes, and training refuses with the same findings."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.corruptions import CORRUPTIONS, Set, with_junk
from oneformer.actions.train import run as train
from oneformer.data.check import check
from oneformer.data.findings import KINDS, Finding, Findings
from oneformer.errors import UserError
from oneformer.spec.data import DatasetSpec
from oneformer.spec.load import load_spec
from tiny import TinyDataset, write_tiny_dataset

SEEDS = 7


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound")
    write_tiny_dataset(root / "train", images=3, size=(24, 36), seed=1)
    write_tiny_dataset(root / "val", images=2, size=(24, 36), seed=2)
    return root


def copy_of(sound: Path, root: Path, seed: int) -> Set:
    shutil.copytree(sound, root)
    parts = [root / name for name in ("train", "val")]
    train, val = (
        TinyDataset(p, p / "images", p / "panoptic", p / "annotations.json", p / "label_map.json") for p in parts
    )
    return Set(train, val, np.random.default_rng(seed))


def findings_of(dataset: DatasetSpec) -> list[Finding]:
    found: list[Finding] = []
    findings = Findings(found.append)
    check(dataset, findings=findings, workers=0)
    assert sum(findings.counts.values()) == len(found)
    assert json.dumps(findings.to_dict())
    for finding in found:
        assert finding.kind in KINDS and finding.what and finding.severity in ("error", "warning")
        assert finding.file and finding.hint, finding
    return found


def test_a_sound_data_set_has_no_findings(sound: Path, tmp_path: Path) -> None:
    assert [f for f in findings_of(copy_of(sound, tmp_path / "set", 0).spec()) if f.kind != "absent_class"] == []


def test_at_least_300_faults_are_planted_and_every_kind_of_them() -> None:
    assert SEEDS * len(CORRUPTIONS) >= 300
    assert set().union(*CORRUPTIONS.values()) == set(KINDS) - {"spec"}, "the spec is not the data"


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda c: c.__name__)
def test_each_planted_fault_is_found_and_training_refuses(
    corrupt: Callable[[Set], None], sound: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for seed in range(SEEDS):
        broken = copy_of(sound, tmp_path / str(seed), seed)
        corrupt(broken)
        found = findings_of(broken.spec())
        kinds = {f.kind for f in found}
        assert kinds >= CORRUPTIONS[corrupt], (seed, found)
        errors = [f for f in found if f.severity == "error"]
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            message = refusal(broken.spec(), tmp_path / "results")
        if errors:
            assert message, f"seed {seed}: training did not refuse {errors}"
            assert all(f.what in message for f in errors), (seed, errors, message)
        else:
            assert not message, (seed, message)
            quiet = {"unused_file", "duplicate_photo"}  # only worth telling to whoever asks
            for kind in CORRUPTIONS[corrupt] - quiet:
                assert any(w.what in caplog.text or KINDS[kind] in caplog.text for w in found if w.kind == kind)


def refusal(dataset: DatasetSpec, results: Path) -> str:
    """What training says instead of starting; empty when it would start."""
    spec = load_spec(None, ["preset=nano", f"results_dir={results}", "train.accelerator=cpu"], action="train")
    spec.dataset = dataset
    try:
        train(spec)
    except UserError as error:
        return error.message
    except Started:
        return ""
    raise AssertionError("the training ran")


class Started(Exception):
    """The training would begin."""


@pytest.fixture(autouse=True)
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*_: Any, **__: Any) -> None:
        raise Started

    monkeypatch.setattr("oneformer.actions.train._fit", fit)


@pytest.mark.parametrize("block", range(4))
def test_no_change_of_a_value_crashes_the_check(block: int, sound: Path, tmp_path: Path) -> None:
    """Any value of the annotations or the label map replaced by junk: findings, or nothing; never an exception."""
    for seed in range(block * 12, block * 12 + 12):
        broken = copy_of(sound, tmp_path / str(seed), seed)
        path = (broken.train.annotations, broken.train.label_map)[seed % 4 == 3]
        content = json.loads(path.read_text())
        path.write_text(json.dumps(with_junk(content, broken.rng)))
        found = findings_of(broken.spec())
        assert bool([f for f in found if f.severity == "error"]) == bool(refusal(broken.spec(), tmp_path / "results"))
