"""A graph that cuts a tensor into a sequence of parts -> the same with one plain operator."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from oneformer.export.onnx import plain_splits


def test_parts_of_open_sizes_come_from_one_split() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "n", 2])
    sizes = helper.make_tensor_value_info("sizes", TensorProto.INT64, [3])
    out = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, [1, None, 2]) for i in range(3)]
    nodes = [helper.make_node("SplitToSequence", ["x", "sizes"], ["parts"], axis=1)]
    nodes += [helper.make_node("SequenceAt", ["parts", f"i{i}"], [f"at{i}"]) for i in range(3)]
    nodes += [helper.make_node("Neg", [f"at{i}"], [f"y{i}"]) for i in range(3)]
    places = [numpy_helper.from_array(np.array(i), f"i{i}") for i in range(3)]
    graph = helper.make_graph(nodes, "g", [x, sizes], out, places)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    feed = {"x": np.arange(12, dtype=np.float32).reshape(1, 6, 2), "sizes": np.array([1, 2, 3])}
    before = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feed)
    model = ir.from_proto(proto)
    plain_splits(model)
    assert [node.op_type for node in model.graph] == ["Split", "Neg", "Neg", "Neg"]
    after = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, feed)
    assert [part.shape[1] for part in after] == [1, 2, 3]
    for mine, yours in zip(before, after, strict=True):
        np.testing.assert_array_equal(mine, yours)


def test_parts_of_one_size_are_left_to_tidying() -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 6, 2]) for name in "xy")
    nodes = [helper.make_node("SplitToSequence", ["x", "two"], ["parts"], axis=1)]
    nodes += [helper.make_node("SequenceAt", ["parts", "last"], ["y"])]
    places = [numpy_helper.from_array(np.array(2), name) for name in ("two", "last")]
    graph = helper.make_graph(nodes, "g", [x], [y], places)
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))
    plain_splits(model)
    assert [node.op_type for node in model.graph] == ["SplitToSequence", "SequenceAt"]
