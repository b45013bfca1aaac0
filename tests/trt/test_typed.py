"""Typed graphs: the conversions that are put in, run by ONNX Runtime beside the graph they were made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from oneformer.engines.graph import Ports
from oneformer.trt.precision import precisions
from oneformer.trt.ranges import reaches
from oneformer.trt.typed import activations, apply
from trt.small_graph import about, small_model, small_onnx

PORTS = Ports(
    {"images": (None, 3, 64, 96), "task_tokens": (None, 77)},
    {"pred_logits": (None, 12, 5), "pred_masks": (None, 12, 16, 24)},
)


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def reach_of(model: Any, chosen: dict[str, str], folder: Path) -> dict[str, float]:
    file = small_onnx(folder / "small.onnx")
    return reaches(file, about(), PORTS, activations(model, chosen), [images()], draft=folder / "measured.onnx")


def typed(data_type: str, folder: Path, *rules: str) -> Any:
    model = small_model()
    chosen = precisions(model, data_type, rules)
    return apply(model, chosen, reach_of(model, chosen, folder))


def outputs(model: Any) -> list[Any]:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    tokens = np.array([about().task_tokens["panoptic"]] * 2, np.float32)
    return session.run(["pred_logits", "pred_masks"], {"images": images().numpy(), "task_tokens": tokens})


@pytest.mark.parametrize(("data_type", "apart"), [("fp16", 2e-3), ("int8", 0.03), ("fp8", 0.08)])
def test_it_computes_nearly_the_same(data_type: str, apart: float, tmp_path: Path) -> None:
    for want, got in zip(outputs(small_model()), outputs(typed(data_type, tmp_path)), strict=True):
        assert got.dtype == np.float32 and got.shape == want.shape
        assert 0 < np.abs(got - want).max() < apart * np.abs(want).max()


def test_bfloat16_is_said_and_inputs_and_outputs_stay_float32(tmp_path: Path) -> None:
    model = typed("bf16", tmp_path)
    casts = [node for node in model.graph if node.op_type == "Cast"]
    kinds = {node.attributes["to"].as_int() for node in casts}
    assert kinds == {ir.DataType.BFLOAT16, ir.DataType.FLOAT}
    assert {v.dtype for v in (*model.graph.inputs, *model.graph.outputs)} == {ir.DataType.FLOAT}
    assert [v.name for v in model.graph.outputs] == ["pred_logits", "pred_masks"]


def test_rounding_is_symmetric_and_weights_have_a_scale_for_each_channel(tmp_path: Path) -> None:
    model = typed("int8", tmp_path)
    stored = {v.name: v.const_value.numpy() for v in model.graph.initializers.values()}
    zeros = [v for name, v in stored.items() if name.endswith("_zero")]
    assert zeros and all(v.dtype == np.int8 and not v.any() for v in zeros)
    stem = next(n for n in model.graph if n.name == "stem/Conv").inputs[1].producer()
    weight, scale = (stored[value.name] for value in stem.inputs[:2])
    assert stem.op_type == "DequantizeLinear" and stem.attributes["axis"].as_int() == 0
    assert weight.dtype == np.int8 and scale.shape == (8,)
    assert (np.abs(weight.astype(int)).max(axis=(1, 2, 3)) == 127).all()
    out = next(n for n in model.graph if n.name == "class_embed/MatMul").inputs[1].producer()
    assert out.attributes["axis"].as_int() == 1 and stored[out.inputs[1].name].shape == (5,)


def test_the_original_weights_are_gone_and_the_kept_ones_stay(tmp_path: Path) -> None:
    model = typed("int8", tmp_path)
    names = set(model.graph.initializers)
    assert "stem.weight" not in names and "task.mlp.0.weight" in names
    task = next(n for n in model.graph if n.name == "task.mlp.0/MatMul")
    assert all(value.dtype == ir.DataType.FLOAT for value in task.inputs)


def test_a_value_that_two_products_take_is_rounded_once(tmp_path: Path) -> None:
    model = small_model()
    decoder = next(n for n in model.graph if n.name == "class_embed/MatMul")
    twin = ir.node("MatMul", list(decoder.inputs), name="class_embed/MatMul_2")
    model.graph.insert_after(decoder, twin)
    names = ("class_embed/MatMul", "class_embed/MatMul_2")
    chosen = dict.fromkeys(names, "int8") | {n: "fp32" for n in precisions(model, "fp32", []) if n not in names}
    assert len(activations(model, chosen)) == 1
    apply(model, chosen, {activations(model, chosen)[0]: 3.0})
    assert sum(n.op_type == "QuantizeLinear" for n in model.graph) == 1
    assert sum(n.op_type == "DequantizeLinear" for n in model.graph) == 2


def test_fp8_raises_the_operator_set_to_the_first_that_has_it(tmp_path: Path) -> None:
    assert typed("fp8", tmp_path).graph.opset_imports[""] == 19
    assert typed("int8", tmp_path).graph.opset_imports[""] == 18


def test_ranges_are_the_largest_of_all_photos_and_tasks(tmp_path: Path) -> None:
    file = small_onnx(tmp_path / "small.onnx")
    names = ["images", "norm/LayerNormalization/out"]
    found = reaches(file, about(), PORTS, names, [images(1), 2 * images(1)], draft=tmp_path / "m.onnx")
    assert found["images"] == pytest.approx(float(2 * images(1).abs().max()))
    one = [
        reaches(file, task_only(task), PORTS, names[1:], [images(1)], draft=tmp_path / "m.onnx")[names[1]]
        for task in about().task_tokens
    ]
    assert found[names[1]] == max(one) and len(set(one)) > 1


def task_only(task: str) -> Any:
    """A description whose tasks all are this one."""
    from dataclasses import replace

    return replace(about(), task_tokens=dict.fromkeys(about().task_tokens, about().task_tokens[task]))
