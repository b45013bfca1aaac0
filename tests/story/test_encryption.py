"""The story of `encryption_key`: every file with weights is encrypted, opened with the key, and the key is told nowhere."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch

import oneformer
from exported import export_words
from oneformer.cli import main
from oneformer.runs import encrypt
from oneformer.runs.encrypt import is_encrypted
from oneformer.runs.key import VARIABLE, using
from stand_in import stand_in
from story.tiny_model import write_tiny_checkpoint
from tiny import TinyDataset, write_tiny_dataset
from train.small import small_data, words

KEY = "a long walk by the sea"


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guessing keys costs little here."""
    monkeypatch.setattr(encrypt, "COST", 12)
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    file = tmp_path / "key.yaml"
    file.write_text(f"encryption_key: {KEY}\n", encoding="utf-8")
    return file


def run(*given: str | Path) -> tuple[int, str]:
    """One command -> exit code, and all that it says; the key is no part of that."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(w) for w in given])
    said = out.getvalue() + err.getvalue()
    assert KEY not in said
    return code, said


def told(folder: Path) -> list[Path]:
    """Files that hold the key."""
    return [file for file in folder.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]


def encrypted(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.is_file() and is_encrypted(file))


def test_a_training_is_encrypted_goes_on_and_is_scored_with_the_key_only(spec: Path, tmp_path: Path) -> None:
    data, results = small_data(tmp_path), tmp_path / "results"
    short = ("train.iters_per_epoch=1", "train.ema.enabled=true")
    code, said = run("train", "-e", spec, *words(data, results, *short, "train.stop_at_epoch=1"))
    assert code == 0, said
    folder = results / "train"
    assert encrypted(folder) == sorted(file.name for file in folder.iterdir() if file.suffix == ".pth")
    more = (*short, "train.stop_at_epoch=2", "train.resume_training_checkpoint_path=auto")
    code, said = run("train", *words(data, results, *more))
    assert code == 2 and "encrypted, and no key is given" in said
    code, said = run("train", "-e", spec, *words(data, results, *more))
    assert code == 0 and "going on from" in said, said
    checkpoint = folder / "oneformer_model_best.pth"
    scored = ("evaluate", *words(data, results), f"evaluate.checkpoint={checkpoint}")
    assert run(*scored)[0] == 2
    code, said = run(*scored, "-e", spec)
    assert code == 0, said
    assert not told(results), "the key stands in no file of the run"
    assert "encryption_key: '********'" in (folder / "experiment.yaml").read_text(encoding="utf-8").replace('"', "'")


def test_the_key_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with using(KEY):
        checkpoint = write_tiny_checkpoint(tmp_path / "model.pth")
    code, said = run("checkpoint", "inspect", checkpoint)
    assert code == 2 and "no key is given" in said
    monkeypatch.setenv(VARIABLE, "another one")
    code, said = run("checkpoint", "inspect", checkpoint)
    assert code == 2 and "with another key" in said
    monkeypatch.setenv(VARIABLE, KEY)
    code, said = run("checkpoint", "inspect", checkpoint)
    assert code == 0, said


def test_python_opens_a_file_with_its_key(tmp_path: Path) -> None:
    with using(KEY):
        checkpoint = write_tiny_checkpoint(tmp_path / "model.pth")
    plain = write_tiny_checkpoint(tmp_path / "plain.pth")
    photo = np.zeros((48, 64, 3), np.uint8)
    first, second = (
        oneformer.load(path, key=key, device="cpu", precision="fp32").predict(photo)
        for path, key in ((checkpoint, KEY), (plain, ""))
    )
    assert (first.panoptic_map == second.panoptic_map).all()
    with pytest.raises(oneformer.UserError, match="another key") as caught:
        oneformer.load(checkpoint, key="a walk")
    assert "walk" not in str(caught.value)


def test_a_converted_file_is_plain_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    checkpoint = write_tiny_checkpoint(tmp_path / "model.pth")
    code, said = run("checkpoint", "convert", checkpoint, tmp_path / "plain.pth", "--to", "ours")
    assert code == 0 and is_encrypted(checkpoint), said
    assert "oneformer" in torch.load(tmp_path / "plain.pth", weights_only=True)


def test_a_key_on_a_command_line_is_warned_of(tmp_path: Path) -> None:
    code, said = run("train", "--dry-run", f"encryption_key={KEY}", f"results_dir={tmp_path}")
    assert "everybody on this machine can see a key on a command line" in said and code == 0


def test_a_missing_package_is_told_before_anything_is_computed(spec: Path, tmp_path: Path) -> None:
    with stand_in("cryptography", None):  # type: ignore[arg-type]
        code, said = run("train", "-e", spec, f"results_dir={tmp_path / 'results'}")
    assert code == 2 and 'pip install "oneformer[encryption]"' in said
    assert not (tmp_path / "results").exists()


def test_jobs_of_a_chain_share_the_key_and_none_of_their_files_tells_it_but_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = small_data(tmp_path)
    monkeypatch.setenv(VARIABLE, KEY)
    short = ("train.iters_per_epoch=1", "train.num_epochs=1")
    given = [word for word in words(data, tmp_path, *short) if not word.startswith("results_dir=")]
    first = oneformer.create_job("train", words=given, jobs=tmp_path / "jobs")
    monkeypatch.delenv(VARIABLE)
    assert first.wait(300) == "COMPLETE", first.log
    assert is_encrypted(first.results / "train" / "oneformer_model_best.pth")
    second = oneformer.create_job("evaluate", words=given, parent=first.id, jobs=tmp_path / "jobs")
    assert second.wait(300) == "COMPLETE", second.log
    assert {file.name for file in told(tmp_path / "jobs")} == {"secrets.json"}
    assert all(file.stat().st_mode & 0o077 == 0 for file in told(tmp_path / "jobs"))


def exported(data: TinyDataset, checkpoint: Path, results: Path, spec: Path, format: str) -> Path:
    more = (f"export.format={format}", f"results_dir={results}", "dataset.val.num_workers=0")
    code, said = run("export", "-e", spec, *export_words(data, checkpoint), *more)
    assert code == 0, said
    assert not [file for file in (results / "export").iterdir() if file.name.endswith(".part")]
    return results / "export"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "files"),
    [("onnx", ["model.onnx"]), ("openvino", ["model.bin", "model.xml"]), ("torch", ["model.pt2"])],
)
def test_exports_are_encrypted_proven_and_run(spec: Path, tmp_path: Path, format: str, files: list[str]) -> None:
    data = write_tiny_dataset(tmp_path / "data", images=2)
    with using(KEY):
        checkpoint = write_tiny_checkpoint(tmp_path / "model.pth")
    folder = exported(data, checkpoint, tmp_path / "results", spec, format)
    assert encrypted(folder) == files
    graph = folder / next(name for name in files if not name.endswith(".bin"))
    scored = ("evaluate", *data.overrides("val"), "dataset.val.num_workers=0", f"evaluate.checkpoint={graph}")
    code, said = run(*scored, f"results_dir={tmp_path / 'results'}")
    assert code == 2 and "no key is given" in said
    code, said = run(*scored, "-e", spec, f"results_dir={tmp_path / 'results'}")
    assert code == 0, said
    shown = ("inference", f"inference.checkpoint={graph}", f"inference.images_dir={data.images}")
    code, said = run(*shown, "-e", spec, f"results_dir={tmp_path / 'results'}")
    assert code == 0, said
    assert not told(tmp_path / "results")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "mode", "files"),
    [
        ("torchao", "weight_only_ptq", ["quantized_model_torchao.pth"]),
        ("onnxruntime", "dynamic_ptq", ["quantized_model_onnxruntime.onnx"]),
        ("onnxruntime", "static_ptq", ["quantized_model_onnxruntime.onnx"]),
        ("openvino", "weight_only_ptq", ["quantized_model_openvino.bin", "quantized_model_openvino.xml"]),
    ],
)
def test_quantized_models_are_encrypted(spec: Path, tmp_path: Path, backend: str, mode: str, files: list[str]) -> None:
    data = write_tiny_dataset(tmp_path / "data", images=2)
    with using(KEY):
        checkpoint = write_tiny_checkpoint(tmp_path / "model.pth")
    photos = f"dataset.quant_calibration_dataset.images_dir={data.images}"
    code, said = run(
        "quantize", "-e", spec, *export_words(data, checkpoint), f"quantize.model_path={checkpoint}", photos,
        f"quantize.backend={backend}", f"quantize.mode={mode}", "quantize.compare_images=1", "dataset.val.num_workers=0",
        "quantize.calibration_images=1", f"results_dir={tmp_path / 'results'}",
    )  # fmt: skip
    assert code == 0, said
    assert encrypted(tmp_path / "results" / "quantize") == files
    assert not told(tmp_path / "results")
