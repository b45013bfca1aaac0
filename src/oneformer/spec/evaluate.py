"""The `evaluate` section: which weights are scored, on which tasks."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge

from oneformer.spec.field import Tao
from oneformer.spec.train import Accelerator, Index, Precision


@dataclass
class EvaluateSpec:
    """Evaluation of one weight file on the test split."""

    num_gpus: Annotated[int, Ge(1), Tao("Number of GPUs", popular=True)] = 1
    """Devices on each machine; on the CPU, processes."""
    gpu_ids: Annotated[list[Index], Tao("GPU IDs", popular=True, automl=False)] = field(default_factory=lambda: [0])
    """Which GPUs, counted from 0."""
    num_nodes: Annotated[int, Ge(1), Tao("Number of nodes", popular=True)] = 1
    """Machines."""
    accelerator: Accelerator = "auto"
    """`gpu`, `cpu`, or `auto`: a GPU when there is one."""
    checkpoint: Annotated[str, Tao("Checkpoint path")] = ""
    """Weight file or exported file to score."""
    results_dir: Annotated[str, Tao("Results directory")] = ""
    """Folder of this action's results; empty puts them under the common `results_dir`."""
    batch_size: Annotated[int, Ge(-1), Tao("batch size")] = -1
    """Images per step; -1 takes `dataset.test.batch_size`."""
    trt_engine: Annotated[str, Tao("TensorRT Engine")] = ""
    """TensorRT engine to score instead of a checkpoint; it takes an NVIDIA GPU."""
    iou_per_class: Annotated[bool, Tao("IoU per class")] = True
    """Report the scores of each class beside their means."""
    task: Literal["all", "semantic", "instance", "panoptic"] = "all"
    """Tasks to score."""
    precision: Precision = "fp32"
    """Number format of the forward pass."""
    threads: Annotated[int, Ge(0)] = 0
    """Threads on the CPU, of each process; 0 takes as many as torch does."""
    report_images: Annotated[int, Ge(0)] = 8
    """Images shown in the report: half of them the best, half the worst."""
