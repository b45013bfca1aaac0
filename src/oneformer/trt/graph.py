"""An ONNX file -> the network in it, what it says of itself, and whether it can become a TensorRT engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneformer.engines.about import KEY, About, read_about
from oneformer.engines.graph import Dims, Ports, check_ports
from oneformer.errors import CheckpointError, MissingExtra, SpecError, UserError
from oneformer.export.tidy import tidy
from oneformer.runs.encrypt import is_encrypted, read_plain
from oneformer.trt.precision import is_quantized

UNKNOWN = ("SequenceAt", "SplitToSequence", "ConcatFromSequence")  # TensorRT has no sequences; tidying removes them


@dataclass(frozen=True)
class Graph:
    """A graph in memory. `model` is an `onnx_ir.Model`, and changes while it is prepared."""

    path: Path
    model: Any
    about: About
    ports: Ports
    quantized: bool
    """Whether the file itself says what is rounded to 8 bits."""
    changed: bool
    """Whether `model` is no longer what the file holds."""


def read_graph(path: Path) -> Graph:
    """Read an ONNX file of `oneformer export`.

    Raises:
        MissingExtra: the packages for ONNX files are not installed.
        CheckpointError: the file is broken, of another model, or its weights are missing.
    """
    try:
        import onnx_ir as ir
    except ImportError as error:
        raise MissingExtra("onnx", extra="tensorrt", needed_for="oneformer gen_trt_engine") from error
    try:
        model = load_model(path)
        ir.external_data.load_to_model(model)
    except UserError:
        raise
    except Exception as error:  # whatever a broken protobuf or a missing file of weights raises
        raise CheckpointError(f"the ONNX file cannot be read: {error!r}"[:300], where=str(path)) from error
    inputs, outputs = ({str(v.name): sizes(v) for v in row} for row in (model.graph.inputs, model.graph.outputs))
    ports = Ports(inputs, outputs)
    about = read_about(path, model.metadata_props.get(KEY))
    check_ports(path, about, ports)
    changed = any(node.op_type in UNKNOWN for node in model.graph)
    if changed:
        tidy(model)
    return Graph(path, model, about, ports, is_quantized(model), changed)


def load_model(path: Path) -> Any:
    """The `onnx_ir.Model` in a file, encrypted or not. Raises what its readers raise."""
    import onnx_ir as ir

    if not is_encrypted(path):
        return ir.load(path)
    import onnx

    return ir.from_proto(onnx.load_from_string(read_plain(path)))


def sizes(value: Any) -> Dims:
    """The shape of an input or output, in which open sizes have names."""
    return tuple(size if isinstance(size, int) else None for size in value.shape or ())


def check_precision(graph: Graph, data_type: str) -> None:
    """Raise SpecError when the file's own precision does not lead to the wanted one."""
    own = graph.about.precision
    if not graph.quantized and own not in ("fp32", data_type):
        raise SpecError(
            f"the products of the ONNX file are in {own} already, an engine of it cannot compute in {data_type}",
            where="gen_trt_engine.tensorrt.data_type",
            hint=f"use {own}, or export again with export.half=false",
        )
