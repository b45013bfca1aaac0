"""The `quantize` section: which model is quantized, by what, which layers, and how the result is compared."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge

from oneformer.spec.field import Pattern, Tao


@dataclass
class QuantizeSpec:
    """Quantization after training, and the report of what it costs."""

    backend: Annotated[
        Literal["torchao", "modelopt.pytorch", "modelopt.onnx", "onnxruntime", "openvino"],
        Tao("Quantization backend", kind="categorical"),
    ] = "torchao"
    """Library that does the work: `torchao` and `modelopt.pytorch` write a checkpoint, `onnxruntime` and
    `modelopt.onnx` an ONNX file, `openvino` an OpenVINO file."""
    mode: Annotated[
        Literal["static_ptq", "weight_only_ptq", "dynamic_ptq"], Tao("Quantization mode", kind="categorical")
    ] = "weight_only_ptq"
    """`weight_only_ptq` quantizes weights; `static_ptq` also activations, with ranges measured on images;
    `dynamic_ptq` also activations, with ranges taken from each of them as it comes."""
    algorithm: Annotated[
        Literal["minmax", "max", "entropy", "awq_clip", "awq_lite", "awq_full", "rtn_dq"],
        Tao("Calibration algorithm", kind="categorical"),
    ] = "minmax"
    """How ranges are chosen from what was measured."""
    layers: Annotated[list[Any], Tao("Layer quantization configs", automl=False)] = field(default_factory=list)
    """Rules, later ones winning: `module_name` (a pattern for names or classes of layers) with `weights: {dtype}` and
    `activations: {dtype}`. Without rules, and by a rule without a name, all layers are meant but those that need
    float32."""
    skip_names: Annotated[list[str], Tao("Skip names", automl=False)] = field(default_factory=list)
    """Patterns of layers that keep their precision."""
    model_path: Annotated[str, Tao("Model path")] = ""
    """What to quantize: a checkpoint, or for the backends of graphs also an exported file. A checkpoint is exported on
    the way, with the sizes of the `export` section."""
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
    """Where PyTorch measures ranges and compares; `cuda` without a GPU is the CPU. `trt` is for modelopt.onnx."""
    calibration_images: Annotated[int, Ge(1)] = 32
    """Images that ranges are measured on, spread evenly over those there are; each passes with every task."""
    compare_images: Annotated[int, Ge(1)] = 16
    """Images on which the model is compared before and after."""
    sensitivity: bool = False
    """Quantize each layer alone first, rank the layers by what that changes, and propose `skip_names`."""
    overwrite: bool = False
    """Replace a quantized file that is already there."""
