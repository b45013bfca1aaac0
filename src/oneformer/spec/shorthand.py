"""Short names of much-used keys, TAO's -> the keys that they set in an action."""

from __future__ import annotations

from dataclasses import replace

from oneformer.spec.node import Node

# TAO's names and the keys they stand for, in all actions.
NAMES: dict[str, str] = {
    "num_epochs": "train.num_epochs",
    "batch_size": "dataset.train.batch_size",
    "train_batch_size": "dataset.train.batch_size",
    "val_batch_size": "dataset.val.batch_size",
    "test_batch_size": "dataset.test.batch_size",
    "learning_rate": "train.optim.lr",
    "num_classes": "model.sem_seg_head.num_classes",
    "contiguous_id": "dataset.contiguous_id",
    "image_size": "dataset.image_size",
    "train_min_size": "dataset.augmentation.train_min_size",
    "train_max_size": "dataset.augmentation.train_max_size",
    "train_crop_size": "dataset.augmentation.train_crop_size",
    "test_min_size": "dataset.augmentation.test_min_size",
    "test_max_size": "dataset.augmentation.test_max_size",
    "pretrained_model": "train.pretrained_model",
    "pretrained_backbone": "train.pretrained_backbone",
    "resume_checkpoint": "train.resume_training_checkpoint_path",
    "export_onnx": "export.onnx_file",
    "export_width": "export.input_width",
    "export_height": "export.input_height",
    "export_task": "export.task",
    "inference_images": "inference.images_dir",
    "inference_mode": "inference.mode",
    "quant_backend": "quantize.backend",
    "quant_model_path": "quantize.model_path",
    "calibration_images": "dataset.quant_calibration_dataset.images_dir",
    "trt_data_type": "gen_trt_engine.tensorrt.data_type",
    "trt_engine": "gen_trt_engine.trt_engine",
    "trt_min_batch_size": "gen_trt_engine.tensorrt.min_batch_size",
    "trt_opt_batch_size": "gen_trt_engine.tensorrt.opt_batch_size",
    "trt_max_batch_size": "gen_trt_engine.tensorrt.max_batch_size",
}
# TAO's deploy container, which runs these, knows the same name for another key.
DEPLOY = ("evaluate", "inference", "gen_trt_engine")
_IN_DEPLOY = {"batch_size": "dataset.val.batch_size"}

# What TAO's key does not do here, or not in this action -> the keys that do it.
_ACTING: dict[tuple[str, str], tuple[str, ...]] = {
    ("batch_size", "evaluate"): ("evaluate.batch_size",),
    ("batch_size", "inference"): ("inference.batch_size",),
    ("batch_size", "export"): ("export.batch_size",),
    ("batch_size", "gen_trt_engine"): ("gen_trt_engine.batch_size",),
    ("trt_engine", "evaluate"): ("evaluate.trt_engine",),
    ("trt_engine", "inference"): ("inference.trt_engine",),
    ("image_size", "inference"): ("inference.image_size",),
    ("image_size", "export"): ("export.input_width", "export.input_height"),
}
# Which part of a size, width and height, a key takes.
_PART: dict[str, slice] = {
    "inference.image_size": slice(0, 2),
    "export.input_width": slice(0, 1),
    "export.input_height": slice(1, 2),
}


def targets(name: str, action: str) -> tuple[str, ...]:
    """The keys that a short name sets in an action, TAO's own first; () for other names."""
    if name not in NAMES:
        return ()
    tao = _IN_DEPLOY.get(name, NAMES[name]) if action in DEPLOY else NAMES[name]
    return (tao, *_ACTING.get((name, action), ()))


def expanded(name: str, node: Node, action: str) -> list[tuple[str, Node]]:
    """A word of the command line -> the keys and values it stands for; the word itself when it is no short name."""
    return [(key, _sized(node, key)) for key in targets(name, action) or (name,)]


def _sized(node: Node, key: str) -> Node:
    """A size in the form that a key takes: a number is width and height alike."""
    if key not in _PART or isinstance(node.value, str | dict):
        return node
    both = node.value if isinstance(node.value, list) else [node, node]
    part = both[_PART[key]]
    return part[0] if key.startswith("export") and part else replace(node, value=part, text="")


def names_of(key: str) -> tuple[str, ...]:
    """The short names that stand for a key in some action."""
    acting = [name for (name, _), keys in _ACTING.items() if key in keys]
    return tuple(dict.fromkeys([*(n for n, k in NAMES.items() if k == key), *acting]))
