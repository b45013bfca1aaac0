"""A run's folder: where it lies, what it records, and files that are whole or not there."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import IO

import pytest

from oneformer.errors import UserError, WorkError
from oneformer.runs import RunFolder, run_path, seed_everything
from oneformer.runs.atomic import write_atomic, write_json, write_text
from oneformer.runs.folder import git_state, run_facts
from oneformer.runs.secrets import MASK, masked
from oneformer.spec.load import load
from oneformer.spec.tree import to_dict


def test_the_folder_is_named_after_the_action() -> None:
    assert run_path("out", "train") == Path("out/train")
    assert run_path("", "evaluate") == Path("results/evaluate")
    assert run_path("out", "train", section_dir="elsewhere") == Path("elsewhere")


def test_the_path_alone_creates_nothing(tmp_path: Path) -> None:
    run_path(tmp_path / "out", "train")
    assert list(tmp_path.iterdir()) == []


def test_opening_a_run_creates_its_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a" / "b", "train")
    assert folder.path.is_dir()
    assert list(folder.path.iterdir()) == []
    assert folder / "x.csv" == tmp_path / "a" / "b" / "train" / "x.csv"


def test_a_file_in_the_way_is_a_users_fault(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="results folder cannot be used"):
        RunFolder(tmp_path / "out", "train")


def test_the_written_spec_loads_again_and_shows_no_secret(tmp_path: Path) -> None:
    words = ["encryption_key=hush-hush", "train.optim.lr=1e-5", "results_dir=s3://me:pass@host/x", "model_name='yes'"]
    spec = load(None, words, action="train").spec
    file = RunFolder(tmp_path, "train").write_experiment(to_dict(spec), seed=7)
    text = file.read_text(encoding="utf-8")
    assert "hush-hush" not in text
    assert "pass" not in text.replace("passes", "")
    again = load(file, action="train").spec
    spec.encryption_key, spec.results_dir = MASK, f"s3://{MASK}@host/x"
    assert again == spec


def test_the_written_spec_says_what_it_ran_with(tmp_path: Path) -> None:
    text = RunFolder(tmp_path, "train").write_experiment({"train": {}}, seed=7).read_text(encoding="utf-8")
    head = [line for line in text.splitlines() if line.startswith("#")]
    for name in ("started", "python", "torch", "numpy", "seed: 7"):
        assert any(name in line for line in head), name


def test_secrets_are_found_by_the_name_of_their_key() -> None:
    names = ["encryption_key", "api-token", "wandb_password", "secret", "key", "AWS_SECRET_ACCESS_KEY"]
    assert masked(dict.fromkeys(names, "x")) == dict.fromkeys(names, MASK)
    harmless = {"keep_checkpoints": "3", "monkey": "x", "task_tokens_count": 77, "encryption_key": ""}
    assert masked(harmless) == harmless
    assert masked({"a": [{"token": "x"}]}) == {"a": [{"token": MASK}]}


def test_the_git_state_names_the_commit_and_the_changes(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=t", "-c", "user.email=t@t"]
        return subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    assert git_state(tmp_path) == ""
    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "one")
    commit = git("rev-parse", "HEAD").strip()
    assert git_state(tmp_path) == commit
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path) == f"{commit} with 1 changed files"


def test_facts_hold_no_path_of_the_machine() -> None:
    assert str(Path.cwd()) not in json.dumps(run_facts(1))


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = write_text(tmp_path / "a.txt", "old")

    def breaks(out: IO[bytes]) -> None:
        out.write(b"half of the n")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_atomic(file, breaks)
    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_while_writing_is_a_failure_of_the_work(tmp_path: Path) -> None:
    def full(_: IO[bytes]) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(WorkError, match="No space left"):
        write_atomic(tmp_path / "a.txt", full)
    assert list(tmp_path.iterdir()) == []


def test_json_is_strict(tmp_path: Path) -> None:
    file = write_json(tmp_path / "a.json", {"x": float("nan"), "p": Path("a/b"), "t": (1, 2)})
    assert json.loads(file.read_text()) == {"x": None, "p": "a/b", "t": [1, 2]}


def test_a_seed_fixes_every_generator() -> None:
    import numpy as np
    import torch

    def draws() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]

    seed_everything(5)
    first = draws()
    seed_everything(5)
    assert draws() == first
    seed_everything(6)
    assert draws() != first
