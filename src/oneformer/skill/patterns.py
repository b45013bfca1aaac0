"""What goes wrong with systems of this kind -> what happens here, and what to do about it: one row for each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pattern:
    """One of them."""

    name: str
    here: str
    """What this product does."""
    remedy: str
    """What the user does; that of the message where there is one."""


PATTERNS = (
    Pattern(
        "Memory runs out in training or validation",
        "Training ends with exit code 1. It tries smaller settings on the same data and says what was measured: "
        "`ran out of memory with`, the need, and what `fits`.",
        "Take the words that the hint gives, such as `dataset.train.batch_size=5`. "
        "`train.accumulate_grad_batches=2` doubles the images of a step again.",
    ),
    Pattern(
        "The system kills a process without a message",
        "The operating system gives no warning; `oneformer doctor` shows `memory limit` of the container.",
        "Smaller `dataset.augmentation.train_crop_size` and `dataset.train.batch_size`, "
        "`dataset.train.num_workers=0`, or a larger limit.",
    ),
    Pattern(
        "An archive has folders packed around the files",
        "Cannot fail: the folder that holds the files which the annotations name is found.",
        "Nothing. For folders that you unpacked yourself `oneformer dataset check` says where the files lie.",
    ),
    Pattern(
        "`default_specs` passes over `results_dir` or `-e`",
        "Cannot fail: both are honoured, and so are overrides.",
        "Nothing.",
    ),
    Pattern(
        "A precision such as `fp32` is refused",
        "Cannot fail: `fp32`, `32`, `32-true`, `float32` are one, so are the spellings of `fp16` and `bf16`; "
        "`auto` takes what the device is fast in.",
        "Nothing. `fp16` on a processor is refused with the word to use.",
    ),
    Pattern(
        "A checkpoint loads only when safety is switched off",
        "Cannot fail: checkpoints hold tensors and plain values. A file that would run code is refused "
        "(`reading it could run code, so it is refused`).",
        "Load a foreign file where you trust it and save its tensors alone, best as `.safetensors`.",
    ),
    Pattern(
        "A class id lies beyond the number of classes",
        "Refused before the first step, with both numbers: `the label map has … classes`, or the ids of "
        "`annotations use a category that is not in the label map`.",
        "`model.sem_seg_head.num_classes=0` counts the classes of the label map; add what is missing to that.",
    ),
    Pattern(
        "Inference finds no images and reports success",
        "Refused: `the folder holds no image`, with what was found instead.",
        "Name the folder in `inference.images_dir`; sub-folders are searched.",
    ),
    Pattern(
        "The target of an export exists",
        "Refused before anything is computed: `the file to write exists`. It stays as it is.",
        "`export.overwrite=true`, or another `export.onnx_file`.",
    ),
    Pattern(
        "The label map has moved since training",
        "Cannot fail: a checkpoint carries its classes and no path. Predict, export, quantize and build engines read "
        "no label map.",
        "Nothing. Scoring reads the classes of the annotations, and refuses those that the model does not have.",
    ),
    Pattern(
        "Training is slow",
        "Each line tells images per second and memory. A warning says when training `waits for its images`, and when "
        "there is `no fast bf16 arithmetic`.",
        "`train.precision=auto`, more `dataset.train.num_workers`, a smaller "
        '`dataset.augmentation.train_crop_size`, `pip install "oneformer[fast]"` for JPEGs, `train.num_gpus`.',
    ),
)


def table() -> str:
    """All of them in Markdown."""
    rows = "".join(f"| {one.name} | {one.here} | {one.remedy} |\n" for one in PATTERNS)
    return f"| pattern | here | what to do |\n|---|---|---|\n{rows}"
