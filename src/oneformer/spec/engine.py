"""The `gen_trt_engine` section: which ONNX file becomes a TensorRT engine, and with which limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge

from oneformer.spec.field import Tao, Unit


@dataclass
class TensorrtSpec:
    """Options of the TensorRT builder."""

    workspace_size: Annotated[int, Ge(1), Unit("MiB"), Tao("workspace size")] = 1024
    """Memory the builder may use for one layer."""
    min_batch_size: Annotated[int, Ge(1), Tao("Min batch size", popular=True)] = 1
    """Smallest batch the engine accepts."""
    opt_batch_size: Annotated[int, Ge(1), Tao("Optimum batch size", popular=True)] = 1
    """Batch the engine is tuned for."""
    max_batch_size: Annotated[int, Ge(1), Tao("Maximum batch size", popular=True)] = 1
    """Largest batch the engine accepts."""
    layers_precision: Annotated[list[Any], Tao("layers_precision", automl=False)] = field(default_factory=list)
    """Layers that keep a precision of their own, as `name:precision`."""
    data_type: Annotated[Literal["fp16", "fp32"], Tao("data type", kind="categorical")] = "fp16"
    """Number format of the engine."""


@dataclass
class GenTrtEngineSpec:
    """Building a TensorRT engine."""

    results_dir: Annotated[str, Tao("Results directory")] = ""
    """Folder of this action's results; empty puts them under the common `results_dir`."""
    gpu_id: Annotated[int, Ge(0), Tao("GPU ID", popular=True)] = 0
    """GPU to build for, counted from 0."""
    onnx_file: Annotated[str, Tao("ONNX file")] = ""
    """ONNX file to build from."""
    trt_engine: Annotated[str, Tao("TensorRT engine")] = ""
    """Engine file to write."""
    timing_cache: Annotated[str, Tao("TensorRT timing cache")] = ""
    """Cache of measured kernels, read and written to make later builds faster."""
    batch_size: Annotated[int, Ge(-1), Tao("Batch size")] = 0
    """Images per call of an ONNX file whose batch is open; 0 takes the limits in `tensorrt`."""
    verbose: Annotated[bool, Tao("Verbose")] = False
    """Log the builder's own messages."""
    tensorrt: TensorrtSpec = field(default_factory=TensorrtSpec)
    """Options of the TensorRT builder."""
