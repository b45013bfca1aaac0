"""What is filled into a spec: TAO's table for each action, TAO's functions with their meaning, and which file goes where."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.work import shell
from oneformer.engines.open import ENGINES, KINDS, chosen_engine
from oneformer.errors import CheckpointError, UserError
from oneformer.jobs import create_job
from oneformer.jobs.fields import FUNCTIONS, TABLE, Context, filled
from oneformer.jobs.job import Job
from oneformer.jobs.models import BEST, ENDINGS, LATEST, chosen
from oneformer.jobs.record import COMPLETE
from oneformer.jobs.resolve import load_asked, prepared
from oneformer.jobs.store import Store
from oneformer.spec.load import load
from oneformer.train import checkpoint as training

# From NVIDIA TAO's description of the network: `spec_params` of each action, as its toolkits publish them.
MISSION = """
train: encryption_key=key; results_dir=output_dir; train.pretrained_model=ptm_if_no_resume_model; train.resume_training_checkpoint_path=resume_model
evaluate: encryption_key=key; results_dir=output_dir; evaluate.checkpoint=parent_model; evaluate.trt_engine=parent_model
export: encryption_key=key; results_dir=output_dir; export.checkpoint=parent_model; export.onnx_file=create_onnx_file
inference: encryption_key=key; results_dir=output_dir; inference.checkpoint=parent_model; inference.trt_engine=parent_model
quantize: encryption_key=key; results_dir=output_dir; quantize.model_path=parent_model
gen_trt_engine: encryption_key=key; results_dir=output_dir; gen_trt_engine.onnx_file=parent_model; gen_trt_engine.trt_engine=create_engine_file
"""
FILES = {
    "train": (
        "model_epoch_000_step_00002.pth",
        "model_epoch_001_step_00004.pth",
        "model_epoch_001_step_00003.pth",
        BEST,
    ),
    "export": ("model.onnx", "model.json"),
    "quantize": ("quantized_model_torchao.pth", "report.json"),
    "gen_trt_engine": ("model.engine", "build.json"),
    "evaluate": ("metrics.json",),
    "inference": ("predictions.json",),
}


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    for module in ("job", "executors.local"):
        monkeypatch.setattr(f"oneformer.jobs.{module}.start_queue", lambda store: None)


def submit(store: Store, action: str, *words: str, **wishes: Any) -> Job:
    return create_job(action, None, list(words), jobs=store.root, **wishes)


def done(store: Store, action: str, *words: str, files: tuple[str, ...] | None = None, **wishes: Any) -> Job:
    """A job of that action as it is when it is complete."""
    job = submit(store, action, *words, **wishes)
    folder = job.results / action
    folder.mkdir(parents=True)
    for name in FILES[action] if files is None else files:
        (folder / name).write_text(name)
    store.change(job.id, lambda record: record.end(COMPLETE))
    return job


def values(store: Store, job: Job) -> dict[str, Any]:
    """Key -> what is filled in, relative to the folder of jobs."""
    record = store.read(job.id)
    found = filled(Context(store, record, load_asked(job.folder, record, {})[0]))
    return {key: field.value.removeprefix(f"{store.root}/") for key, field in found.items()}


def test_the_table_of_every_action_is_taos() -> None:
    told = {}
    for line in MISSION.strip().splitlines():
        action, _, rows = line.partition(": ")
        told[action] = dict(row.split("=") for row in rows.split("; "))
    assert told == TABLE


def test_every_function_of_tao_is_there() -> None:
    assert set(FUNCTIONS) == {
        "key", "output_dir", "parent_model", "parent_model_folder", "parent_model_or_ptm", "resume_model",
        "resume_model_or_ptm", "ptm", "ptm_if_no_resume_model", "create_onnx_file", "create_engine_file",
    }  # fmt: skip


def test_the_kinds_of_files_are_those_that_engines_open() -> None:
    assert set(ENDINGS) == {ending for ending in KINDS if ending.startswith(".")}
    for ending, kind in ENDINGS.items():
        assert (kind == "TensorRT engine") == (chosen_engine(Path(f"m{ending}"), "auto") == "tensorrt")
    assert "tensorrt" in ENGINES


@pytest.mark.parametrize(
    ("parent", "action", "words", "key", "file"),
    [
        ("train", "evaluate", (), "evaluate.checkpoint", BEST),
        ("train", "inference", (), "inference.checkpoint", BEST),
        ("train", "export", (), "export.checkpoint", BEST),
        ("train", "quantize", (), "quantize.model_path", BEST),
        ("quantize", "evaluate", (), "evaluate.checkpoint", "quantized_model_torchao.pth"),
        ("quantize", "export", (), "export.checkpoint", "quantized_model_torchao.pth"),
        ("export", "evaluate", (), "evaluate.checkpoint", "model.onnx"),
        ("export", "gen_trt_engine", (), "gen_trt_engine.onnx_file", "model.onnx"),
        ("export", "quantize", ("quantize.backend=onnxruntime",), "quantize.model_path", "model.onnx"),
        ("gen_trt_engine", "evaluate", (), "evaluate.trt_engine", "model.engine"),
        ("gen_trt_engine", "inference", (), "inference.trt_engine", "model.engine"),
    ],
)
def test_the_parents_model_lands_in_the_key_that_can_read_it(
    parent: str, action: str, words: tuple[str, ...], key: str, file: str, store: Store
) -> None:
    first = done(store, parent)
    found = values(store, submit(store, action, *words, parent=first.id))
    assert found[key] == f"{first.id}/results/{parent}/{file}"
    others = {k: v for k, v in found.items() if TABLE[action][k] == "parent_model" and k != key}
    assert set(others.values()) <= {""}


@pytest.mark.parametrize(
    ("parent", "action", "words", "said"),
    [
        ("train", "gen_trt_engine", (), "jobs submit export --parent"),
        ("gen_trt_engine", "export", (), "cannot read a TensorRT engine"),
        ("gen_trt_engine", "quantize", (), "cannot read a TensorRT engine"),
        ("export", "export", (), "cannot read an ONNX graph"),
        ("export", "quantize", (), "cannot read an ONNX graph"),
        ("quantize", "quantize", (), "cannot read a quantized checkpoint"),
        ("evaluate", "export", (), "makes no model"),
    ],
)
def test_what_the_action_cannot_read_is_refused_when_it_is_submitted(
    parent: str, action: str, words: tuple[str, ...], said: str, store: Store
) -> None:
    first = done(store, parent)
    with pytest.raises(UserError, match=said):
        submit(store, action, *words, parent=first.id)


def test_a_parent_without_a_model_hands_on_what_it_worked_on(store: Store) -> None:
    train = done(store, "train")
    evaluate = done(store, "evaluate", parent=train.id)
    assert values(store, submit(store, "export", parent=evaluate.id))["export.checkpoint"].endswith(BEST)


def test_an_engine_never_stands_beside_a_checkpoint_of_the_spec_file(store: Store, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("evaluate: {checkpoint: old.pth, trt_engine: old.engine}\nresults_dir: old\n")
    engine, train = done(store, "gen_trt_engine"), done(store, "train")
    after_engine = values(store, create_job("evaluate", spec, jobs=store.root, parent=engine.id))
    after_train = values(store, create_job("evaluate", spec, jobs=store.root, parent=train.id))
    assert (after_engine["evaluate.checkpoint"], after_train["evaluate.trt_engine"]) == ("", "")
    assert after_engine["evaluate.trt_engine"].endswith("model.engine")
    assert after_train["results_dir"].endswith("/results")


def test_what_an_override_says_is_not_replaced(store: Store) -> None:
    train = done(store, "train")
    job = submit(store, "evaluate", "evaluate.checkpoint=mine.pth", parent=train.id)
    assert "evaluate.checkpoint" not in values(store, job)
    with prepared(store, store.read(job.id)) as command:
        assert load(command[-1], action="evaluate").spec.evaluate.checkpoint == "mine.pth"


@pytest.mark.parametrize(
    ("choice", "file"),
    [
        ("best", BEST),
        ("latest", "model_epoch_001_step_00004.pth"),
        ("epoch:0", "model_epoch_000_step_00002.pth"),
        ("epoch:1", "model_epoch_001_step_00004.pth"),
        ("step:3", "model_epoch_001_step_00003.pth"),
    ],
)
def test_the_checkpoint_of_a_training_is_chosen(choice: str, file: str, store: Store) -> None:
    train = done(store, "train")
    job = submit(store, "evaluate", parent=train.id, checkpoint=choice)
    assert values(store, job)["evaluate.checkpoint"] == f"{train.id}/results/train/{file}"


@pytest.mark.parametrize(
    ("choice", "said"), [("epoch:7", "those of epoch 0, 1"), ("step:1", "step 2, 3, 4"), ("newest", "best, latest")]
)
def test_a_checkpoint_that_is_not_there_is_told_with_those_that_are(choice: str, said: str, store: Store) -> None:
    train = done(store, "train")
    with pytest.raises(UserError, match=said):
        submit(store, "evaluate", parent=train.id, checkpoint=choice)


def test_names_of_checkpoints_are_those_that_training_writes(tmp_path: Path) -> None:
    assert (BEST, LATEST) == (training.BEST, training.LATEST)
    (tmp_path / training.checkpoint_name(12, 3456)).touch()
    assert chosen(tmp_path, "epoch:12")[0].name == chosen(tmp_path, "step:3456")[0].name
    assert chosen(tmp_path, "best") == (tmp_path / "model_epoch_012_step_03456.pth", "latest, as no best one was kept")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        chosen(tmp_path / "none", "best")


def test_going_on_takes_the_latest_checkpoint_and_no_pretrained_weights(store: Store, tmp_path: Path) -> None:
    weights = tmp_path / "start.pth"
    weights.touch()
    job = submit(store, "train", ptm=str(weights), checkpoint="best")
    assert values(store, job) == {"results_dir": f"{job.id}/results", "train.pretrained_model": str(weights)}
    folder = job.results / "train"
    folder.mkdir(parents=True)
    for name in FILES["train"]:
        (folder / name).touch()
    found = values(store, job)
    assert found["train.resume_training_checkpoint_path"] == f"{job.id}/results/train/model_epoch_001_step_00004.pth"
    assert "train.pretrained_model" not in found


def test_functions_that_no_action_has_by_default_can_be_asked_for(store: Store, tmp_path: Path) -> None:
    weights = tmp_path / "start.pth"
    weights.touch()
    train = done(store, "train")
    tuned = submit(store, "train", parent=train.id, infer={"train.pretrained_model": "parent_model_or_ptm"})
    assert values(store, tuned)["train.pretrained_model"] == f"{train.id}/results/train/{BEST}"
    alone = submit(store, "train", ptm=str(weights), infer={"train.pretrained_model": "parent_model_or_ptm"})
    assert values(store, alone)["train.pretrained_model"] == str(weights)
    again = {"train.resume_training_checkpoint_path": "resume_model_or_ptm", "train.pretrained_model": "ptm"}
    job = submit(store, "train", ptm=str(weights), infer=again)
    assert values(store, job)["train.resume_training_checkpoint_path"] == str(weights)
    seen = submit(store, "inference", parent=train.id, infer={"inference.images_dir": "parent_model_folder"})
    assert values(store, seen)["inference.images_dir"] == f"{train.id}/results/train"
    named = submit(store, "train", infer={"model_name": "mine", "train.num_epochs": 3})
    assert values_of_any(store, named) == {"model_name": "mine", "train.num_epochs": 3}


def values_of_any(store: Store, job: Job) -> dict[str, Any]:
    record = store.read(job.id)
    found = filled(Context(store, record, load_asked(job.folder, record, {})[0]))
    return {key: field.value for key, field in found.items() if field.function == "literal"}


def test_a_quantized_checkpoint_starts_no_training(store: Store) -> None:
    quantized = done(store, "quantize")
    with pytest.raises(UserError, match="train cannot read a quantized checkpoint"):
        submit(store, "train", parent=quantized.id, infer={"train.pretrained_model": "parent_model"})


@pytest.mark.parametrize(
    ("infer", "said"),
    [
        ({"train.pretrained_modle": "ptm"}, "train.pretrained_model"),
        ({"train.pretrained_model": "parent_modle"}, "did you mean parent_model?"),
    ],
)
def test_slips_in_what_is_to_be_filled_in_are_told(infer: dict[str, str], said: str, store: Store) -> None:
    with pytest.raises(UserError, match=said):
        submit(store, "train", infer=infer)


def test_weights_and_results_may_lie_at_addresses(store: Store) -> None:
    weights = f"s3://bucket/start.pth#sha256={'0' * 64}"
    job = submit(store, "train", "results_dir=s3://bucket/runs/", ptm=weights)
    assert values(store, job) == {"results_dir": f"s3://bucket/runs/{job.id}", "train.pretrained_model": weights}
    with pytest.raises(UserError, match="--ptm"):
        values(store, submit(store, "train", ptm="s3://bucket/start.engine"))


@pytest.mark.parametrize("name", ["weights.engine", "missing.pth"])
def test_weights_that_are_none_are_refused(name: str, store: Store, tmp_path: Path) -> None:
    if name.endswith(".engine"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match="--ptm"):
        values(store, submit(store, "train", ptm=str(tmp_path / name)))


@pytest.mark.parametrize(
    ("word", "file"),
    [
        ((), "model.onnx"),
        (("export.format=openvino",), "model.xml"),
        (("export.format=torch",), "model.pt2"),
        (("export.onnx_file=net.onnx",), "net.onnx"),
    ],
)
def test_files_that_are_made_lie_under_the_jobs_own_results(word: tuple[str, ...], file: str, store: Store) -> None:
    train = done(store, "train")
    job = submit(store, "export", *word, parent=train.id)
    assert values(store, job)["export.onnx_file"] == f"{job.id}/results/export/{file}"
    with pytest.raises(UserError, match="the file's name alone"):
        submit(store, "export", "export.onnx_file=elsewhere/net.onnx", parent=train.id)


def test_an_engine_is_made_under_the_jobs_own_results(store: Store) -> None:
    job = submit(store, "gen_trt_engine", parent=done(store, "export").id)
    assert values(store, job)["gen_trt_engine.trt_engine"] == f"{job.id}/results/gen_trt_engine/model.engine"


def test_a_parent_that_gives_nothing_is_warned_of(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    from oneformer.cli import main

    first = done(store, "train")
    assert main(["jobs", "submit", "train", "--parent", first.id, "--jobs", str(store.root), "--dry-run"]) == 0
    assert "takes nothing from" in capsys.readouterr().err


def test_the_key_reaches_the_action_and_no_file_that_stays(store: Store) -> None:
    first = done(store, "train", "encryption_key=hush hush")
    job = submit(store, "evaluate", parent=first.id)  # the parent's key opens the parent's checkpoint
    with prepared(store, store.read(job.id)) as command:
        private = Path(command[-1])
        assert load(private, action="evaluate").spec.encryption_key == "hush hush"
        assert private.stat().st_mode & 0o077 == 0
    assert not private.exists()
    for folder in (first.folder, job.folder):
        told = [p.name for p in folder.rglob("*") if p.is_file() and "hush" in p.read_text()]
        assert told == ["secrets.json"]
    assert store.read(job.id).inferred["encryption_key"]["value"] == "********"


def test_the_spec_that_runs_is_whole_and_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEFORMER_JOBS_GPUS", "4")
    train = done(store, "train")
    job = submit(store, "evaluate", "evaluate.num_gpus=2", "evaluate.task=semantic", parent=train.id)
    with prepared(store, store.read(job.id)) as command:
        assert command[1:5] == ["-P", "-m", "oneformer", "evaluate"]
    spec = load(job.folder / "spec.yaml", action="evaluate").spec
    assert (spec.evaluate.task, spec.evaluate.gpu_ids, spec.evaluate.num_gpus) == ("semantic", [0, 1], 2)
    assert spec.evaluate.checkpoint == str(train.results / "train" / BEST)
    told = store.read(job.id).inferred["evaluate.checkpoint"]
    assert (told["function"], told["job"], told["why"]) == ("parent_model", train.id, "best")


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "served"
    folder.mkdir()

    def handler(*args: Any) -> _Files:
        return _Files(*args, directory=str(folder))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", folder
        server.shutdown()


def test_a_link_is_fetched_into_the_jobs_own_folder(
    store: Store, server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    address, folder = server
    (folder / "backbone.pth").write_bytes(b"weights")
    checksum = hashlib.sha256(b"weights").hexdigest()
    link = {"link": f"{address}/backbone.pth#sha256={checksum}", "destination_path": "/ptm/swin/b.pth"}
    job = submit(store, "train", infer={"train.pretrained_backbone": link})
    found = values(store, job)["train.pretrained_backbone"]
    assert found == f"{job.id}/inputs/ptm/swin/b.pth"
    assert (store.root / found).read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ({"link": "{address}/b.pth", "destination_path": "b.pth"}, "checksum"),
        ({"link": "{address}/b.pth#sha256=" + "0" * 64, "destination_path": "../../b.pth"}, "leaves the job's folder"),
        ({"link": 3}, "a link is written"),
        ({"link": "{address}/b.pth", "to": "b.pth"}, "a link is written"),
    ],
)
def test_a_link_that_is_not_safe_is_refused(
    link: dict[str, Any], said: str, store: Store, server: tuple[str, Path]
) -> None:
    link = {k: v.replace("{address}", server[0]) if isinstance(v, str) else v for k, v in link.items()}
    job = submit(store, "train", infer={"train.pretrained_backbone": link})
    with pytest.raises(UserError, match=said) as caught:
        values(store, job)
    assert caught.value.where == "train.pretrained_backbone"


def test_a_job_of_another_kind_is_no_parent(store: Store) -> None:
    other = shell(store, "true")
    with pytest.raises(UserError, match="makes no model"):
        store.change(other.id, lambda record: record.end(COMPLETE))
        submit(store, "evaluate", parent=other.id)
