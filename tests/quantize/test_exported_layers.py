"""Layers in few bits in exported files: whole numbers in the graph, and the same results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from oneformer.engines.program_check import TARGET
from oneformer.export.onnx import quiet
from oneformer.export.tidy import tidy
from oneformer.model.quantized import QuantizedWeight, quantized_layer


def weight(shape: tuple[int, ...], activation: str = "") -> QuantizedWeight:
    data = torch.randint(-127, 128, (shape[0], int(np.prod(shape[1:])))).to(torch.int8)
    return QuantizedWeight("int8", data, torch.rand(shape[0], 1) / 100, shape, activation, 0.03 if activation else 0.0)


class Net(nn.Module):
    """Every way in which the network uses a weight: whole, in parts, and in a convolution."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.whole = quantized_layer(nn.Linear(16, 16), weight((16, 16), activation))
        self.parts = quantized_layer(nn.Linear(16, 48), weight((48, 16), activation))
        self.conv = quantized_layer(nn.Conv2d(16, 4, 3), weight((4, 16, 3, 3), activation))

    def forward(self, x: Tensor) -> Tensor:
        x = self.whole(x).relu()
        first, second, _ = self.parts.weight.chunk(3)
        x = nn.functional.linear(x, first) + nn.functional.linear(x, second)
        return self.conv(x.transpose(1, 2).unflatten(2, (8, 8)))


@pytest.mark.parametrize("activation", ["", "int8"])
def test_an_onnx_file_keeps_the_whole_numbers_and_computes_the_same(activation: str, tmp_path: Path) -> None:
    import onnxruntime

    from oneformer.engines.onnxruntime import session_options

    net, x = Net(activation).eval(), torch.randn(1, 64, 16)
    with torch.no_grad():
        expected = net(x).numpy()
        program = torch.export.export(net, (x,), strict=False)
    with quiet(False):
        made = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False)
    assert made is not None
    model = tidy(made.model)
    kinds = {name: value.dtype for name, value in model.graph.initializers.items()}
    assert {kinds[f"{name}.data"] for name in ("whole", "parts", "conv")} == {ir.DataType.INT8}
    operators = [node.op_type for node in model.graph]
    assert operators.count("DequantizeLinear") == 3 + 2 * bool(activation)  # inputs of the two layers that have some
    assert operators.count("QuantizeLinear") == 2 * bool(activation)
    ir.save(model, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", session_options(1))
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_program_of_torch_has_only_operators_that_its_reader_allows() -> None:
    with torch.no_grad():
        program = torch.export.export(Net("").eval(), (torch.randn(1, 64, 16),), strict=False)
    called = [node.target for node in program.graph.nodes if node.op == "call_function"]
    names = [f"torch.ops.{target}" for target in map(str, called) if not target.startswith("<")]
    assert any("dequantize_per_channel" in name for name in names)
    assert [name for name in names if not TARGET.fullmatch(name)] == []
