"""The `train` section: devices, length, optimiser, schedule, clipping, precision, checkpoints."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from oneformer.spec.field import Infinite, Search, Spellings, Tao, Unit

Index = Annotated[int, Ge(0)]
Accelerator = Literal["auto", "gpu", "cpu"]
PrecisionName = Literal["fp32", "fp16", "bf16", "auto"]
PRECISION_SPELLINGS = Spellings(
    (
        ("32", "fp32"),
        ("32-true", "fp32"),
        ("float32", "fp32"),
        ("16", "fp16"),
        ("16-mixed", "fp16"),
        ("float16", "fp16"),
        ("bf16-mixed", "bf16"),
        ("bfloat16", "bf16"),
    )
)
Precision = Annotated[PrecisionName, PRECISION_SPELLINGS]


@dataclass
class OptimSpec:
    """Optimiser and learning-rate schedule."""

    type: Annotated[Literal["AdamW"], Tao(kind="categorical")] = "AdamW"
    """The optimiser; there is one."""
    monitor_name: Annotated[Literal["val_loss", "train_loss"], Tao("monitor_name", kind="categorical")] = "train_loss"
    """Quantity that a plateau schedule would watch; no schedule here needs it."""
    lr: Annotated[
        float,
        Gt(0),
        Le(1),
        Search(scale="log", spread=8, images=16),
        Tao("learning rate", automl=True, math_cond="> 0.0"),
    ] = 1e-4
    """Peak learning rate, for 16 images per optimiser step in the published recipe."""
    backbone_multiplier: Annotated[
        float,
        Ge(0),
        Le(1),
        Search(0.01, 1.0, "log", when="train.freeze!=backbone"),
        Tao("backbone learning rate multiplier", popular=True, automl=True, math_cond="> 0.0"),
    ] = 0.1
    """Factor on the learning rate of the backbone; 1 when it starts from random weights."""
    momentum: Annotated[float, Ge(0), Lt(1), Tao("momentum - AdamW", popular=True, automl=True, math_cond="> 0.0")] = (
        0.9
    )
    """Decay of AdamW's running mean of the gradient (its first beta)."""
    weight_decay: Annotated[
        float,
        Ge(0),
        Le(1),
        Search(1e-3, 0.3, "log"),
        Tao("weight decay", popular=True, automl=True, math_cond="> 0.0"),
    ] = 0.05
    """Decoupled weight decay; norms, embeddings and position tables are left out of it."""
    lr_scheduler: Annotated[
        Literal["Warmuppoly", "MultiStep", "cosine", "constant"],
        Spellings((("poly", "Warmuppoly"), ("warmup_poly", "Warmuppoly"), ("multi_step", "MultiStep"))),
        Search(choices=("Warmuppoly", "cosine"), tier=2),
        Tao("learning rate scheduler", kind="categorical"),
    ] = "Warmuppoly"
    """Curve after the warm-up: polynomial decay, drops at `milestones` or `steps`, cosine, or none."""
    milestones: Annotated[list[Index], Unit("epochs"), Tao("learning rate decay epochs.", automl=False)] = field(
        default_factory=lambda: [88, 96]
    )
    """MultiStep: epochs after which the learning rate drops."""
    gamma: Annotated[float, Gt(0), Le(1), Tao("gamma", math_cond="> 0.0")] = 0.1
    """MultiStep: factor of each drop."""
    warmup_iters: Annotated[int, Ge(0), Unit("optimiser steps"), Tao("warmup iters")] = 1000
    """Length of the linear warm-up."""
    warmup_factor: Annotated[float, Ge(0), Le(1), Tao("warmup factor")] = 0.001
    """Share of the learning rate at the first step of the warm-up."""
    max_iter: Annotated[int | None, Ge(1), Unit("optimiser steps"), Tao("max iter")] = None
    """Stop after this many optimiser steps even if epochs are left; null trains all epochs."""
    steps: Annotated[list[Index], Unit("optimiser steps"), Tao("learning rate decay epochs.", automl=False)] = field(
        default_factory=list
    )
    """MultiStep: optimiser steps after which the learning rate drops; used instead of `milestones` when not empty."""
    power: Annotated[float, Gt(0)] = 0.9
    """Warmuppoly: exponent of the decay."""
    min_lr_frac: Annotated[float, Ge(0), Le(1)] = 0.0
    """Warmuppoly and cosine: share of the learning rate that is left at the end."""


