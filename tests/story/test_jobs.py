"""The story of a pipeline: one file, four jobs, each on what the one before has made, from the command line to the scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oneformer import cli
from oneformer.jobs import Job
from oneformer.jobs.record import COMPLETE
from oneformer.jobs.resolve import prepared
from oneformer.jobs.verdict import verdict
from oneformer.jobs.worker import claim
from story.tiny_model import TINY
from tiny import write_tiny_dataset

SMALL = (
    "train.num_epochs=1", "train.iters_per_epoch=1", "train.accelerator=cpu", "dataset.train.num_workers=0",
    "dataset.val.num_workers=0", "dataset.augmentation.train_crop_size=[64,64]", "dataset.train.batch_size=2",
    "evaluate.accelerator=cpu", "evaluate.report_images=0", "export.on_cpu=true", "export.input_height=64",
    "export.input_width=96", "export.parity_images=1",
)  # fmt: skip


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """What makes every step small, over a data set that is written."""
    return [*TINY, *write_tiny_dataset(tmp_path / "data", images=4).overrides("train", "val"), *SMALL]


def submitted(tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> list[Job]:
    """The jobs of a chain, as one command submits them."""
    file = tmp_path / "pipeline.yaml"
    file.write_text("steps: [train, evaluate, export, {action: evaluate, name: graph}]\n")
    code = cli.main(["jobs", "pipeline", str(file), "--json", "--jobs", str(tmp_path / "jobs"), *words])
    said = capsys.readouterr()
    assert code == 0, said.err
    return [Job(job["id"], tmp_path / "jobs") for job in json.loads(said.out)["jobs"]]


def run_here(job: Job) -> None:
    """What a worker does, in this process, where torch is loaded already."""
    record = claim(job.store, job.id)
    assert record, "its turn has come"
    with prepared(job.store, record) as command:
        code = cli.main([str(word) for word in command[command.index("oneformer") + 1 :]])
    job.store.change(job.id, lambda r: r.end(*verdict(r, job.folder, code), exit_code=code))


def check(jobs: list[Job], folder: Path) -> None:
    """Each job worked on what came before, and everything lies in the jobs' own folders."""
    train, score, export, graph = jobs
    assert [job.store.read(job.id).state for job in jobs] == [COMPLETE] * 4, [job.log for job in jobs]
    best = train.results / "train" / "oneformer_model_best.pth"
    assert score.record.inferred["evaluate.checkpoint"]["value"] == str(best)
    assert export.record.inferred["export.checkpoint"]["value"] == str(best)
    onnx = export.results / "export" / "model.onnx"
    assert onnx.is_file() and graph.record.inferred["evaluate.checkpoint"]["value"] == str(onnx)
    scores = [json.loads((job.results / "evaluate" / "metrics.json").read_text()) for job in (score, graph)]
    assert scores[0]["semantic"]["mIoU"] == pytest.approx(scores[1]["semantic"]["mIoU"], abs=0.5)
    assert sorted(path.name for path in folder.iterdir()) == ["data", "jobs", "pipeline.yaml"]


def test_each_step_of_a_chain_works_on_what_came_before(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oneformer.jobs.executors.local.start_queue", lambda store: None)
    monkeypatch.setattr("oneformer.jobs.job.start_queue", lambda store: None)
    jobs = submitted(tmp_path, words, capsys)
    assert claim(jobs[0].store, jobs[1].id) is None  # not before the one it follows is complete
    for job in jobs:
        run_here(job)
    check(jobs, tmp_path)


@pytest.mark.slow
def test_a_chain_runs_in_the_background_as_one_command(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = submitted(tmp_path, words, capsys)
    jobs[-1].wait(500)
    check(jobs, tmp_path)
