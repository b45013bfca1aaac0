"""The stories of pipelines: one file, a job for each step, each on what the one before has made, to the scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oneformer import cli
from oneformer.jobs import Job
from oneformer.jobs.record import CANCELED, COMPLETE, ERROR
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


GRAPH = "[train, evaluate, export, {action: evaluate, name: graph}]"
ENGINE = "[train, evaluate, export, gen_trt_engine, evaluate]"
FEWER_BITS = "[train, quantize, evaluate]"
SEARCH = "[{action: train, set: {automl_policy: 'on', automl.max_trials: 2, automl.metric: mIoU}}, evaluate]"


def submitted(tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str], steps: str = GRAPH) -> list[Job]:
    """The jobs of a chain, as one command submits them."""
    file = tmp_path / "pipeline.yaml"
    file.write_text(f"steps: {steps}\n")
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


@pytest.mark.slow
def test_a_chain_to_an_engine_ends_with_it_or_with_a_word_why_not(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where there is no GPU or no TensorRT, what comes before is done, and what would follow is not run."""
    jobs = submitted(tmp_path, words, capsys, ENGINE)
    jobs[-1].wait(500)
    states = [job.state for job in jobs]
    assert states[:3] == [COMPLETE] * 3, [job.message for job in jobs]
    *_, export, engine, last = jobs
    assert engine.record.inferred["gen_trt_engine.onnx_file"]["value"] == str(export.results / "export" / "model.onnx")
    if states[3] == COMPLETE:
        made = engine.results / "gen_trt_engine" / "model.engine"
        assert states[4] == COMPLETE and last.record.inferred["evaluate.trt_engine"]["value"] == str(made)
        assert last.record.inferred["evaluate.checkpoint"]["value"] == ""
    else:
        assert states[3:] == [ERROR, CANCELED] and engine.id in last.message
        assert ("TensorRT" in engine.message and "pip install" in engine.message) or "NVIDIA GPU" in engine.message


@pytest.mark.slow
def test_a_chain_over_fewer_bits_scores_the_quantized_model(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quantized = ["quantize.backend=torchao", "quantize.device=cpu"]
    train, quantize, score = submitted(tmp_path, [*words, *quantized], capsys, FEWER_BITS)
    score.wait(500)
    assert [job.state for job in (train, quantize, score)] == [COMPLETE] * 3, [score.log, quantize.log]
    made = Path(score.record.inferred["evaluate.checkpoint"]["value"])
    assert made.parent == quantize.results / "quantize" and made.is_file()
    assert json.loads((score.results / "evaluate" / "metrics.json").read_text())["semantic"]


@pytest.mark.slow
def test_what_follows_a_search_gets_its_best_with_the_score_found_again(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search, score = submitted(tmp_path, [*words, "automl.parameters=[train.optim.lr]"], capsys, SEARCH)
    score.wait(500)
    assert [search.state, score.state] == [COMPLETE] * 2, [search.log, score.log]
    told = json.loads((search.results / "automl" / "verified.json").read_text())
    best = search.results / "automl" / "best" / "model.pth"
    assert told["equal"] is True and best.read_bytes() == Path(told["checkpoint"]).read_bytes()
    filled = score.record.inferred["evaluate.checkpoint"]
    assert (filled["value"], filled["job"]) == (str(best), search.id) and "found again" in filled["why"]
    # What is evaluated are the validation images, so that it is the same score once more.
    scores = json.loads((score.results / "evaluate" / "metrics.json").read_text())
    assert scores["semantic"]["mIoU"] == pytest.approx(told["measured"], abs=1e-3)