@dataclass
class ClipGradientsSpec:
    """Limit on the gradients before each optimiser step."""

    enabled: Annotated[bool, Tao("enable clip gradient")] = True
    """Limit the gradients."""
    clip_type: Annotated[
        Literal["full_model", "norm", "value"], Spellings((("full", "full_model"),)), Tao("clip gradient type")
    ] = "full_model"
    """`full_model` limits the norm over all parameters together, `norm` that of each parameter, `value` each number."""
    clip_value: Annotated[
        float,
        Gt(0),
        Search(0.01, 10.0, "log", tier=2, when="train.clip_gradients.enabled=True"),
        Tao("clip gradient value"),
    ] = 1.0
    """The limit."""
    norm_type: Annotated[float, Gt(0), Infinite(), Tao("clip gradient norm type")] = 2.0
    """Order of the norm: 2 is the Euclidean, .inf the largest absolute value."""


@dataclass
class CudnnSpec:
    """How GPU kernels are chosen."""

    benchmark: Annotated[bool, Tao()] = False
    """Time several kernels for each new shape and keep the fastest; for inputs of one size."""
    deterministic: Annotated[bool, Tao()] = True
    """Prefer kernels that give the same result every time, even if they are slower."""


@dataclass
class EmaSpec:
    """Running average of the weights."""

    enabled: bool = False
    """Keep an average of the weights, and score, save as best and predict with it."""
    decay: Annotated[float, Ge(0), Lt(1)] = 0.9999
    """Share of the average that each optimiser step keeps; about 1 / (1 - decay) steps are averaged."""


