"""Nodes of exported graphs as layers, and the photos that pass through them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oneformer.data.task import TASKS
from oneformer.engines.base import Options
from oneformer.engines.onnxruntime import OnnxRuntimeEngine
from oneformer.errors import DataError, SpecError
from oneformer.quantize.calibrate import calibration
from oneformer.quantize.graph import Node, layers_of
from oneformer.quantize.sensitivity import Row, worst
from oneformer.spec.load import load_spec
from tiny import write_tiny_dataset
from trt.small_graph import small_onnx

NODES = [
    Node("backbone.proj/Conv", "Conv", True),
    Node("decoder/MatMul", "MatMul", True),  # computed from weights of parts below it
    Node("decoder.layers.0.attn/MatMul", "MatMul", False),
    Node("decoder.head.0/MatMul", "MatMul", True),
    Node("decoder.head.0/MatMul_2", "MatMul", True),
    Node("decoder.head.0/Add", "Add", True),
    Node("task.mlp/Gemm", "Gemm", True),
]


def test_nodes_with_a_weight_are_layers_under_the_names_of_pytorch() -> None:
    found = layers_of(NODES, ("MatMul", "Gemm", "Conv"))
    assert {name: layer.nodes for name, layer in found.items()} == {
        "backbone.proj": ("backbone.proj/Conv",),
        "decoder.head.0": ("decoder.head.0/MatMul", "decoder.head.0/MatMul_2"),
        "task.mlp": ("task.mlp/Gemm",),
    }
    head = found["decoder.head.0"].told
    assert head.kind == "Linear" and found["backbone.proj"].told.kind == "Conv2d"
    assert all(head.is_meant(p) for p in ("decoder.*", "model.decoder.*", "Linear", "MatMul", "*/MatMul_2"))
    assert set(layers_of(NODES, ("MatMul",))) == {"decoder.head.0"}


def test_the_layers_that_hold_half_of_the_squared_error_are_proposed_but_never_many() -> None:
    errors = [10.0, 3.0, 2.0, *[1.0] * 17]
    rows = [Row(str(i), error) for i, error in enumerate(errors)]
    assert worst(rows) == ["0"]
    assert worst([Row(str(i), 1.0) for i in range(20)]) == ["0", "1", "2"]
    assert worst([Row("only", 0.0)]) == []


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> OnnxRuntimeEngine:
    path = small_onnx(tmp_path_factory.mktemp("graph") / "model.onnx", batch=2, size=(64, 96))
    return OnnxRuntimeEngine.open(path, Options(device="cpu", threads=1))


def test_every_photo_passes_with_every_task(engine: OnnxRuntimeEngine, tmp_path: Path) -> None:
    photos = write_tiny_dataset(tmp_path, images=7).images
    words = [f"dataset.quant_calibration_dataset.images_dir={photos}", "quantize.calibration_images=3"]
    found = calibration(load_spec(None, words, action="quantize"), engine)
    assert [file.stem for file in found.files] == ["scene_000", "scene_003", "scene_006"]
    feeds = list(found.feeds(engine))
    assert len(feeds) == 3 * len(TASKS) and "3 images" in str(found)
    assert {(f["images"].shape, f["images"].dtype.name) for f in feeds} == {((2, 3, 64, 96), "float32")}
    assert len({f["task_tokens"].tobytes() for f in feeds}) == len(TASKS)
    assert np.array_equal(feeds[0]["images"], feeds[1]["images"])
    assert not np.array_equal(feeds[0]["images"], feeds[3]["images"])


def test_without_a_folder_the_training_images_are_taken(engine: OnnxRuntimeEngine, tmp_path: Path) -> None:
    data = write_tiny_dataset(tmp_path, images=3)
    found = calibration(load_spec(None, data.overrides("train"), action="quantize"), engine)
    assert len(found.files) == 3 and found.source == "dataset.train"


def test_missing_empty_and_unnamed_folders_are_told_apart(engine: OnnxRuntimeEngine, tmp_path: Path) -> None:
    key = "dataset.quant_calibration_dataset.images_dir"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="does not exist"):
        calibration(load_spec(None, [f"{key}={tmp_path / 'none'}"], action="quantize"), engine)
    with pytest.raises(DataError, match="holds no image"):
        calibration(load_spec(None, [f"{key}={tmp_path / 'empty'}"], action="quantize"), engine)
    with pytest.raises(SpecError, match="none are named") as told:
        calibration(load_spec(None, [], action="quantize"), engine)
    assert told.value.where == key
