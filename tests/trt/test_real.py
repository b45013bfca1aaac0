"""TensorRT-RTX itself: it builds without a GPU, so parser and builder are proven here, and nothing is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch

from exported import SIZE, tiny_export
from oneformer.engines.open import open_engine
from oneformer.engines.tensorrt_library import find_library
from oneformer.errors import UserError, WorkError
from oneformer.spec.engine import GenTrtEngineSpec, TensorrtSpec
from oneformer.trt.build import Engine, Wish, build
from oneformer.trt.graph import read_graph
from oneformer.trt.prepare import prepare
from oneformer.trt.profile import profile
from trt.small_graph import small_model, small_onnx

pytest.importorskip("tensorrt_rtx")
MAGIC = b"vtrt"  # of every TensorRT-RTX engine


def built(file: Path, folder: Path, *, gpus: tuple[str, ...] = (), **limits: Any) -> Engine:
    graph = read_graph(file)
    section = GenTrtEngineSpec(tensorrt=TensorrtSpec(**limits))
    photos = [torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))]
    done = prepare(graph, section.tensorrt, lambda: photos, folder=folder)
    sizes = profile(graph.ports, graph.about, section)
    return build(find_library("tensorrt_rtx", needed_for="a test"), done.file, Wish(sizes, 256, gpus=gpus))


@pytest.mark.parametrize("data_type", ["fp32", "fp16", "bf16", "int8", "fp8"])
def test_it_builds_every_precision(data_type: str, tmp_path: Path) -> None:
    gpus = ("8.9",) if data_type == "fp8" else ()
    done = built(small_onnx(tmp_path / "m.onnx"), tmp_path, gpus=gpus, data_type=data_type, max_batch_size=4)
    assert bytes(done.plan)[:4] == MAGIC and memoryview(done.plan).nbytes > 100_000
    assert done.inputs == {"images": (None, 3, 64, 96), "task_tokens": (None, 77)}
    assert set(done.outputs) == {"pred_logits", "pred_masks"} and done.layers > 20


def test_mixed_precisions_build(tmp_path: Path) -> None:
    rules = ["decoder.layers.0.out:fp32", "stem:bf16", "masks:fp32"]
    assert built(small_onnx(tmp_path / "m.onnx"), tmp_path, data_type="int8", layers_precision=rules).layers > 20


def test_open_and_fixed_sizes_build(tmp_path: Path) -> None:
    assert (
        built(small_onnx(tmp_path / "a.onnx", size=None), tmp_path, max_size=[192, 128]).inputs["images"][2:]
        == (None,) * 2
    )
    assert built(small_onnx(tmp_path / "b.onnx", batch=3), tmp_path).inputs["images"][0] == 3


def test_a_profile_that_the_graph_does_not_have_is_refused_by_the_library(tmp_path: Path) -> None:
    file = small_onnx(tmp_path / "m.onnx")
    sizes = {"images": ((1, 3, 32, 32),) * 3, "task_tokens": ((1, 77),) * 3}
    with pytest.raises(WorkError, match="TensorRT-RTX"):
        build(find_library("tensorrt_rtx", needed_for="a test"), file, Wish(sizes, 256))


def test_an_operator_it_does_not_know_is_named(tmp_path: Path) -> None:
    model = small_model()
    conv = next(n for n in model.graph if n.op_type == "Conv")
    odd = ir.node("Det", [conv.outputs[0]], name="decoder/Det")
    model.graph.insert_after(conv, odd)
    ir.save(model, tmp_path / "m.onnx")
    with pytest.raises(WorkError, match=r"does not understand the graph: (.|\n)*decoder/Det"):
        built(tmp_path / "m.onnx", tmp_path)


def test_the_exported_network_is_built(tmp_path: Path) -> None:
    graph = read_graph(tiny_export().onnx)
    kinds = {node.op_type for node in graph.model.graph}
    assert not kinds & {"NonZero", "ScatterND", "SequenceAt", "If", "Loop"}
    values = [value for node in graph.model.graph for value in node.outputs]
    assert not any(value.dtype == ir.DataType.DOUBLE for value in (*values, *graph.model.graph.initializers.values()))
    done = built(tiny_export().onnx, tmp_path, data_type="fp16", max_batch_size=4)
    assert done.inputs["images"] == (None, 3, *SIZE) and done.outputs["pred_masks"] == (None, 12, 16, 24)
    assert done.layers > 1000


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without a GPU")
def test_running_one_needs_a_gpu_and_says_so(tmp_path: Path) -> None:
    from oneformer.engines.tensorrt_file import Built, beside, description
    from oneformer.runs.atomic import write_json
    from trt.small_graph import about

    file = tmp_path / "m.engine"
    done = built(small_onnx(tmp_path / "m.onnx"), tmp_path)
    file.write_bytes(done.plan)
    told = Built("tensorrt_rtx", "1.7", file.stat().st_size, done.inputs, done.outputs, {})
    write_json(beside(file), description(about(), told))
    with pytest.raises(UserError, match=r"NVIDIA GPUs(.|\n)*ONNX file") as said:
        open_engine(file)
    assert said.value.exit_code == 2
