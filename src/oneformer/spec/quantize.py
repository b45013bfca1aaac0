"""The `quantize` section: which model is quantized, how, and which layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from oneformer.spec.field import Pattern, Tao


@dataclass
class QuantizeSpec:
    """Quantization after training."""

    backend: Annotated[
        Literal["modelopt.pytorch", "torchao", "modelopt.onnx"], Tao("Quantization backend", kind="categorical")
    ] = "torchao"
    """Library that does the work."""
    mode: Annotated[Literal["static_ptq", "weight_only_ptq"], Tao("Quantization mode", kind="categorical")] = (
        "weight_only_ptq"
    )
    """`weight_only_ptq` quantizes weights; `static_ptq` also activations, with ranges measured on images."""
    algorithm: Annotated[
        Literal["minmax", "max", "entropy", "awq_clip", "awq_lite", "awq_full", "rtn_dq"],
        Tao("Calibration algorithm", kind="categorical"),
    ] = "minmax"
    """How ranges are chosen from what was measured."""
    layers: Annotated[list[Any], Tao("Layer quantization configs", automl=False)] = field(default_factory=list)
    """Rules, later ones winning: a module name or class pattern with the number format of weights and activations."""
    skip_names: Annotated[list[str], Tao("Skip names", automl=False)] = field(default_factory=list)
    """Patterns of modules that keep their precision."""
    model_path: Annotated[str, Tao("Model path")] = ""
    """Weight file, or ONNX file for the ONNX backend."""
    results_dir: Annotated[str, Tao("Results directory")] = ""
    """Folder of this action's results; empty puts them under the common `results_dir`."""
    backend_kwargs: Annotated[dict[str, Any], Tao("Backend kwargs", kind="collection", automl=False)] = field(
        default_factory=dict
    )
    """Further options, handed to the library as they are."""
    device: Annotated[
        str,
        Pattern("^(cuda|cpu|trt|cuda:[0-9]+)$", "cuda, cuda:<number>, cpu or trt"),
        Tao("Calibration device", pattern="^(cuda|cpu|trt|cuda:[0-9]+)$"),
    ] = "cuda"
    """Where the ranges are measured."""
