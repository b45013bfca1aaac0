"""The `export` section: which weights become which kind of graph file, of which shape, and how it is checked."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from oneformer.spec.field import Tao, Unit


@dataclass
class ExportSpec:
    """Export to ONNX, OpenVINO or torch.export, and the proof that the file computes the same."""

    results_dir: Annotated[str, Tao("Results directory")] = ""
    """Folder of this action's results; empty puts them under the common `results_dir`."""
    gpu_id: Annotated[int, Ge(0), Tao("GPU ID")] = 0
    """GPU, counted from 0, on which checkpoint and exported file are compared; without a GPU it is the CPU."""
    checkpoint: Annotated[str, Tao("checkpoint")] = ""
    """Weight file to export."""
    onnx_file: Annotated[str, Tao("onnx file")] = ""
    """File to write, whatever the format; empty writes `model.onnx`, `model.xml` or `model.pt2` in the results
    folder."""
    on_cpu: Annotated[bool, Tao("verbose")] = False
    """Compare on the CPU even where there is a GPU. The graph is the same: standard operators, for every device."""
    input_channel: Annotated[int, Ge(3), Le(3), Tao("input channel")] = 3
    """Channels of the input: red, green, blue."""
    input_width: Annotated[int, Ge(32), Unit("pixels"), Tao("input width")] = 640
    """Width of the input."""
    input_height: Annotated[int, Ge(32), Unit("pixels"), Tao("input height")] = 640
    """Height of the input."""
    opset_version: Annotated[int, Ge(1), Tao("opset version")] = 17
    """Version of the ONNX operator set, at most 23; the lowest that is written is 18, and stands for all below."""
    batch_size: Annotated[int, Ge(-1), Tao("batch size")] = -1
    """Images per call; -1 leaves the number open."""
    verbose: Annotated[bool, Tao("verbose")] = False
    """Log the steps of the conversion, torch's own messages included."""
    task: Annotated[Literal["semantic", "instance", "panoptic"], Tao("task", kind="categorical")] = "semantic"
    """Task noted in the description as the usual one; the graph itself takes any task as input."""
    format: Literal["onnx", "openvino", "torch"] = "onnx"
    """`onnx` for ONNX Runtime and TensorRT, `openvino` (.xml and .bin) for Intel and AMD CPUs, `torch` (.pt2) for
    PyTorch without the source of the network."""
    dynamic_size: bool = False
    """Leave height and width open, in steps of 32 pixels; `input_width` and `input_height` are then those of the trace.
    Needed to give each photo the size it has in evaluation."""
    half: bool = False
    """Store weights in float16 and, in ONNX, multiply in it; norms, softmax, sampling and the task stay in float32.
    Half the size; faster on GPUs, not on CPUs."""
    embed_preprocess: bool = False
    """Put normalisation and the resizing of masks into the graph: RGB bytes (B, H, W, 3) go in, masks of the input's
    size come out."""
    simplify: bool = True
    """Compute constants and merge copies in an ONNX graph; undone when the result no longer computes the same."""
    overwrite: bool = False
    """Replace a file that is already there."""
    parity_images: Annotated[int, Ge(1)] = 4
    """Images on which checkpoint and exported file are compared."""
    parity_images_dir: str = ""
    """Folder of those images. Empty takes, in this order, the annotated images of `dataset.test` or `dataset.val`, on
    which scores are compared too, those of `inference.images_dir`, and generated ones."""
    accept_parity: bool = False
    """Keep the file even when it does not compute the same."""
