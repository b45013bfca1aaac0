"""A key of the spec -> why it is never searched; empty for those that may be."""

from __future__ import annotations

from oneformer.spec.tree import leaves
from oneformer.spec.unread import reason

_RULER = "it changes how results are measured, so that trials could not be compared"
_FREE = "it needs no training: tune it afterwards, on one checkpoint"
_MACHINE = "it says where and how fast a training runs, not what is learned"
_LENGTH = "the search itself decides how long each trial trains"
_FILES = "it names files"

# Key, or the section it lies in -> why it is not searched.
NEVER: dict[str, str] = {
    "dataset.val": _RULER,
    "dataset.test": _RULER,
    "dataset.task_prob_val": _RULER,
    "dataset.augmentation.test_min_size": _RULER,
    "dataset.augmentation.test_max_size": _RULER,
    "dataset.max_image_mpx": _RULER,
    "dataset.background": _RULER,
    "dataset.void_values": _RULER,
    "dataset.contiguous_id": _RULER,
    "dataset.label_map": _RULER,
    "model.task_toggling": _RULER,
    "model.sem_seg_head.num_classes": _RULER,
    "train.best_metric": _RULER,
    "model.test": _FREE,
    "dataset.sources": _FILES,
    "dataset.train.format": _FILES,
    "dataset.train.images": _FILES,
    "dataset.train.annotations": _FILES,
    "dataset.train.panoptic": _FILES,
    "dataset.train.num_workers": _MACHINE,
    "dataset.pin_memory": _MACHINE,
    "train.num_gpus": _MACHINE,
    "train.gpu_ids": _MACHINE,
    "train.num_nodes": _MACHINE,
    "train.accelerator": _MACHINE,
    "train.cudnn": _MACHINE,
    "train.distributed_strategy": _MACHINE,
    "train.precision": _MACHINE,
    "train.verbose": _MACHINE,
    "train.log_interval": _MACHINE,
    "train.num_threads": _MACHINE,
    "train.activation_checkpointing": _MACHINE,
    "train.seed": "the luckiest seed is not a better setting",
    "train.num_epochs": _LENGTH,
    "train.stop_at_epoch": _LENGTH,
    "train.max_minutes": _LENGTH,
    "train.iters_per_epoch": _LENGTH,
    "train.optim.max_iter": _LENGTH,
    "train.validation_interval": _LENGTH,
    "train.val_check_interval": _LENGTH,
    "train.checkpoint_interval": _FILES,
    "train.checkpoint_interval_unit": _FILES,
    "train.keep_checkpoints": _FILES,
    "train.resume_training_checkpoint_path": _FILES,
    "train.results_dir": _FILES,
    "train.pretrained_model": _FILES,
    "train.pretrained_backbone": _FILES,
    "train.overwrite": _FILES,
    "train.is_dry_run": _LENGTH,
}
SEARCHED = ("model", "dataset", "train")


def why_not(key: str) -> str:
    """Why a key of the spec is never searched; empty when it may be. The key has to exist."""
    assert key in leaves()
    if unread := reason(key):
        return f"it has no effect: {unread}"
    parts = key.split(".")
    if parts[0] not in SEARCHED:
        return "training does not read it"
    return next((NEVER[k] for n in range(len(parts), 0, -1) if (k := ".".join(parts[:n])) in NEVER), "")
