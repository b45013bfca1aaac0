"""The story of `oneformer quantize`: every backend that installs here, from the command line to evaluation with it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import io
import json
import shutil
import sys
import tempfile
from atexit import register
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import oneformer
from exported import export_words, tiny_export
from oneformer.cli import main
from oneformer.model.quantized import QuantizedLinear
from story.tiny_model import write_tiny_checkpoint
from tiny import TinyDataset, write_tiny_dataset

# Backend, mode and further words of each quantization that is run -> the file that it has to give.
RUNS = {
    "torchao": ([], "quantized_model_torchao.pth"),
    "torchao int4": (
        ["quantize.layers=[{weights: {dtype: int4}}]"],
        "quantized_model_torchao.pth",
    ),
    "torchao fp8": (
        ["quantize.layers=[{weights: fp8_e4m3fn}]"],
        "quantized_model_torchao.pth",
    ),
    "torchao dynamic": (["quantize.mode=dynamic_ptq"], "quantized_model_torchao.pth"),
    "onnxruntime dynamic": (["quantize.mode=dynamic_ptq"], "quantized_model_onnxruntime.onnx"),
    "onnxruntime static": (["quantize.mode=static_ptq"], "quantized_model_onnxruntime.onnx"),
    "openvino": ([], "quantized_model_openvino.xml"),
    "openvino static": (["quantize.mode=static_ptq"], "quantized_model_openvino.xml"),
    "modelopt.pytorch static": (["quantize.mode=static_ptq"], "quantized_model_modelopt.pytorch.pth"),
}
NEEDS = {"torchao": "torchao", "onnxruntime": "onnxruntime", "openvino": "nncf", "modelopt.pytorch": "modelopt"}
GRAPHS = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class Done:
    """What one run left and said."""

    folder: Path
    file: Path
    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "report.json").read_text(encoding="utf-8"))
        return found


def backend_of(name: str) -> str:
    return name.split(maxsplit=1)[0]


def run(*words: str | Path) -> tuple[int, str, str]:
    """One command -> exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(w) for w in words])
    return code, out.getvalue(), err.getvalue()


@dataclass(frozen=True)
class Place:
    """A tiny data set and a checkpoint for it."""

    data: TinyDataset
    checkpoint: Path

    @property
    def words(self) -> list[str]:
        """A spec for both, with photos to measure on."""
        photos = f"dataset.quant_calibration_dataset.images_dir={self.data.images}"
        return [*export_words(self.data, self.checkpoint), photos, "quantize.compare_images=2",
                "dataset.val.num_workers=0", "quantize.calibration_images=2"]  # fmt: skip


@cache
def place() -> Place:
    root = Path(tempfile.mkdtemp(prefix="oneformer-quantize-"))
    register(shutil.rmtree, root, ignore_errors=True)
    data = write_tiny_dataset(root / "data", images=4)
    return Place(data, write_tiny_checkpoint(root / "train" / "oneformer_model_best.pth"))


@cache
def quantized(name: str) -> Done:
    """One of `RUNS`, run once."""
    backend = backend_of(name)
    if importlib.util.find_spec(NEEDS[backend]) is None:
        pytest.skip(f"{NEEDS[backend]} is not installed")
    words, file = RUNS[name]
    root = Path(tempfile.mkdtemp(prefix="oneformer-quantized-"))
    register(shutil.rmtree, root, ignore_errors=True)
    model = tiny_export().onnx if backend in GRAPHS else place().checkpoint
    code, out, err = run(
        "quantize", "--json", *place().words, f"quantize.model_path={model}", f"quantize.backend={backend}",
        *words, f"results_dir={root}",
    )  # fmt: skip
    return Done(root / "quantize", root / "quantize" / file, code, out, err)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", RUNS)
