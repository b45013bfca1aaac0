"""An ONNX model and the precision of each product -> the same model with the conversions that say so.

16 bits are conversions before and after the product (`export/half.py`). 8 bits are a rounding of the activation, with
one scale, and a constant weight, with a scale for each output channel; both symmetric around zero, as TensorRT needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oneformer.export.half import TYPES, drop_unused, halve
from oneformer.trt.precision import QUANTIZED, products

LARGEST = {"int8": 127.0, "fp8": 448.0}  # of int8 without -128, which has no partner, and of float8 e4m3
FORMATS = {"int8": "INT8", "fp8": "FLOAT8E4M3FN"}
OPSET = {"int8": 18, "fp8": 19}  # of the ONNX operator set: the first that the exporter writes, the first with float8


def activations(model: Any, chosen: Mapping[str, str]) -> list[str]:
    """Names of the values whose ranges have to be known."""
    names = (node.inputs[0].name for node in products(model) if chosen[node.name] in QUANTIZED)
    return list(dict.fromkeys(names))


def apply(model: Any, chosen: Mapping[str, str], reach: Mapping[str, float]) -> Any:
    """The model in place, typed.

    Args:
        model: an `onnx_ir.Model` in float32.
        chosen: from `precisions`.
        reach: from `reaches`, for `activations`.
    """
    for precision in QUANTIZED:
        nodes = [node for node in products(model) if chosen.get(node.name) == precision]
        if nodes:
            model.graph.opset_imports[""] = max(model.graph.opset_imports[""], OPSET[precision])
            _quantize(nodes, Format.of(precision), reach)
    drop_unused(model)
    for precision in TYPES:
        names = {name for name, kind in chosen.items() if kind == precision}
        if names:
            halve(model, to=precision, chosen=lambda node, names=names: node.name in names)  # type: ignore[misc]
    return model


@dataclass(frozen=True)
class Format:
    """A number format of 8 bits."""

    name: str
    kind: Any
    """Of `onnx_ir`."""
    largest: float

    @classmethod
    def of(cls, precision: str) -> Format:
        """That of `int8` or `fp8`."""
        import onnx_ir as ir

        return cls(precision, ir.DataType[FORMATS[precision]], LARGEST[precision])

    def scale(self, reach: Any) -> Any:
        """What one step (int8) or the number 1 (fp8) stands for, when values reach this far; 1 where all are zero."""
        return np.where(np.asarray(reach) > 0, np.asarray(reach) / self.largest, 1.0).astype(np.float32)

    def rounded(self, numbers: NDArray[np.float32], scale: NDArray[np.float32]) -> Any:
        """The numbers in this format."""
        scaled = np.clip(numbers / scale, -self.largest, self.largest)
        return (np.rint(scaled) if self.name == "int8" else scaled).astype(self.kind.numpy())


def _quantize(nodes: Iterable[Any], form: Format, reach: Mapping[str, float]) -> None:
    rounded: dict[str, Any] = {}  # name of a value -> the same after rounding, for all products that take it
    for node in nodes:
        value, weight = node.inputs[:2]
        if value.name not in rounded:
            rounded[value.name] = _rounding(node, value, form.scale(reach[value.name]), form)
        name = f"{weight.name} of {node.op_type}"  # their channels lie on different axes
        if name not in rounded:
            rounded[name] = _constant(node, weight, form, axis=_channels(node))
        node.replace_input_with(0, rounded[value.name])
        node.replace_input_with(1, rounded[name])


def _rounding(node: Any, value: Any, scale: Any, form: Format) -> Any:
    """The value, rounded and back, before the node."""
    import onnx_ir as ir

    kinds = {"shape": value.shape, "type": ir.TensorType(ir.DataType.FLOAT)}
    step = _stored(node, f"{value.name}/{form.name}_scale", scale)
    zero = _stored(node, f"{value.name}/{form.name}_zero", np.zeros((), form.kind.numpy()))
    down = ir.node("QuantizeLinear", [value, step, zero], name=f"{value.name}/quantize")
    down.outputs[0].shape, down.outputs[0].type = value.shape, ir.TensorType(form.kind)
    up = ir.node("DequantizeLinear", [down.outputs[0], step, zero], name=f"{value.name}/dequantize")
    up.outputs[0].shape, up.outputs[0].type = kinds["shape"], kinds["type"]
    node.graph.insert_before(node, [down, up])
    return up.outputs[0]


def _constant(node: Any, weight: Any, form: Format, *, axis: int) -> Any:
    """The weight, stored in 8 bits."""
    import onnx_ir as ir

    numbers = weight.const_value.numpy()
    others = tuple(i for i in range(numbers.ndim) if i != axis)
    scale = form.scale(np.abs(numbers).max(axis=others))
    shape = [-1 if i == axis else 1 for i in range(numbers.ndim)]
    label = f"{weight.name}/{form.name}_{node.op_type}"
    stored = _stored(node, label, form.rounded(numbers, scale.reshape(shape)))
    steps = _stored(node, f"{label}_scale", scale)
    zeros = _stored(node, f"{label}_zero", np.zeros(scale.shape, form.kind.numpy()))
    up = ir.node("DequantizeLinear", [stored, steps, zeros], {"axis": axis}, name=f"{label}/dequantize")
    up.outputs[0].shape, up.outputs[0].type = weight.shape, ir.TensorType(ir.DataType.FLOAT)
    node.graph.insert_before(node, up)
    return up.outputs[0]


def _channels(node: Any) -> int:
    """The axis of a product's weight along which its output channels lie."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm" and "transB" in node.attributes:
        return 0 if node.attributes["transB"].as_int() else 1
    return len(node.inputs[1].shape) - 1  # of a matrix (C, D), or of several (..., C, D)


def _stored(node: Any, name: str, numbers: Any) -> Any:
    import onnx_ir as ir

    tensor = ir.tensor(numbers, name=name)
    made = ir.Value(name=name, shape=ir.Shape(numbers.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    node.graph.register_initializer(made)
    return made
