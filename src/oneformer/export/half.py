"""An ONNX model in float32 -> the same with weights and products in 16 bits, inputs and outputs as they were.

Only the operators that multiply matrices change; a conversion before and after each leaves everything between them in
float32: norms, softmax, sampling, residual sums. The parts below stay in float32 altogether, as they do in training
with half precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PRODUCTS = ("MatMul", "Gemm", "Conv")
# The task MLP takes token ids up to 49407, which float16 rounds to others; half a pixel at 1/8 scale is beyond float16.
KEPT = ("task.mlp", ".sampling_offsets", ".attention_weights")
TYPES = {"fp16": "FLOAT16", "bf16": "BFLOAT16"}


def may_change(node: Any) -> bool:
    """Whether a node is a product that does not have to stay in float32."""
    return node.op_type in PRODUCTS and not any(part in node.name for part in KEPT)


def halve(model: Any, *, to: str = "fp16", chosen: Callable[[Any], bool] = may_change) -> Any:
    """The model in half precision, in place. Run `tidy` first: conversions of constants are then computed here.

    Args:
        model: an `onnx_ir.Model`.
        to: `fp16` or `bf16`.
        chosen: whether a node is to change.
    """
    import onnx_ir as ir
    from onnx_ir import convenience

    kind = ir.DataType[TYPES[to]]
    stored: dict[str, Any] = {}
    for node in [node for node in model.graph if chosen(node)]:
        for place, value in enumerate(node.inputs):
            if value is not None:
                node.replace_input_with(place, _halved(value, node, f"{node.name}/half_{place}", stored, kind))
        (result,) = node.outputs
        back = ir.node("Cast", [result], {"to": ir.DataType.FLOAT}, name=f"{node.name}/float")
        back.outputs[0].shape, back.outputs[0].type = result.shape, ir.TensorType(ir.DataType.FLOAT)
        if result.is_graph_output():
            result.name, back.outputs[0].name = f"{result.name}_{to}", result.name
        convenience.replace_all_uses_with(result, back.outputs[0], replace_graph_outputs=True)
        back.replace_input_with(0, result)
        result.type = ir.TensorType(kind)
        model.graph.insert_after(node, back)
    drop_unused(model)
    return model


def _halved(value: Any, node: Any, name: str, stored: dict[str, Any], kind: Any) -> Any:
    """The value in 16 bits: a weight once for all its users, anything else by a conversion before the node."""
    import numpy as np
    import onnx_ir as ir

    if value.const_value is None or value.name not in node.graph.initializers:
        cast = ir.node("Cast", [value], {"to": kind}, name=name)
        cast.outputs[0].shape, cast.outputs[0].type = value.shape, ir.TensorType(kind)
        node.graph.insert_before(node, cast)
        return cast.outputs[0]
    if value.name not in stored:
        numbers = value.const_value.numpy()
        if kind == ir.DataType.FLOAT16:  # bfloat16 reaches as far as float32
            limit = np.finfo(np.float16).max
            numbers = np.clip(numbers, -limit, limit)
        made_name = f"{value.name}_{kind.name.lower()}"
        made = ir.Value(name=made_name, const_value=ir.tensor(numbers.astype(kind.numpy()), name=made_name))
        made.shape, made.type = value.shape, ir.TensorType(kind)
        node.graph.register_initializer(made)
        stored[value.name] = made
    return stored[value.name]


def drop_unused(model: Any) -> None:
    """Take out the weights that nothing uses any more."""
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del model.graph.initializers[name]
