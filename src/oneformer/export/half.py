"""An ONNX model in float32 -> the same with weights and products in float16, inputs and outputs as they were.

Only the operators that multiply matrices change; a conversion before and after each leaves everything between them in
float32: norms, softmax, sampling, residual sums. The parts below stay in float32 altogether, as they do in training
with half precision.
"""

from __future__ import annotations

from typing import Any

PRODUCTS = ("MatMul", "Gemm", "Conv")
# The task MLP takes token ids up to 49407, which float16 rounds to others; half a pixel at 1/8 scale is beyond float16.
KEPT = ("task.mlp", ".sampling_offsets", ".attention_weights")


def halve(model: Any) -> Any:
    """The model in half precision, in place. Run `tidy` first: conversions of constants are then computed here."""
    import onnx_ir as ir
    from onnx_ir import convenience

    stored: dict[str, Any] = {}
    for node in list(model.graph):
        if node.op_type not in PRODUCTS or any(part in node.name for part in KEPT):
            continue
        for place, value in enumerate(node.inputs):
            if value is not None:
                node.replace_input_with(place, _halved(value, node, f"{node.name}/half_{place}", stored))
        (result,) = node.outputs
        back = ir.node("Cast", [result], {"to": ir.DataType.FLOAT}, name=f"{node.name}/float")
        back.outputs[0].shape, back.outputs[0].type = result.shape, ir.TensorType(ir.DataType.FLOAT)
        convenience.replace_all_uses_with(result, back.outputs[0])
        back.replace_input_with(0, result)
        result.type = ir.TensorType(ir.DataType.FLOAT16)
        model.graph.insert_after(node, back)
    _drop_unused(model)
    return model


def _halved(value: Any, node: Any, name: str, stored: dict[str, Any]) -> Any:
    """The value in float16: a weight once for all its users, anything else by a conversion before the node."""
    import numpy as np
    import onnx_ir as ir

    if value.const_value is None or value.name not in node.graph.initializers:
        cast = ir.node("Cast", [value], {"to": ir.DataType.FLOAT16}, name=name)
        cast.outputs[0].shape, cast.outputs[0].type = value.shape, ir.TensorType(ir.DataType.FLOAT16)
        node.graph.insert_before(node, cast)
        return cast.outputs[0]
    if value.name not in stored:
        limit = np.finfo(np.float16).max
        numbers = np.clip(value.const_value.numpy(), -limit, limit).astype(np.float16)
        made = ir.Value(name=f"{value.name}_half", const_value=ir.tensor(numbers, name=f"{value.name}_half"))
        made.shape, made.type = value.shape, ir.TensorType(ir.DataType.FLOAT16)
        node.graph.register_initializer(made)
        stored[value.name] = made
    return stored[value.name]


def _drop_unused(model: Any) -> None:
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del model.graph.initializers[name]
