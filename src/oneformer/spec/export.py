"""The `export` section: which weights become an ONNX file, and of which shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from oneformer.spec.field import Tao, Unit


@dataclass
class ExportSpec:
    """Export to ONNX."""

    results_dir: Annotated[str, Tao("Results directory")] = ""
    """Folder of this action's results; empty puts them under the common `results_dir`."""
    gpu_id: Annotated[int, Ge(0), Tao("GPU ID")] = 0
    """GPU to trace on, counted from 0."""
    checkpoint: Annotated[str, Tao("checkpoint")] = ""
    """Weight file to export."""
    onnx_file: Annotated[str, Tao("onnx file")] = ""
    """File to write; empty writes `model.onnx` in the results folder."""
    on_cpu: Annotated[bool, Tao("verbose")] = False
    """Trace on the CPU, which gives a graph of standard operators only."""
    input_channel: Annotated[int, Ge(3), Le(3), Tao("input channel")] = 3
    """Channels of the input: red, green, blue."""
    input_width: Annotated[int, Ge(32), Unit("pixels"), Tao("input width")] = 640
    """Width of the input."""
    input_height: Annotated[int, Ge(32), Unit("pixels"), Tao("input height")] = 640
    """Height of the input."""
    opset_version: Annotated[int, Ge(1), Tao("opset version")] = 17
    """Version of the ONNX operator set."""
    batch_size: Annotated[int, Ge(-1), Tao("batch size")] = -1
    """Images per call; -1 leaves the number open."""
    verbose: Annotated[bool, Tao("verbose")] = False
    """Log the steps of the conversion."""
    task: Annotated[Literal["semantic", "instance", "panoptic"], Tao("task", kind="categorical")] = "semantic"
    """Task noted beside the graph as its default; the graph itself takes any task as input."""
