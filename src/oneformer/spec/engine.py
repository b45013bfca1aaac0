"""The `gen_trt_engine` section: which ONNX file becomes a TensorRT engine, and with which limits."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Len

from oneformer.spec.data import Side
from oneformer.spec.field import Pattern, Tao, Unit

Size = Annotated[list[Side], Len(0, 2), Unit("pixels")]
Capability = Annotated[str, Pattern("^[0-9]+[.][0-9]$", "a compute capability such as 8.9")]


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
    """Products with a precision of their own, as `name:precision`, later ones winning. A name is that of the ONNX node
    (`decoder.layers.0.cross_attn.out/MatMul`), of a part of the network that holds it, or a pattern with `*`."""
    data_type: Annotated[Literal["fp32", "fp16", "bf16", "int8", "fp8"], Tao("data type", kind="categorical")] = "fp16"
    """Number format of the products. Norms, softmax, sampling and the task stay in float32 in all of them. `int8` takes
    the matrices and convolutions of backbone and pixel decoder, `fp8` the matrices of the backbone, and the other
    products are computed in fp16; `layers_precision` chooses others."""
    min_size: Size = field(default_factory=list)
    """Smallest width and height of an ONNX file whose size is open; empty takes its test size."""
    opt_size: Size = field(default_factory=list)
    """Width and height the engine is tuned for; empty takes the file's test size."""
    max_size: Size = field(default_factory=list)
    """Largest width and height; empty takes the file's longest test size on both sides."""
    gpus: list[Capability] = field(default_factory=list)
    """Compute capabilities that TensorRT-RTX builds for, such as `"8.9"`; empty builds for all that it knows. TensorRT
    builds for the GPU it finds."""
    calibration_dir: str = ""
    """Folder of the photos on which `int8` and `fp8` measure ranges; empty takes `inference.images_dir`."""
    calibration_images: Annotated[int, Ge(1)] = 32
    """How many of them."""


@dataclass
class GenTrtEngineSpec:
    """Building a TensorRT engine."""

    results_dir: Annotated[str, Tao("Results directory")] = ""
    """Folder of this action's results; empty puts them under the common `results_dir`."""
    gpu_id: Annotated[int, Ge(0), Tao("GPU ID", popular=True)] = 0
    """GPU, counted from 0, to build for and to compare on."""
    onnx_file: Annotated[str, Tao("ONNX file")] = ""
    """ONNX file to build from."""
    trt_engine: Annotated[str, Tao("TensorRT engine")] = ""
    """Engine file to write; empty writes `model.engine` in the results folder."""
    timing_cache: Annotated[str, Tao("TensorRT timing cache")] = ""
    """Cache of measured kernels, read and written to make later builds faster; empty keeps none. TensorRT-RTX measures
    nothing when it builds, and needs none."""
    batch_size: Annotated[int, Ge(-1), Tao("Batch size")] = 0
    """Images per call, always as many, of an ONNX file whose batch is open; 0 and -1 take the limits in `tensorrt`."""
    verbose: Annotated[bool, Tao("Verbose")] = False
    """Log the builder's own messages."""
    tensorrt: TensorrtSpec = field(default_factory=TensorrtSpec)
    """Options of the TensorRT builder."""
    library: Literal["auto", "tensorrt", "tensorrt_rtx"] = "auto"
    """`tensorrt` from its vendor, `tensorrt_rtx` (TensorRT-RTX, which builds without a GPU), or `auto`: the first of
    them that is installed."""
    overwrite: bool = False
    """Replace a file that is already there."""
    parity_images: Annotated[int, Ge(1)] = 4
    """Images on which the ONNX file and the engine are compared; without a GPU the graph that the engine is built from
    takes its place."""
    parity_images_dir: str = ""
    """Folder of those images. Empty takes, in this order, the annotated images of `dataset.test` or `dataset.val`,
    those of `inference.images_dir`, and generated ones."""
    accept_parity: bool = False
    """Keep the engine even when it does not find the same."""
