"""The `inference` section: which weights predict, on which images, and what is written."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Len

from oneformer.spec.data import Side
from oneformer.spec.field import Tao, Unit
from oneformer.spec.train import Accelerator, Index, Precision


@dataclass
class InferenceSpec:
    """Prediction with one weight file on a folder of images."""

    num_gpus: Annotated[int, Ge(1), Tao("Number of GPUs", popular=True)] = 1
    """Devices on each machine; on the CPU, processes."""
    gpu_ids: Annotated[list[Index], Tao("GPU IDs", popular=True, automl=False)] = field(default_factory=lambda: [0])
    """Which GPUs, counted from 0."""
    num_nodes: Annotated[int, Ge(1), Tao("Number of nodes", popular=True)] = 1
    """Machines."""
    accelerator: Accelerator = "auto"
    """`gpu`, `cpu`, or `auto`: a GPU when there is one."""
    checkpoint: Annotated[str, Tao("Checkpoint path")] = ""
    """Weight file or exported file to predict with."""
    results_dir: Annotated[str, Tao("Results directory")] = ""
    """Folder of this action's results; empty puts them under the common `results_dir`."""
    batch_size: Annotated[int, Ge(-1), Tao("batch size")] = -1
    """Images per step; -1 takes `dataset.test.batch_size`."""
    trt_engine: Annotated[str, Tao("TensorRT Engine")] = ""
    """TensorRT engine to predict with instead of a checkpoint; it takes an NVIDIA GPU."""
    mode: Annotated[Literal["semantic", "instance", "panoptic", "all"], Tao("Mode", kind="categorical")] = "semantic"
    """Task to predict; `all` writes the results of the three."""
    image_size: Annotated[list[Side], Len(0, 2), Unit("pixels"), Tao("Image size", automl=False)] = field(
        default_factory=list
    )
    """Width and height that every image is fitted into, its shape kept; empty takes the checkpoint's test sizes.
    Results always have the image's own size."""
    images_dir: Annotated[str, Tao("Images directory")] = ""
    """Folder of the images; a single file works too. Empty takes `dataset.test.images`, as TAO's deploy container
    does."""
    precision: Precision = "fp32"
    """Number format of the forward pass."""
    threads: Annotated[int, Ge(0)] = 0
    """Threads on the CPU, of each process; 0 takes as many as torch does."""
    recursive: bool = True
    """Also take the images of sub-folders."""
    overlay: bool = True
    """Also write each image with its segments drawn on it."""
