"""The story of `oneformer gen_trt_engine`, and of `evaluate` and `inference` with what it leaves.

The library is the stand-in of `trt/fake_library.py`, the GPU is the CPU; the tests at the end use TensorRT-RTX itself.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import oneformer
from oneformer.actions import gen_trt_engine
from oneformer.cli import main
from oneformer.engines.onnxruntime import OnnxRuntimeEngine
from oneformer.engines.tensorrt import TensorrtEngine
from oneformer.runs import encrypt
from oneformer.runs.atomic import write_atomic
from oneformer.runs.key import VARIABLE
from story.tiny_model import TINY
from tiny import TinyDataset, write_tiny_dataset
from trt.fake_library import fake_library, on_the_cpu
from trt.small_graph import described, small_onnx

FILES = {"model.engine", "model.engine.json", "build.json", "parity.json", "experiment.yaml", "status.json"}


def run(*words: str | Path) -> tuple[int, str, str]:
    """One command -> exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(w) for w in words])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", fake_library())


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with a GPU, as far as building and comparing ask."""
    monkeypatch.setattr(gen_trt_engine, "has_gpu", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with on_the_cpu():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    return write_tiny_dataset(tmp_path_factory.mktemp("data"), images=5)


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    return small_onnx(tmp_path / "export" / "model.onnx")


@pytest.fixture
def words(tmp_path: Path, onnx: Path, data: TinyDataset) -> list[str]:
    return [
        *TINY, f"results_dir={tmp_path}", f"gen_trt_engine.onnx_file={onnx}", "gen_trt_engine.parity_images=2",
        f"gen_trt_engine.parity_images_dir={data.images}", "gen_trt_engine.tensorrt.max_batch_size=2",
    ]  # fmt: skip


def built(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "gen_trt_engine" / "build.json").read_text())
    return found


def proof(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "gen_trt_engine" / "parity.json").read_text())
    return found


def test_the_files_of_the_contract_are_written(words: list[str], tmp_path: Path) -> None:
    code, out, err = run("gen_trt_engine", *words)
    assert code == 0, err
    assert {p.name for p in (tmp_path / "gen_trt_engine").iterdir()} == FILES
    facts = built(tmp_path)
    assert (facts["library"], facts["data_type"], facts["products"]) == ("tensorrt", "fp16", {"fp32": 1, "fp16": 6})
    assert facts["profile"]["images"] == [[1, 3, 64, 96], [1, 3, 64, 96], [2, 3, 64, 96]]
    assert facts["bytes"] == (tmp_path / "gen_trt_engine" / "model.engine").stat().st_size
    assert "1 in fp32, 6 in fp16" in out and "2 x 3 x 64 x 96" in out
    lines = [json.loads(line) for line in (tmp_path / "gen_trt_engine" / "status.json").read_text().splitlines()]
    assert (lines[0]["status"], lines[-1]["status"]) == ("STARTED", "SUCCESS")


@pytest.mark.parametrize("data_type", ["fp16", "int8"])
def test_with_a_key_graph_and_engine_are_encrypted(
    words: list[str], onnx: Path, data: TinyDataset, tmp_path: Path, gpu: None, monkeypatch: pytest.MonkeyPatch,
    data_type: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(encrypt, "COST", 12)
    plain = onnx.read_bytes()
    write_atomic(onnx, lambda file: file.write(plain), key="a long walk")
    more = (f"gen_trt_engine.tensorrt.data_type={data_type}", f"gen_trt_engine.tensorrt.calibration_dir={data.images}")
    code, _, err = run("gen_trt_engine", *words, *more)
    assert code == 2 and "encrypted, and no key is given" in err
    monkeypatch.setenv(VARIABLE, "a long walk")
    code, _, err = run("gen_trt_engine", *words, *more)
    assert code == 0, err
    engine = tmp_path / "gen_trt_engine" / "model.engine"
    assert encrypt.is_encrypted(engine) and proof(tmp_path)["compared"] == "engine"
    assert built(tmp_path)["bytes"] == encrypt.plain_size(engine)
    assert {p.name for p in engine.parent.iterdir()} == FILES
    monkeypatch.setenv(VARIABLE, "another walk")
    with pytest.raises(oneformer.UserError, match="another key"):
        oneformer.load(engine)


def test_without_a_gpu_the_engine_s_graph_is_compared_and_that_is_said(words: list[str], tmp_path: Path) -> None:
    _, out, _ = run("gen_trt_engine", *words)
    found = proof(tmp_path)
    assert found["compared"] == "graph" and found["passed"] and "no GPU" in found["not_the_engine_because"]
    assert 0 < found["outputs"]["pred_masks"]["largest"] < 0.1
    assert "the engine's graph, not the engine: there is no GPU here" in out


def test_a_float32_engine_is_not_compared_without_a_gpu(words: list[str], tmp_path: Path) -> None:
    code, out, _ = run("gen_trt_engine", *words, "gen_trt_engine.tensorrt.data_type=fp32")
    assert code == 0 and "parity: not compared, there is no GPU here" in out
    assert proof(tmp_path)["compared"] == "" and proof(tmp_path)["passed"] is None


def test_with_a_gpu_the_engine_itself_is_compared(words: list[str], tmp_path: Path, gpu: None) -> None:
    code, out, err = run("gen_trt_engine", *words, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["parity"] == proof(tmp_path) and proof(tmp_path)["compared"] == built(tmp_path)["compared"] == "engine"


@pytest.mark.parametrize("on_gpu", [True, False])
def test_an_engine_that_finds_something_else_is_not_kept(
    words: list[str], tmp_path: Path, gpu: None, monkeypatch: pytest.MonkeyPatch, on_gpu: bool
) -> None:
    kind = TensorrtEngine if on_gpu else OnnxRuntimeEngine
    original = kind.run

    def other(engine: Any, images: Any, task_tokens: Any) -> Any:
        classes, masks = original(engine, images, task_tokens)
        return (classes.roll(1, -1), -masks) if engine.precision == "fp16" else (classes, masks)

    monkeypatch.setattr(kind, "run", other)
    monkeypatch.setattr(gen_trt_engine, "has_gpu", lambda: on_gpu)
    code, _, err = run("gen_trt_engine", *words)
    assert code == 1 and "does not find the same" in err and "accept_parity=true" in err
    assert {p.name for p in (tmp_path / "gen_trt_engine").iterdir()} == {
        "parity.json",
        "experiment.yaml",
        "status.json",
    }
    code, out, _ = run("gen_trt_engine", *words, "gen_trt_engine.accept_parity=true")
    assert code == 0 and "NOT the same, accepted" in out
    assert (tmp_path / "gen_trt_engine" / "model.engine").is_file()


def test_int8_measures_ranges_on_the_photos_that_are_named(words: list[str], data: TinyDataset, tmp_path: Path) -> None:
    more = ["gen_trt_engine.tensorrt.data_type=int8", "gen_trt_engine.accept_parity=true"]
    code, _, err = run("gen_trt_engine", *words, *more)
    assert code == 2 and "gen_trt_engine.tensorrt.calibration_dir" in err
    code, _, err = run(
        "gen_trt_engine", *words, *more, f"gen_trt_engine.tensorrt.calibration_dir={data.images}",
        "gen_trt_engine.tensorrt.calibration_images=3",
    )  # fmt: skip
    assert code == 0 and "measuring on 3 photos" in err, err
    assert built(tmp_path)["products"] == {"fp32": 1, "fp16": 4, "int8": 2}


def test_a_graph_that_is_quantized_already_is_taken_as_it_is(words: list[str], tmp_path: Path) -> None:
    import onnx_ir as ir

    from oneformer.engines.about import KEY
    from oneformer.trt.precision import precisions
    from oneformer.trt.typed import activations, apply
    from trt.small_graph import small_model

    model = small_model()
    chosen = precisions(model, "int8", [])
    apply(model, chosen, dict.fromkeys(activations(model, chosen), 4.0))
    model.metadata_props[KEY] = described(precision="int8").to_json()
    ir.save(model, tmp_path / "export" / "model.onnx")
    code, _, err = run("gen_trt_engine", *words, "gen_trt_engine.tensorrt.data_type=fp16")
    assert code == 0 and "have no effect" in err, err
    assert (built(tmp_path)["data_type"], built(tmp_path)["products"]) == ("int8", {})


def test_sequences_that_tensorrt_does_not_know_are_tidied_away(words: list[str], tmp_path: Path) -> None:
    import onnx_ir as ir

    from trt.small_graph import small_model

    model = small_model()
    conv = next(n for n in model.graph if n.op_type == "Conv")
    length = ir.Value(
        name="four", const_value=ir.tensor(np.array(4), name="four"), type=ir.TensorType(ir.DataType.INT64)
    )
    first = ir.Value(
        name="first", const_value=ir.tensor(np.array(0), name="first"), type=ir.TensorType(ir.DataType.INT64)
    )
    for value in (length, first):
        model.graph.register_initializer(value)
    parts = ir.node("SplitToSequence", [conv.outputs[0], length], {"axis": 1}, name="parts")
    one = ir.node("SequenceAt", [parts.outputs[0], first], name="one")
    model.graph.insert_after(conv, [parts, one])
    ir.save(model, tmp_path / "export" / "model.onnx")
    code, _, err = run("gen_trt_engine", *words, "gen_trt_engine.tensorrt.data_type=fp32")
    assert code == 0, err


@pytest.mark.parametrize("size", [None, (96, 64)])
def test_open_sizes_are_compared_at_the_size_the_engine_is_tuned_for(
    size: tuple[int, int] | None, words: list[str], tmp_path: Path, gpu: None
) -> None:
    small_onnx(tmp_path / "export" / "model.onnx", size=None)
    more = (
        [f"gen_trt_engine.tensorrt.{name}=[{size[0]},{size[1]}]" for name in ("min_size", "max_size")] if size else []
    )
    code, _, err = run("gen_trt_engine", *words, *more)
    assert code == 0, err
    assert proof(tmp_path)["compared"] == "engine"
    wide, high = size or (64, 64)  # test_min_size
    assert built(tmp_path)["profile"]["images"][1] == [1, 3, high, wide]


def test_a_missing_folder_of_images_to_compare_on_is_told(words: list[str], tmp_path: Path) -> None:
    code, _, err = run("gen_trt_engine", *words, f"gen_trt_engine.parity_images_dir={tmp_path / 'none'}")
    assert code == 2 and "none" in err and not list(tmp_path.rglob("*.engine"))


def test_a_missing_folder_of_photos_to_measure_on_is_told(words: list[str], tmp_path: Path) -> None:
    more = ["gen_trt_engine.tensorrt.data_type=int8", f"gen_trt_engine.tensorrt.calibration_dir={tmp_path / 'none'}"]
    code, _, err = run("gen_trt_engine", *words, *more)
    assert code == 2 and "none" in err and not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("gen_trt_engine.onnx_file=", "no ONNX file is named"),
        ("gen_trt_engine.onnx_file=/no/such.onnx", "does not exist"),
        ("gen_trt_engine.onnx_file={tmp}/best.pth", "oneformer export export.checkpoint="),
        ("gen_trt_engine.onnx_file={tmp}/garbage.onnx", "cannot be read"),
        ("gen_trt_engine.onnx_file={tmp}/other.onnx", "the graph of another model"),
        ("gen_trt_engine.onnx_file={tmp}/silent.onnx", "says nothing of its classes"),
        ("gen_trt_engine.onnx_file={tmp}/half.onnx gen_trt_engine.tensorrt.data_type=fp32", "in fp16 already"),
        ("gen_trt_engine.trt_engine={tmp}/m.onnx", "ends in .engine or .plan"),
        ("gen_trt_engine.trt_engine={tmp}/folder.engine", "a folder in the place"),
        ("gen_trt_engine.trt_engine={tmp}/taken.engine", "gen_trt_engine.overwrite=true"),
        ("gen_trt_engine.tensorrt.layers_precision=[nothing:fp32]", "no product of the graph is named"),
        ("gen_trt_engine.tensorrt.data_type=fp4", "data_type"),
        ("gen_trt_engine.tensorrt.min_size=[32]", "[width, height]"),
        ("gen_trt_engine.tensorrt.gpus=[ampere]", "8.9"),
        ("gen_trt_engine.tensorrt.max_size=[64,64]", "[96, 64] only"),
        ("gen_trt_engine.tensorrt.min_batch_size=4", "must not fall"),
        ("gen_trt_engine.library=tensorrt_rtx", "TensorRT-RTX, which is not installed"),
    ],
)
def test_wrong_requests_are_refused_and_leave_no_engine(
    word: str, said: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx_ir as ir

    from trt.small_graph import small_model

    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    (tmp_path / "best.pth").write_bytes(b"x")
    (tmp_path / "garbage.onnx").write_bytes(b"\x08\xff not an ONNX file")
    (tmp_path / "folder.engine").mkdir()
    (tmp_path / "taken.engine").write_bytes(b"mine")
    other, silent, half = small_model(), small_model(), small_model(said=described(precision="fp16"))
    other.graph.inputs[0].name = "pixels"
    silent.metadata_props.clear()
    for name, model in (("other", other), ("silent", silent), ("half", half)):
        ir.save(model, tmp_path / f"{name}.onnx")
    code, out, err = run("gen_trt_engine", *words, *word.format(tmp=tmp_path).split())
    assert code == 2 and said in err and out == "", err
    assert {p.name for p in tmp_path.rglob("*.engine")} == {"folder.engine", "taken.engine"}
    assert (tmp_path / "taken.engine").read_bytes() == b"mine" and not list(tmp_path.rglob("*.part"))


def test_a_full_disk_leaves_nothing_under_the_final_name(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(bytes(content)[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    code, _, err = run("gen_trt_engine", *words)
    assert code == 1 and "No space left on device" in err and "model.engine" in err
    assert {p.name for p in (tmp_path / "gen_trt_engine").iterdir()} == {"experiment.yaml", "status.json"}


def test_a_place_that_cannot_be_written_is_named(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    code, _, err = run("gen_trt_engine", *words, f"gen_trt_engine.trt_engine={tmp_path / 'file' / 'model.engine'}")
    assert code in (1, 2) and "cannot be written" in err and "model.engine" in err


def test_overwriting_replaces_the_engine(words: list[str], tmp_path: Path) -> None:
    target = tmp_path / "mine.engine"
    target.write_bytes(b"mine")
    code, _, err = run("gen_trt_engine", *words, f"gen_trt_engine.trt_engine={target}", "gen_trt_engine.overwrite=true")
    assert code == 0 and target.read_bytes() != b"mine", err


def test_a_dry_run_names_the_files_and_writes_nothing(words: list[str], tmp_path: Path) -> None:
    code, out, err = run("gen_trt_engine", "--dry-run", *words, f"gen_trt_engine.timing_cache={tmp_path / 'times'}")
    assert code == 0, err
    for name in ("model.engine", "model.engine.json", "build.json", "parity.json"):
        assert f"would write  {tmp_path / 'gen_trt_engine' / name}" in out
    assert f"would write  {tmp_path / 'times'}" in out and not (tmp_path / "gen_trt_engine").exists()


def results(action: str, *words: str, file: str, folder: Path, data: TinyDataset) -> Any:
    """Scores of an evaluation, or the label maps and JSON of an inference."""
    more = [
        *data.overrides("val"), f"{action}.results_dir={folder}", f"{action}.batch_size=2", file,
        "dataset.val.num_workers=0", "dataset.augmentation.test_min_size=64", f"inference.images_dir={data.images}",
        "inference.mode=all", "evaluate.report_images=1",
    ]  # fmt: skip
    code, _, err = run(action, *TINY, *words, *more)
    assert code == 0, err
    if action == "evaluate":
        return json.loads((folder / "metrics.json").read_text())
    maps = {p.relative_to(folder): np.asarray(Image.open(p)).tolist() for p in sorted(folder.rglob("*.png"))}
    return maps, json.loads((folder / "instances.json").read_text())


@pytest.mark.parametrize("action", ["evaluate", "inference"])
def test_an_engine_is_run_on_all_tasks_with_a_partial_last_batch(
    action: str, words: list[str], tmp_path: Path, data: TinyDataset, onnx: Path
) -> None:
    assert run("gen_trt_engine", *words, "gen_trt_engine.tensorrt.data_type=fp32")[0] == 0
    engine = tmp_path / "gen_trt_engine" / "model.engine"
    found = {}
    with on_the_cpu():
        for key, file in (("checkpoint", onnx), ("checkpoint", engine), ("trt_engine", engine)):
            word, folder = f"{action}.{key}={file}", tmp_path / f"{key}{file.suffix}"
            found[folder.name] = results(action, file=word, folder=folder, data=data)
    first, *others = found.values()
    assert len(found) == 3 and all(other == first for other in others)
    names = {"evaluate": {"semantic", "panoptic", "instance"}, "inference": None}[action]
    assert names is None or set(first) == names


def test_the_engine_takes_the_place_of_the_checkpoint_and_that_is_said(
    words: list[str], tmp_path: Path, data: TinyDataset
) -> None:
    assert run("gen_trt_engine", *words, "gen_trt_engine.tensorrt.data_type=fp32")[0] == 0
    both = [f"evaluate.trt_engine={tmp_path / 'gen_trt_engine' / 'model.engine'}", "evaluate.checkpoint=best.pth"]
    more = [*TINY, *data.overrides("val"), f"results_dir={tmp_path}", "evaluate.report_images=0"]
    with on_the_cpu():
        code, out, err = run("evaluate", *more, *both)
    assert code == 0 and "evaluate.trt_engine takes the place of evaluate.checkpoint" in err, err
    assert "checkpoint: model.engine" in out


@pytest.mark.parametrize("action", ["evaluate", "inference"])
def test_tao_writes_the_same_file_into_both_keys(action: str, tmp_path: Path, data: TinyDataset, onnx: Path) -> None:
    same = [f"{action}.trt_engine={onnx}"]
    assert results(action, *same, file=f"{action}.checkpoint={onnx}", folder=tmp_path / "both", data=data)
    code, _, err = run(action, *TINY, *data.overrides("val"), *same, f"inference.images_dir={data.images}")
    assert code == 2 and "is no TensorRT engine" in err and f"{action}.checkpoint" in err


@pytest.mark.parametrize("action", ["evaluate", "inference"])
def test_without_a_gpu_or_library_one_line_says_what_is_missing(
    action: str, words: list[str], tmp_path: Path, data: TinyDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("gen_trt_engine", *words)[0] == 0
    engine = tmp_path / "gen_trt_engine" / "model.engine"
    more = [*TINY, *data.overrides("val"), f"inference.images_dir={data.images}", f"{action}.trt_engine={engine}"]
    code, _, err = run(action, *more, f"results_dir={tmp_path / 'a'}")
    assert code == 2 and "run on NVIDIA GPUs" in err and "ONNX file" in err
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    code, _, err = run(action, *more, f"results_dir={tmp_path / 'b'}")
    assert code == 2 and "needs TensorRT, which is not installed" in err and "pip install" in err


def test_load_opens_an_engine_and_scales_photos_into_its_size(words: list[str], tmp_path: Path) -> None:
    assert run("gen_trt_engine", *words)[0] == 0
    with on_the_cpu():
        model = oneformer.load(tmp_path / "gen_trt_engine" / "model.engine")
        result = model.predict(np.full((37, 80, 3), 90, np.uint8), task=("semantic", "panoptic", "instance"))
    assert result.semantic_map.shape == result.panoptic_map.shape == (37, 80)


def test_tensorrt_rtx_builds_the_small_graph(words: list[str], tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    code, out, err = run(
        "gen_trt_engine", *words, "gen_trt_engine.library=tensorrt_rtx", "gen_trt_engine.tensorrt.gpus=[8.9,12.0]"
    )
    assert code == 0, err
    assert built(tmp_path)["gpus"] == ["8.9", "12.0"] and "compute capability 8.9, 12.0" in out
    assert (tmp_path / "gen_trt_engine" / "model.engine").read_bytes()[:4] == b"vtrt"
