"""The published Swin-T network as TensorRT-RTX engines: exported, built, described and read again, without a GPU."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import onnx_ir as ir
import pytest
import torch
from PIL import Image

from export.test_full_networks import CLASSES, many_labels
from oneformer.actions import export, gen_trt_engine
from oneformer.engines.open import open_engine
from oneformer.engines.tensorrt_file import read_description
from oneformer.errors import UserError
from oneformer.export.images import generated
from oneformer.spec.load import load_spec
from story.tiny_model import write_random_checkpoint

pytest.importorskip("tensorrt_rtx")
pytestmark = pytest.mark.slow

SIDE, QUERIES = 640, 150
DATA_TYPES = ("fp32", "fp16", "bf16", "int8", "fp8")
MIB = 2**20
# Of the engine, at most: its 47 million weights in the number format, and what the library adds (15 MiB and code).
LARGEST = {"fp32": 340 * MIB, "fp16": 260 * MIB, "bf16": 260 * MIB, "int8": 260 * MIB, "fp8": 260 * MIB}


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export at 640x640 with an open batch. Random weights have no sure segments, so how they agree is accepted."""
    folder = tmp_path_factory.mktemp("full")
    words = ["preset=swin_t", f"model.sem_seg_head.num_classes={CLASSES}"]
    checkpoint = write_random_checkpoint(folder / "model.pth", *words, labels=many_labels())
    words += [f"export.checkpoint={checkpoint}", f"results_dir={folder}", "export.parity_images=1"]
    done = export.run(load_spec(None, [*words, "export.accept_parity=true"], action="export"))
    assert isinstance(done, export.Exported)
    for index in range(2):
        Image.fromarray(generated((480, 640), seed=index)).save(folder / f"{index}.png")
    return done.files[0]


def test_the_graph_has_nothing_that_tensorrt_cannot_build(onnx: Path) -> None:
    graph = ir.load(onnx).graph
    assert not {node.op_type for node in graph} & {"NonZero", "ScatterND", "If", "Loop"}
    values = [value for node in graph for value in node.outputs]
    assert not any(value.dtype == ir.DataType.DOUBLE for value in (*values, *graph.initializers.values()))


@pytest.mark.parametrize("data_type", DATA_TYPES)
def test_it_is_built_and_read_again(data_type: str, onnx: Path, tmp_path: Path) -> None:
    key = "gen_trt_engine"
    words = [
        f"{key}.onnx_file={onnx}", f"results_dir={tmp_path}", f"{key}.tensorrt.workspace_size=4096",
        f"{key}.tensorrt.data_type={data_type}", f"{key}.tensorrt.opt_batch_size=2", f"{key}.tensorrt.max_batch_size=7",
        f"{key}.tensorrt.calibration_dir={onnx.parent.parent}", f"{key}.library=tensorrt_rtx",
    ]  # fmt: skip
    words += [f"{key}.tensorrt.gpus=[8.9,12.0]"] if data_type == "fp8" else []
    nothing = gen_trt_engine.Proof("", why="random weights find no sure segments")
    with mock.patch.object(gen_trt_engine, "prove", lambda *_, **__: nothing):
        done = gen_trt_engine.run(load_spec(None, words, action=key))
    assert isinstance(done, gen_trt_engine.EngineBuilt)
    engine, facts = done.files[0], done.facts
    print(
        f"{data_type}: {facts['layers']} layers, {facts['bytes'] / MIB:.1f} MiB, {facts['seconds']:.1f} s, {facts['products']}"
    )
    assert engine.read_bytes()[:4] == b"vtrt" and MIB * 60 < facts["bytes"] < LARGEST[data_type]
    assert facts["layers"] > 5000 and facts["products"].get(data_type, 0) > 50

    about, built = read_description(engine)
    assert about.labels == many_labels() and about.precision == data_type and built is not None
    assert built.inputs == {"images": (None, 3, SIDE, SIDE), "task_tokens": (None, 77)}
    assert built.outputs == {
        "pred_logits": (None, QUERIES, CLASSES + 1), "pred_masks": (None, QUERIES, SIDE // 4, SIDE // 4)
    }  # fmt: skip
    assert [sizes[0] for sizes in built.profile["images"]] == [1, 2, 7]
    assert built.profile["task_tokens"] == ((1, 77), (2, 77), (7, 77))
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="NVIDIA GPUs"):
            open_engine(engine)