def test_a_model_is_quantized_and_the_report_says_what_it_cost(name: str) -> None:
    done = quantized(name)
    assert done.code == 0, done.err
    names = {p.name for p in done.folder.iterdir()}
    beside = {done.file.name} if done.file.suffix == ".pth" else {done.file.name, f"{done.file.stem}.json"}
    beside |= {f"{done.file.stem}.bin"} if done.file.suffix == ".xml" else set()
    assert names == {*beside, "report.json", "experiment.yaml", "status.json"}
    report = done.report
    assert json.loads(done.out)["report"] == report
    assert report["backend"] == backend_of(name) and len(report["layers"]) > 15
    assert report["size_bytes"]["after"] < report["size_bytes"]["before"]
    assert set(report["scores"]) == {"mIoU", "PQ", "AP"} and report["images"] == "the first 2 images of dataset.val"
    least = 0 if "int4" in name else 0.5  # the weights are random: four bits can move the class of a whole image
    assert least <= report["agreement"]["pixels"] <= 1 and min(report["seconds_per_image"].values()) > 0
    assert 0 < report["outputs"]["pred_masks"]["mean"] < 0.1 * report["outputs"]["pred_masks"]["largest_value"]
    if "int4" not in name:
        assert not set(report["kept_in_float"]) & set(report["layers"]) and report["kept_in_float"]
        assert not any(".sampling_offsets" in layer or layer.startswith("task.") for layer in report["layers"])
    assert ("semantic, instance, panoptic" in report["calibration"]) == ("static" in name)


def evaluated(file: Path, folder: Path) -> dict[str, Any]:
    """What `oneformer evaluate` finds with a file."""
    words = [*place().words, f"evaluate.results_dir={folder}", "evaluate.report_images=0"]
    code, _, err = run("evaluate", *words, f"evaluate.checkpoint={file}", "dataset.augmentation.test_min_size=64")
    assert code == 0, err
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return found


