"""A graph and photos -> how far the inputs of its products reach, measured by ONNX Runtime on all tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oneformer.engines.about import INPUTS, OUTPUTS, About
from oneformer.engines.graph import GraphEngine, Ports
from oneformer.engines.onnxruntime import first_line
from oneformer.errors import MissingExtra, WorkError
from oneformer.runs.encrypt import is_encrypted, read_plain
from oneformer.trt.graph import load_model

SUFFIX = "/reach"


class Measured(GraphEngine):
    """The graph with one more output for each value: the largest magnitude in it, over the whole batch."""

    def __init__(self, path: Path, about: About, ports: Ports, session: Any) -> None:
        super().__init__(path, about, ports)
        self.session = session
        self.names = [output.name for output in session.get_outputs() if output.name.endswith(SUFFIX)]
        self.reach: dict[str, float] = {}

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def precision(self) -> str:
        return "fp32"

    def run(self, images: Tensor, task_tokens: Tensor) -> tuple[Tensor, Tensor]:
        feed = dict(zip(INPUTS, (images.cpu().numpy(), task_tokens.cpu().numpy()), strict=True))
        try:
            classes, masks, *reached = self.session.run([*OUTPUTS, *self.names], feed)
        except Exception as error:  # its exceptions share no base class
            what = f"ONNX Runtime failed while it measured: {first_line(error)}"
            raise WorkError(what, where=str(self.path)) from error
        for name, value in zip(self.names, reached, strict=True):
            value_name = name.removesuffix(SUFFIX)
            self.reach[value_name] = max(self.reach.get(value_name, 0.0), float(value))
        return torch.from_numpy(classes), torch.from_numpy(masks)


def reaches(
    onnx_file: Path, about: About, ports: Ports, names: Sequence[str], images: Iterable[Tensor], *, draft: Path
) -> dict[str, float]:
    """Name of a value -> the largest magnitude it had.

    Args:
        onnx_file: the graph in float32.
        about: what it says of itself.
        ports: its inputs and outputs.
        names: the values to measure.
        images: normalised float32 batches (B, 3, H, W) of the graph's size.
        draft: where a copy of the graph may be written.

    Raises:
        MissingExtra: ONNX Runtime is not installed.
        WorkError: the graph cannot be run.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("onnxruntime", extra="tensorrt", needed_for="measuring ranges for int8 and fp8") from error
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = torch.get_num_threads()
    listening(onnx_file, names, draft)
    try:
        model = read_plain(draft) if is_encrypted(draft) else str(draft)
        session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    except Exception as error:
        what = f"ONNX Runtime cannot read the graph: {first_line(error)}"
        raise WorkError(what, where=str(onnx_file)) from error
    engine = Measured(onnx_file, about, ports, session)
    for batch in images:
        engine.outputs(batch, list(about.task_tokens))
    return engine.reach


def listening(onnx_file: Path, names: Sequence[str], draft: Path) -> None:
    """Write a copy of the graph with one more output for each of the values."""
    import onnx_ir as ir

    from oneformer.export.onnx import write

    model = load_model(onnx_file)
    wanted = set(names)
    values: dict[str, Any] = {}
    for node in model.graph:
        values |= {value.name: value for value in node.outputs if value.name in wanted}
    values |= {value.name: value for value in model.graph.inputs if value.name in wanted}
    for name in names:
        size = ir.node("Abs", [values[name]], name=f"{name}/abs")
        most = ir.node("ReduceMax", [size.outputs[0]], {"keepdims": 0}, name=f"{name}/max")
        most.outputs[0].name = f"{name}{SUFFIX}"
        most.outputs[0].shape, most.outputs[0].type = ir.Shape([]), ir.TensorType(ir.DataType.FLOAT)
        model.graph.extend([size, most])
        model.graph.outputs.append(most.outputs[0])
    write(model, draft)
