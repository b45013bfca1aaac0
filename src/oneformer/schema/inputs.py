"""An action -> the keys that name what it reads, and which of them it cannot do without."""

from __future__ import annotations

from dataclasses import dataclass

ACTIONS = ("train", "evaluate", "inference", "export", "quantize", "gen_trt_engine")


@dataclass(frozen=True, slots=True)
class Input:
    """One thing that an action reads."""

    keys: tuple[str, ...]
    """Keys that can name it; one of them is enough."""
    optional: bool = False
    only_if: tuple[str, tuple[str, ...]] = ("", ())
    """Key and those of its values with which it is needed; without a key always."""

    @property
    def always(self) -> bool:
        """Whether the action can never do without it."""
        return not self.optional and not self.only_if[0]


def _needs(*keys: str) -> Input:
    return Input(keys)


def _may(*keys: str) -> tuple[Input, ...]:
    return tuple(Input((key,), optional=True) for key in keys)


INPUTS: dict[str, tuple[Input, ...]] = {
    "train": (
        _needs("dataset.train.annotations", "dataset.sources.train_datasets"),
        *_may("dataset.train.images", "dataset.train.panoptic", "dataset.label_map"),
        *_may("dataset.val.annotations", "dataset.val.images", "dataset.val.panoptic", "dataset.sources.eval_dataset"),
        *_may("train.pretrained_backbone", "train.pretrained_model", "train.resume_training_checkpoint_path"),
    ),
    "evaluate": (
        _needs("evaluate.checkpoint", "evaluate.trt_engine"),
        _needs("dataset.test.annotations", "dataset.val.annotations", "dataset.sources.eval_dataset"),
        *_may("dataset.test.images", "dataset.test.panoptic", "dataset.val.images", "dataset.val.panoptic"),
        *_may("dataset.label_map"),
    ),
    "inference": (
        _needs("inference.checkpoint", "inference.trt_engine"),
        _needs("inference.images_dir", "dataset.test.images", "dataset.sources.inference_dataset"),
    ),
    "export": (_needs("export.checkpoint"), *_may("export.parity_images_dir")),
    "quantize": (
        _needs("quantize.model_path"),
        Input(
            (
                "dataset.quant_calibration_dataset.images_dir",
                "dataset.sources.calibration_dataset",
                "dataset.train.annotations",
                "dataset.sources.train_datasets",
            ),
            only_if=("quantize.mode", ("static_ptq",)),
        ),
    ),
    "gen_trt_engine": (
        _needs("gen_trt_engine.onnx_file"),
        Input(
            ("gen_trt_engine.tensorrt.calibration_dir", "inference.images_dir"),
            only_if=("gen_trt_engine.tensorrt.data_type", ("int8", "fp8")),
        ),
        *_may("gen_trt_engine.parity_images_dir"),
    ),
}


# Last part of a key -> what the text names, in the words of JSON Schema's `format`.
_FORMATS = {
    "annotations": "path",
    "cache_dir": "directory-path",
    "checkpoint": "file-path",
    "images": "directory-path",
    "label_map": "file-path",
    "model_path": "file-path",
    "onnx_file": "file-path",
    "panoptic": "directory-path",
    "pretrained_backbone": "path",
    "pretrained_model": "path",
    "resume_training_checkpoint_path": "file-path",
    "timing_cache": "file-path",
    "train_datasets": "path",
    "eval_dataset": "path",
    "inference_dataset": "path",
    "calibration_dataset": "path",
    "trt_engine": "file-path",
}


def path_format(key: str) -> str:
    """`file-path`, `directory-path` or `path` for a key that names something on disk; empty for the others."""
    name = key.rpartition(".")[2]
    return _FORMATS.get(name, "directory-path" if name.endswith("_dir") else "")
