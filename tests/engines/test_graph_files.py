"""Exported files through the engines that open them: any batch, open sizes, bytes, halves; and files that are wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from oneformer.engines.graph import GraphEngine
from oneformer.engines.open import open_engine
from oneformer.errors import CheckpointError, UserError
from oneformer.export import onnx as onnx_room
from oneformer.export.images import ready
from predict.fake import scene
from story.tiny_model import write_tiny_checkpoint
from two_layers import SIZE, TwoLayers, export_two_layers

ENGINES = {
    "onnxruntime": ("export.format=onnx",),
    "openvino": ("export.format=openvino",),
    "program": ("export.format=torch",),
}


@pytest.fixture(scope="module")
def export(request: pytest.FixtureRequest) -> Callable[..., Path]:
    """Words of a spec -> the graph that they give; each is made once, nobody changes it."""
    root = Path(mkdtemp(prefix="oneformer-engines-"))
    request.addfinalizer(lambda: shutil.rmtree(root, ignore_errors=True))
    checkpoint = write_tiny_checkpoint(root / "model.pth")

    @cache
    def made(*words: str) -> Path:
        folder = root / str(made.cache_info().currsize)
        folder.mkdir()
        shutil.copy(checkpoint, folder)
        return export_two_layers(folder, *words)[0]

    return made


def opened(path: Path, engine: str = "auto", **options: Any) -> GraphEngine:
    found = open_engine(path, engine, precision=options.pop("precision", "fp32"), device="cpu", **options)
    assert isinstance(found, GraphEngine)
    return found


def wanted(engine: GraphEngine, images: torch.Tensor, task: str = "panoptic") -> list[torch.Tensor]:
    model = TwoLayers(engine.info.model).eval()
    with torch.no_grad():
        return list(model(images, engine.task_tokens[task].expand(len(images), -1)))


def check(engine: GraphEngine, images: torch.Tensor) -> None:
    found = engine.outputs(images, ["panoptic", "semantic"])
    for task, outputs in found.items():
        for mine, yours in zip(wanted(engine, images, task), (outputs.class_logits, outputs.mask_logits), strict=True):
            torch.testing.assert_close(yours, mine, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ENGINES)
def test_an_open_batch_takes_any_number_of_images(name: str, export: Callable[..., Path]) -> None:
    engine = opened(export(*ENGINES[name]), threads=1)
    for count in (1, 3, 7):
        check(engine, torch.randn(count, 3, *SIZE))


@pytest.mark.parametrize("name", ENGINES)
def test_a_fixed_batch_takes_any_number_too(name: str, export: Callable[..., Path]) -> None:
    engine = opened(export(*ENGINES[name], "export.batch_size=2"))
    assert engine.ports.inputs["images"] == (2, 3, *SIZE)
    for count in (1, 2, 5):
        check(engine, torch.randn(count, 3, *SIZE))


@pytest.mark.parametrize("name", ENGINES)
def test_open_sizes_take_multiples_of_32(name: str, export: Callable[..., Path]) -> None:
    engine = opened(export(*ENGINES[name], "export.dynamic_size=true"))
    check(engine, torch.randn(1, 3, 96, 160))
    with pytest.raises(UserError, match="multiples of 32, these are 64 and 100"):
        engine.outputs(torch.randn(1, 3, 64, 100), ["semantic"])


def test_a_fixed_size_takes_no_other(export: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="height 64 and width 96, these have 96 and 64"):
        opened(export(*ENGINES["onnxruntime"])).outputs(torch.randn(1, 3, 96, 64), ["semantic"])


@pytest.mark.parametrize("name", ENGINES)
def test_bytes_go_in_where_normalisation_is_inside(name: str, export: Callable[..., Path]) -> None:
    engine = opened(export(*ENGINES[name], "export.embed_preprocess=true"))
    assert engine.ports.inputs["images"] == (None, *SIZE, 3)
    images = engine.seen(ready(scene((50, 60)), engine.info, name="").images)
    outputs = engine.outputs(images, ["panoptic"])["panoptic"]
    classes, masks = wanted(engine, images)
    torch.testing.assert_close(outputs.class_logits, classes, atol=1e-4, rtol=1e-4)
    large = torch.nn.functional.interpolate(masks, size=SIZE, mode="bilinear", align_corners=False)
    torch.testing.assert_close(outputs.mask_logits, large, atol=1e-4, rtol=1e-4)


def test_half_the_numbers_take_half_the_room_and_say_so(export: Callable[..., Path]) -> None:
    graph = export(*ENGINES["onnxruntime"], "export.half=true")
    engine = opened(graph, precision="auto")
    kinds = {tensor.data_type for tensor in onnx.load(graph).graph.initializer}
    assert engine.precision == "fp16" and TensorProto.FLOAT16 in kinds
    images = torch.randn(2, 3, *SIZE)
    torch.testing.assert_close(
        engine.outputs(images, ["panoptic"])["panoptic"].mask_logits, wanted(engine, images)[1], atol=0.02, rtol=0.01
    )
    whole, halves = (export(*ENGINES["openvino"], *more).with_suffix(".bin") for more in ((), ("export.half=true",)))
    assert halves.stat().st_size < 0.6 * whole.stat().st_size


def test_weights_of_more_than_two_gib_lie_beside_the_graph(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(onnx_room, "ONE_FILE", 0)  # every file is too large
    write_tiny_checkpoint(tmp_path / "model.pth")
    graph, data, about = export_two_layers(tmp_path)
    assert (graph.name, data.name, about.name) == ("model.onnx", "model.onnx.data", "model.json")
    check(opened(graph), torch.randn(1, 3, *SIZE))
    data.unlink()
    for engine in ("onnxruntime", "openvino"):
        with pytest.raises(CheckpointError, match="cannot read it"):
            opened(graph, engine)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_wrong_files_are_told_apart(engine: str, export: Callable[..., Path], tmp_path: Path) -> None:
    graph = export(*ENGINES["onnxruntime"])
    bare = onnx.load(graph)
    del bare.metadata_props[:]
    told = json.loads(graph.with_suffix(".json").read_text())

    def fault(name: str, model: Any, about: Any = None) -> str:
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        if about is not None:
            path.with_suffix(".json").write_text(about if isinstance(about, str) else json.dumps(about))
        with pytest.raises(CheckpointError) as caught:
            opened(path, engine)
        return str(caught.value)

    one_more = {**told, "classes": [*told["classes"], {**told["classes"][0], "category_id": 77, "name": "more"}]}
    assert "this is the graph of another model: it takes x [1, 3]" in fault("other", another_model())
    assert "says nothing of its classes" in fault("bare", bare)
    assert "the graph has 4 classes, its description has 5" in fault("classes", bare, one_more)
    assert "it is no JSON object" in fault("list", bare, [1])
    assert "it lacks 'task_tokens'" in fault("lacking", bare, {k: v for k, v in told.items() if k != "task_tokens"})
    assert "broken" in fault("text", bare, "{")
    assert "this version reads format 1" in fault("later", bare, {**told, "format": 2})
    assert "cannot read it" in fault("cut", graph.read_bytes()[:5000])
    path = tmp_path / "beside.onnx"
    onnx.save(bare, path)
    shutil.copy(graph.with_suffix(".json"), path.with_suffix(".json"))
    check(opened(path, engine), torch.randn(1, 3, *SIZE))


def another_model() -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_an_openvino_model_needs_its_weights(export: Callable[..., Path], tmp_path: Path) -> None:
    graph = export(*ENGINES["openvino"])
    copy = tmp_path / "model.xml"
    shutil.copy(graph, copy)
    with pytest.raises(CheckpointError, match=r"model\.xml and model\.bin belong together"):
        opened(copy)
    copy.with_suffix(".bin").write_bytes(graph.with_suffix(".bin").read_bytes()[:100])
    with pytest.raises(CheckpointError, match="OpenVINO cannot read it: Incorrect weights"):
        opened(copy)


def test_what_a_file_cannot_do_is_refused(export: Callable[..., Path]) -> None:
    for name, precision, said in (
        ("onnxruntime", "bf16", "the file computes in fp32"),
        ("openvino", "fp16", "OpenVINO has no precision fp16"),
        ("program", "bf16", "a program computes in fp32"),
    ):
        with pytest.raises(UserError, match=said):
            opened(export(*ENGINES[name]), precision=precision)
    with pytest.raises(UserError, match="a program of torch.export cannot be run by openvino"):
        opened(export(*ENGINES["program"]), "openvino")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_part_for_gpus_without_a_gpu_runs_on_the_processor_and_says_so(
    export: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # onnxruntime-gpu lists its part for GPUs on every machine, and falls back by itself.
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    file = export(*ENGINES["onnxruntime"])
    assert open_engine(file, "onnxruntime", device="auto").device == "cpu"
    with pytest.raises(UserError, match="ONNX Runtime cannot use cuda:0 here: it finds no GPU"):
        open_engine(file, "onnxruntime", device="cuda:0")