@dataclass
class TrainSpec:
    """Training."""

    num_gpus: Annotated[int, Ge(1), Tao("number of gpus")] = 1
    """Devices on each machine; on the CPU, processes."""
    gpu_ids: Annotated[list[Index], Tao("GPU IDs", popular=True, automl=False)] = field(default_factory=lambda: [0])
    """Which GPUs, counted from 0."""
    num_nodes: Annotated[int, Ge(1), Tao("number of nodes")] = 1
    """Machines."""
    accelerator: Accelerator = "auto"
    """`gpu`, `cpu`, or `auto`: a GPU when there is one."""
    seed: Annotated[int, Ge(-1), Le(2**32 - 1), Tao("seed")] = 123
    """Starting point of all random numbers; -1 draws one, which is then written to the resolved spec."""
    cudnn: CudnnSpec = field(default_factory=CudnnSpec)
    """How GPU kernels are chosen."""
    num_epochs: Annotated[int, Ge(1), Tao("number of epochs")] = 50
    """Passes over the training images."""
    stop_at_epoch: Annotated[int, Ge(0), Unit("epochs")] = 0
    """Pause after this many epochs, on the schedule of all `num_epochs`; a resume goes on as if there had been no
    pause. 0 trains to the end."""
    checkpoint_interval: Annotated[int, Ge(1), Tao("checkpoint interval")] = 1
    """Epochs or optimiser steps between checkpoints."""
    checkpoint_interval_unit: Annotated[
        Literal["epoch", "step"], Tao("Checkpoint interval unit", kind="categorical")
    ] = "epoch"
    """Unit of `checkpoint_interval`."""
    validation_interval: Annotated[int, Ge(1), Unit("epochs"), Tao("validation interval")] = 1
    """Epochs between validations."""
    val_check_interval: Annotated[float, Gt(0), Le(1), Tao("validation check interval")] = 1.0
    """Share of an epoch between validations; below 1 it takes the place of `validation_interval`."""
    resume_training_checkpoint_path: Annotated[str, Tao()] = ""
    """Checkpoint to go on from, optimiser and place in the epoch included; `auto` takes the latest of the results
    folder, if there is one."""
    results_dir: Annotated[str, Tao("Results directory")] = ""
    """Folder of this action's results; empty puts them under the common `results_dir`."""
    freeze: Annotated[list[str], Tao("freeze", automl=False)] = field(default_factory=list)
    """Parts of the model that do not learn, by the beginning of their parameter names, such as `backbone`."""
    pretrained_model: Annotated[str, Tao()] = ""
    """Weights of a whole model to start from: a file of any kind, or a Hugging Face folder. Classes are matched by
    name; parts that do not fit are named and start afresh."""
    pretrained_backbone: Annotated[str, Tao()] = ""
    """Weights of the backbone alone to start from: a file, a folder (Hugging Face, or a Keras ResNet), or an address as
    `https://host/file.pth#sha256=<digits>`, which is fetched once and kept in the user's cache. Whose names they have
    and which pixel values they were made for is found out; position tables of another size are interpolated."""
    clip_grad_norm: Annotated[float | None, Ge(0), Tao("clip gradient norm", math_cond="> 0.0")] = None
    """A second limit on the gradient norm; the smaller of this and `clip_gradients` acts. null or 0 sets none."""
    clip_grad_norm_type: Annotated[float, Gt(0), Infinite(), Tao()] = 2.0
    """Order of the norm that `clip_grad_norm` limits: 2 is the Euclidean, .inf the largest absolute value."""
    clip_grad_type: Annotated[
        Literal["full", "norm", "value"], Spellings((("full_model", "full"),)), Tao("clip gradient type")
    ] = "full"
    """What `clip_grad_norm` limits: the norm over all parameters, that of each parameter, or each number."""
    is_dry_run: Annotated[bool, Tao("Is dry run")] = False
    """Train on one batch, validate on one, and keep nothing: shows that everything fits together."""
    optim: OptimSpec = field(default_factory=OptimSpec)
    """Optimiser and learning-rate schedule."""
    precision: Annotated[PrecisionName, PRECISION_SPELLINGS, Tao("precision", kind="categorical")] = "fp32"
    """Number format of the forward pass: `fp32`, `bf16` or `fp16` (mixed, weights stay fp32), or `auto`: bf16 where
    the hardware computes in it, else fp32."""
    distributed_strategy: Annotated[Literal["ddp", "fsdp"], Tao("distributed_strategy", kind="categorical")] = "ddp"
    """How several devices share the work: `ddp` keeps a copy of the model on each, `fsdp` splits weights, gradients and
    optimiser over them: less memory, more traffic, the same results. On one device both are the same."""
    verbose: Annotated[bool, Tao("enable verbose logs")] = False
    """Log details: parameter groups, what was loaded, sizes."""
    iters_per_epoch: Annotated[int | None, Ge(1), Unit("batches"), Tao("iteration per epoch")] = None
    """Most batches in an epoch; null takes them all."""
    accumulate_grad_batches: Annotated[int, Ge(1), Tao("accumulate grad batches")] = 1
    """Batches whose gradients are added up before an optimiser step."""
    clip_gradients: ClipGradientsSpec = field(default_factory=ClipGradientsSpec)
    """Limit on the gradients before each optimiser step."""
    ema: EmaSpec = field(default_factory=EmaSpec)
    """Running average of the weights."""
    max_minutes: Annotated[float, Ge(0), Unit("minutes")] = 0.0
    """Wall time for training; the schedule is squeezed into it. 0 sets no limit."""
    keep_checkpoints: Annotated[int, Ge(-1)] = 3
    """Most recent checkpoints to keep, beside the best and the latest; -1 keeps all."""
    best_metric: Literal["auto", "PQ", "PQ_things", "mIoU", "AP", "train_loss"] = "auto"
    """Score that decides which checkpoint is the best; `auto` takes PQ, else mIoU, else AP, else the training loss."""
    overwrite: bool = False
    """Allow a new run in a folder that already holds checkpoints."""
    activation_checkpointing: bool = False
    """Recompute the activations of pixel decoder and decoder in the backward pass: less memory, more time."""
    log_interval: Annotated[int, Ge(1), Unit("optimiser steps")] = 10
    """Steps between lines of the log and of `metrics.csv`."""
    num_threads: Annotated[int, Ge(0)] = 0
    """Threads of the main process on the CPU; 0 leaves the choice to PyTorch."""
