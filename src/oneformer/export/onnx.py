"""A traced program -> an ONNX model with plain names, its description inside, and no trace of where it was made."""

from __future__ import annotations

import ast
import contextlib
import logging
import math
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.nn.attention import SDPBackend, sdpa_kernel

from oneformer.engines.about import INPUTS, KEY, OUTPUTS, About
from oneformer.engines.onnxruntime import first_line
from oneformer.errors import MissingExtra, SpecError, WorkError
from oneformer.export.graph import Shape
from oneformer.runs.by_name import by_name
from oneformer.runs.key import writing_key

LOWEST, HIGHEST = 18, 23  # operator sets that torch's exporter writes
CLOSED = -1e4  # logit of a place that must not be attended to: exp of it is 0 in float32, and it fits into float16
ONE_FILE = 2**31 - 2**24  # bytes of weights; protobuf ends at 2 GiB, and the graph itself needs some
NOISY = ("torch.onnx", "onnxscript", "onnx_ir")


def check_installed() -> None:
    """Raise MissingExtra when ONNX files cannot be written here."""
    try:
        import onnx
        import onnxscript

        assert onnx and onnxscript
    except ImportError as error:
        raise MissingExtra(str(error.name), extra="onnx", needed_for="oneformer export") from error


def convert(program: ExportedProgram, shape: Shape, about: About, *, opset: int, verbose: bool = False) -> Any:
    """The program as an `onnx_ir.Model`, as the exporter writes it: correct, with much to tidy.

    Args:
        program: from `trace`.
        shape: what is open in it.
        about: goes into the file's properties.
        opset: version of the operator set; below 18 the file has 18.

    Raises:
        SpecError: an operator set that the exporter does not write.
        WorkError: a part of the network has no form in ONNX.
    """
    if opset > HIGHEST:
        raise SpecError(f"operator set {opset} is not written", where="export.opset_version", hint=f"at most {HIGHEST}")
    try:
        with quiet(verbose), sdpa_kernel(SDPBackend.MATH):
            made = torch.onnx.export(
                program,
                dynamo=True,
                input_names=list(INPUTS),
                output_names=list(OUTPUTS),
                opset_version=max(opset, LOWEST),
                custom_translation_table={torch.ops.aten.scaled_dot_product_attention.default: attention},
                optimize=False,  # tidy.py does it
                verbose=verbose,
                external_data=False,
            )
    except Exception as error:  # torch has many, and their texts are pages long
        raise WorkError(
            f"torch cannot write the network as ONNX: {first_line(error)}",
            where=f"operator set {max(opset, LOWEST)}",
            hint="--traceback shows torch's whole message; export.format=torch needs no ONNX",
        ) from error
    assert made is not None
    model = made.model
    name_sizes(model, shape, embed=about.embed_preprocess)
    name_nodes(model)
    model.metadata_props.clear()
    model.metadata_props[KEY] = about.to_json()
    model.producer_name = "oneformer"
    model.graph.name = "oneformer"
    return model


def attention(query: Any, key: Any, value: Any, attn_mask: Any = None, *, scale: float | None = None) -> Any:
    """Attention in ONNX operators, queries (B, heads, Q, C), keys and values (B, heads, N, C).

    The exporter's own form adds minus infinity where a mask is closed and then looks for rows without any open place.
    The network has no such row (`Decoder.open_places`), and infinities spoil the ranges that quantization measures.
    """
    import onnx_ir as ir
    from onnxscript import opset18 as op

    factor = op.Constant(value_float=scale if scale is not None else 1 / math.sqrt(query.shape[-1]))
    scores = op.MatMul(op.Mul(query, factor), op.Transpose(key, perm=[0, 1, 3, 2]))  # (B, heads, Q, N)
    if attn_mask is not None and attn_mask.dtype == ir.DataType.BOOL:
        scores = op.Where(attn_mask, scores, op.Constant(value_float=CLOSED))
    elif attn_mask is not None:
        scores = op.Add(scores, attn_mask)
    return op.MatMul(op.Softmax(scores, axis=-1), value)


def plain_splits(model: Any) -> None:
    """Cut tensors into parts of open sizes by one `Split`, which TensorRT reads, in the place of sequences."""
    import onnx_ir as ir

    for node in [node for node in model.graph if node.op_type == "SplitToSequence"]:
        sizes = ir.convenience.get_const_tensor(node.inputs[1])
        if sizes is not None and len(sizes.shape) == 0:  # one size for all parts: sizes are known, and tidying does it
            continue
        readers: dict[int, Any] = {}
        for use in node.outputs[0].uses():
            place = ir.convenience.get_const_tensor(use.node.inputs[1])
            assert use.node.op_type == "SequenceAt" and place is not None
            readers[int(place.numpy())] = use.node
        attributes = {"axis": node.attributes["axis"].value}
        split = ir.node("Split", node.inputs, attributes, num_outputs=max(readers) + 1, name=f"{node.name}_plain")
        split.metadata_props.update(node.metadata_props)
        model.graph.insert_before(node, split)
        for index, reader in readers.items():
            part = split.outputs[index]
            part.shape, part.type = reader.outputs[0].shape, reader.outputs[0].type
            ir.convenience.replace_all_uses_with(reader.outputs[0], part)
        model.graph.remove([*readers.values(), node], safe=True)


def name_sizes(model: Any, shape: Shape, *, embed: bool) -> None:
    """Give the open sizes of inputs and outputs names that people understand."""
    import onnx_ir as ir

    batch: int | str = shape.batch or "batch"
    height, width = ("height", "width") if shape.open_size else (shape.height, shape.width)
    rest = [height, width, 3] if embed else [3, height, width]
    images, tokens = model.graph.inputs
    logits, masks = model.graph.outputs
    images.shape = ir.Shape([batch, *rest])
    tokens.shape = ir.Shape([batch, tokens.shape[1]])
    logits.shape = ir.Shape([batch, *logits.shape[1:]])
    if shape.open_size:
        sides = [height, width] if embed else ["mask_height", "mask_width"]
        masks.shape = ir.Shape([batch, masks.shape[1], *sides])
    else:
        masks.shape = ir.Shape([batch, *masks.shape[1:]])


def name_nodes(model: Any) -> None:
    """Name every node after the part of the network it comes from (`decoder.layers.0.cross_attn.out/MatMul`).

    The exporter keeps the part, and the file names and lines of the source, in the node's properties; they go.
    """
    seen: Counter[str] = Counter()
    for node in model.graph.all_nodes():
        scopes = [str(s) for s in ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))]
        part = next((s for s in reversed(scopes[:-1]) if s), "").removeprefix("model.")
        name = f"{part}/{node.op_type}" if part else node.op_type
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"
        node.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()


def write(model: Any, path: Path) -> list[Path]:
    """Write the model; more than 2 GiB of weights go into `<name>.data` beside it. Returns the files.

    Raises:
        WorkError: it is to be encrypted and does not fit into one file.
    """
    import onnx_ir as ir

    weights = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    if weights <= ONE_FILE:
        with by_name(path) as place:
            ir.save(model, place)
        return [path]
    if writing_key():
        what = "an encrypted ONNX file cannot hold more than 2 GiB of weights"
        raise WorkError(what, where=path.name, hint="use export.format=openvino or torch, or export.half=true")
    data = path.with_name(f"{path.name}.data")
    ir.save(model, path, external_data=data.name)
    return [path, data]


@contextlib.contextmanager
def quiet(verbose: bool) -> Iterator[None]:
    """Leave out what the exporter says of itself, unless it is asked for."""
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        if not verbose:
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
