"""An ONNX model -> the same with constants computed, copies merged and unused nodes gone."""

from __future__ import annotations

from typing import Any

from oneformer.export.onnx import quiet

# Elements of a result that is still computed here. Larger ones (position encodings of whole maps) are cheap to compute
# when the file is loaded and would double its size.
LARGEST = 2**20


def tidy(model: Any) -> Any:
    """The tidied model, in place."""
    from onnx_ir.passes import common
    from onnxscript import optimizer

    with quiet(False):
        optimizer.fold_constants(model, input_size_limit=LARGEST, output_size_limit=LARGEST)
        drop_casts(model)
        for step in (
            common.RemoveUnusedNodesPass(),
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            common.DeduplicateInitializersPass(),
            common.CommonSubexpressionEliminationPass(),
            common.RemoveUnusedNodesPass(),
            common.RemoveUnusedOpsetsPass(),
        ):
            step(model)
    return model


def drop_casts(model: Any) -> None:
    """Take out conversions from float32 to float32, which the exporter puts around group normalisation."""
    import onnx_ir as ir

    for node in model.graph.all_nodes():
        if node.op_type != "CastLike":
            continue
        kinds = {value.dtype for value in node.inputs if value is not None} - {None}
        if kinds == {ir.DataType.FLOAT}:  # the network knows one float type, told or not
            ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])
