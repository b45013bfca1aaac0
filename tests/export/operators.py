"""An ONNX file -> what is in it that ONNX Runtime, OpenVINO or TensorRT's parser could not take."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto

# Results whose size depends on values, and writing into places: TensorRT runs the former on the host, if at all.
REFUSED = {"NonZero", "Compress", "Unique", "Loop", "If", "Scan", "ScatterND", "ScatterElements", "SequenceAt"}
WIDE = {TensorProto.DOUBLE: "float64", TensorProto.UINT64: "uint64", TensorProto.COMPLEX64: "complex64"}


def unfit(path: Path) -> list[str]:
    """Operators, types and domains, in words; empty when all is well."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False))
    graph = model.graph
    found = sorted({node.op_type for node in graph.node} & REFUSED)
    found += sorted({entry.domain for entry in model.opset_import} - {""})
    values = [*graph.input, *graph.output, *graph.value_info]
    types = {value.type.tensor_type.elem_type for value in values} | {tensor.data_type for tensor in graph.initializer}
    types |= {a.i for node in graph.node if node.op_type == "Cast" for a in node.attribute if a.name == "to"}
    types |= {a.t.data_type for node in graph.node if node.op_type == "Constant" for a in node.attribute}
    return found + sorted(WIDE[t] for t in types & WIDE.keys())
