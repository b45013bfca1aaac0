"""Chains of actions as one file: what is read, what is refused before anything is submitted, and what is submitted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oneformer.cli import main
from oneformer.errors import UserError
from oneformer.jobs.pipeline import checked, read_pipeline
from oneformer.jobs.store import Store


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    for module in ("job", "executors.local"):
        monkeypatch.setattr(f"oneformer.jobs.{module}.start_queue", lambda store: None)


def write(folder: Path, text: str) -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_each_step_follows_the_one_before(store: Store, tmp_path: Path) -> None:
    file = write(tmp_path, "steps: [train, evaluate, export, gen_trt_engine, evaluate]")
    jobs = checked(file, ["preset=nano"], store.root).submit()
    records = [job.record for job in jobs]
    assert [r.action for r in records] == ["train", "evaluate", "export", "gen_trt_engine", "evaluate"]
    assert [r.parent for r in records] == ["", *(r.id for r in records[:-1])]
    assert [r.id for r in store.records()] == [r.id for r in records]


def test_a_step_may_name_another_parent_its_own_spec_and_wishes(store: Store, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("train: {num_epochs: 9}\nencryption_key: hush\n")
    text = f"""
spec: {tmp_path / "own.yaml"}
steps:
  - {{action: train, set: {{train.optim.lr: 0.0002}}, cpus: 1}}
  - {{action: quantize, name: small, checkpoint: latest, set: [quantize.sensitivity=true]}}
  - {{action: evaluate, parent: train, after: small, infer: {{model_name: tiny}}}}
  - action: evaluate
    parent: small
"""
    train, small, first, second = (job.record for job in checked(write(tmp_path, text), [], store.root).submit())
    assert "num_epochs: 9" in (store.folder(train.id) / "asked.yaml").read_text()
    assert (train.cpus, small.checkpoint, small.parent) == (1, "latest", train.id)
    assert (first.parent, first.after, first.infer) == (train.id, [small.id], {"model_name": "tiny"})
    assert second.parent == small.id
    assert store.secret(second.id) == {"encryption_key": "hush"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: []", "a list of steps"),
        ("step: [train]", "did you mean steps?"),
        ("steps: [trian]", "did you mean train?"),
        ("steps: [{acton: train}]", "did you mean action?"),
        ("steps: [{action: train, parent: x}]", "there is no step x"),
        ("steps: [{action: train, after: [evaluate]}, evaluate]", "there is no step evaluate before it"),
        ("steps: [{action: train, name: a}, {action: export, name: a}]", "two steps a"),
        ("steps: [{action: train, set: 3}]", "set takes a table"),
        ("steps: [{action: train, gpus: many}]", "gpus cannot be 'many'"),
        ("steps: [{action: train, set: {train.num_epochs: 0}}]", "step train:"),
        ("steps: [{action: train, set: {results_dir: x}}]", "its own folder"),
        ("steps: [train, gen_trt_engine]", "gen_trt_engine cannot read a checkpoint"),
        ("steps: [train, export, quantize]", "quantize cannot read an ONNX graph"),
        ("steps: [3]", "an action or a table"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_submitted(
    text: str, said: str, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["jobs", "pipeline", str(write(tmp_path, text)), "--jobs", str(store.root)]) == 2
    assert said in capsys.readouterr().err
    assert not store.root.exists()


def test_faults_of_all_steps_are_told_together(store: Store, tmp_path: Path) -> None:
    text = "steps: [{action: train, set: {train.num_epochs: 0}}, {action: evaluate, set: {evaluate.task: none}}]"
    with pytest.raises(UserError) as caught:
        checked(write(tmp_path, text), [], store.root)
    assert "[2/2] step evaluate" in caught.value.message


def test_a_dry_run_tells_every_step(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, "steps: [train, {action: quantize, set: {quantize.backend: torchao}}, evaluate]")
    words = ["jobs", "pipeline", str(file), "--dry-run", "--json", "train.num_epochs=2", "--jobs", str(store.root)]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)["jobs"]
    assert [job["action"] for job in told] == ["train", "quantize", "evaluate"]
    assert all("num_epochs: 2" in job["spec"] for job in told) and not store.root.exists()


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        read_pipeline(tmp_path / "none.yaml")