@cache
def baseline(file: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return evaluated(file, Path(folder))


@pytest.mark.parametrize("name", RUNS)
def test_evaluate_takes_the_file_and_finds_what_the_original_finds(name: str, tmp_path: Path) -> None:
    found = evaluated(quantized(name).file, tmp_path)
    before = baseline(tiny_export().onnx if backend_of(name) in GRAPHS else place().checkpoint)
    far = 15 if "int4" in name else 3  # the weights are random: small changes move much
    assert found["semantic"]["mIoU"] == pytest.approx(before["semantic"]["mIoU"], abs=far)
    assert found["panoptic"]["all"]["PQ"] is not None and found["instance"]["AP"] is not None


@pytest.mark.parametrize("name", ["torchao", "onnxruntime static", "openvino static"])
def test_inference_and_load_take_the_file(name: str, tmp_path: Path) -> None:
    done = quantized(name)
    code, _, err = run(
        "inference", *place().words, f"results_dir={tmp_path}", f"inference.checkpoint={done.file}",
        f"inference.images_dir={place().data.images}", "inference.mode=all", "inference.overlay=false",
    )  # fmt: skip
    assert code == 0, err
    assert len(list((tmp_path / "inference" / "panoptic").glob("*.png"))) == 4
    assert oneformer.load(done.file, device="cpu").labels.num_classes == 4


def test_the_file_is_plain_tensors_and_the_original_stays() -> None:
    before = digest(place().checkpoint)
    done = quantized("torchao")
    assert digest(place().checkpoint) == before
    content = torch.load(done.file, weights_only=True)
    assert not [n for n in content["state_dict"] if n.startswith("model.text.")]
    assert content["quantized"]["about"]["backend"] == "torchao"
    entry = next(iter(content["quantized"]["layers"].values()))
    assert entry["data"].dtype == torch.uint8 and entry["scale"].dtype == torch.float32
    engine: Any = oneformer.load(done.file, device="cpu").engine
    assert sum(isinstance(m, QuantizedLinear) for m in engine.model.modules()) > 20
    assert "layers quantized" in repr(engine)


def test_a_quantized_checkpoint_is_inspected_and_converted_as_any() -> None:
    done = quantized("torchao")
    code, out, err = run("checkpoint", "inspect", done.file)
    assert code == 0 and "quantized: int8 weights in" in out, err
    target = done.folder.parent / "float.pth"
    code, _, err = run("checkpoint", "convert", done.file, target, "--to", "ours")
    assert code == 0, err
    one, two = (oneformer.load(f, device="cpu") for f in (done.file, target))
    images = torch.randn(1, 3, 64, 96)
    a, b = (m.outputs(images, "panoptic").mask_logits for m in (one, two))
    assert torch.allclose(a, b, atol=1e-4)


def test_the_scan_ranks_layers_and_proposes_some(tmp_path: Path) -> None:
    words = [*place().words, f"quantize.model_path={place().checkpoint}", f"results_dir={tmp_path}"]
    words.append("quantize.layers=[{module_name: 'decoder.layers.*'}, {module_name: 'backbone.layers.0.*'}]")
    code, out, err = run("quantize", *words, "quantize.sensitivity=true")
    assert code == 0, err
    found = json.loads((tmp_path / "quantize" / "report.json").read_text())["sensitivity"]
    errors = [row["error"] for row in found["layers"]]
    assert errors == sorted(errors, reverse=True) and errors[0] > 0
    names = found["proposed_skip_names"]
    assert names == [row["name"] for row in found["layers"]][: len(names)] and 0 < len(names) < len(errors) / 4
    assert found["error"]["without_proposed"] < found["error"]["all_rounded"]
    assert f"quantize.skip_names=[{', '.join(names)}]" in out
    code, _, err = run("quantize", *words, f"quantize.skip_names={json.dumps(names)}", "quantize.overwrite=true")
    assert code == 0, err
    assert set(names) <= set(json.loads((tmp_path / "quantize" / "report.json").read_text())["kept_in_float"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("quantize.model_path=", "no model is named"),
        ("quantize.model_path=/no/such.pth", "does not exist"),
        ("quantize.model_path={onnx}", "torchao does not take .onnx files"),
        ("quantize.model_path={quantized}", "quantized already"),
        ("quantize.mode=static_ptq", "torchao has no mode static_ptq"),
        ("quantize.backend=tensorflow", "quantize.backend"),
        ("quantize.skip_names=[encoder.*]", "fits no layer"),
        ("quantize.layers=[{{module_name: Linear,weights: int3}}]", "no number format 'int3'"),
        ("quantize.backend_kwargs={{colour: red}}", "colour"),
        ("quantize.device=trt", "does not run on trt"),
        (
            "quantize.backend=onnxruntime quantize.mode=static_ptq quantize.model_path={onnx}"
            " dataset.quant_calibration_dataset.images_dir={tmp}/none",
            "calibration folder does not exist",
        ),
        (
            "quantize.backend=onnxruntime quantize.mode=static_ptq quantize.model_path={onnx}"
            " dataset.quant_calibration_dataset.images_dir={tmp}/empty",
            "holds no image",
        ),
        (
            "quantize.backend=onnxruntime quantize.mode=static_ptq quantize.model_path={onnx}"
            " dataset.quant_calibration_dataset.images_dir=",
            "none are named",
        ),
        (
            "quantize.backend=onnxruntime quantize.mode=dynamic_ptq quantize.model_path={onnx} quantize.sensitivity=true",
            "name its checkpoint",
        ),
        ("quantize.results_dir={tmp}/file/below", "cannot be"),
    ],
)
def test_wrong_requests_are_refused_in_one_message_and_leave_nothing(words: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    named = {"onnx": tiny_export().onnx, "tmp": tmp_path}
    if "{quantized}" in words:
        named["quantized"] = quantized("torchao").file
    parts = [word.format(**named) for word in words.split(" ") if word]
    parts = words.format(**named).split(" ") if "module_name" not in words else [words.format(**named)]
    base = [*place().words, f"quantize.model_path={place().checkpoint}", f"results_dir={tmp_path / 'results'}"]
    code, out, err = run("quantize", *base, *parts)
    assert code == 2 and said in err and out == "", err
    assert err.count("error") == 1 or "[1/" in err
    assert not [p for p in tmp_path.rglob("*") if ".part" in p.name or p.name.startswith("quantized")]


@pytest.mark.parametrize(
    ("package", "backend", "extra"),
    [("torchao", "torchao", "quantize"), ("nncf", "openvino", "quantize"), ("modelopt", "modelopt.pytorch", "modelopt"),
     ("onnxruntime.quantization", "onnxruntime", "quantize")],
)  # fmt: skip
def test_a_missing_extra_is_one_line_with_the_command(
    package: str, backend: str, extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package and "." in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    mode = "dynamic_ptq" if backend == "onnxruntime" else "weight_only_ptq"
    words = [f"quantize.backend={backend}", f"quantize.mode={mode}", f"quantize.model_path={place().checkpoint}"]
    code, _, err = run("quantize", *place().words, *words, f"results_dir={tmp_path}")
    assert code == 2 and f'pip install "oneformer[{extra}]"' in err, err
    assert not (tmp_path / "quantize").exists()


def test_a_file_in_the_way_stays(tmp_path: Path) -> None:
    target = tmp_path / "quantize" / "quantized_model_torchao.pth"
    target.parent.mkdir()
    target.write_bytes(b"mine")
    words = [*place().words, f"quantize.model_path={place().checkpoint}", f"results_dir={tmp_path}"]
    code, _, err = run("quantize", *words)
    assert code == 2 and "quantize.overwrite=true" in err and target.read_bytes() == b"mine"
    assert run("quantize", *words, "quantize.overwrite=true")[0] == 0 and target.read_bytes() != b"mine"


def test_a_full_disk_leaves_no_file_under_the_final_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(content: Any, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("oneformer.quantize.network.write_checkpoint", full)
    words = [*place().words, f"quantize.model_path={place().checkpoint}", f"results_dir={tmp_path}"]
    code, _, err = run("quantize", *words)
    assert code == 1 and "No space left on device" in err
    assert {p.name for p in (tmp_path / "quantize").iterdir()} == {"experiment.yaml", "status.json"}


def broken(kind: str, path: Path) -> Path:
    """A copy of the quantized checkpoint with something wrong in it."""
    good = quantized("torchao").file
    if kind == "cut short":
        path.write_bytes(good.read_bytes()[:-2000])
        return path
    content = torch.load(good, weights_only=True)
    layers = content["quantized"]["layers"]
    name = next(iter(layers))
    if kind == "another model":
        layers["backbone.layers.9.attn.qkv"] = layers.pop(name)
    elif kind == "another shape":
        layers[name] = layers["decoder.layers.0.ffn.linear1"]
    elif kind == "numbers missing":
        layers[name]["data"] = layers[name]["data"][:-1]
    elif kind == "no scale":
        del layers[name]["scale"]
    elif kind == "newer":
        content["quantized"]["format"] = 9
    elif kind == "not finite":
        layers[name]["scale"] = layers[name]["scale"] * float("inf")
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "kind", ["cut short", "another model", "another shape", "numbers missing", "no scale", "newer", "not finite"]
)
def test_a_broken_quantized_file_is_refused_with_one_message(kind: str, tmp_path: Path) -> None:
    file = broken(kind, tmp_path / "broken.pth")
    code, _, err = run(
        "evaluate", *place().words, f"evaluate.checkpoint={file}", f"results_dir={tmp_path}", "evaluate.accelerator=cpu"
    )
    assert code == 2 and str(file) in err and "Traceback" not in err, err


def test_a_dry_run_names_the_files_and_writes_nothing(tmp_path: Path) -> None:
    words = [*place().words, f"quantize.model_path={tiny_export().onnx}", f"results_dir={tmp_path}"]
    code, out, err = run("quantize", "--dry-run", *words, "quantize.backend=openvino", "quantize.mode=static_ptq")
    assert code == 0, err
    for name in ("quantized_model_openvino.xml", "quantized_model_openvino.bin", "report.json"):
        assert f"would write  {tmp_path / 'quantize' / name}" in out
    assert not (tmp_path / "quantize").exists()
