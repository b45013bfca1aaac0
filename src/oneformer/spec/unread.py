"""A checked spec -> one warning for each key that was set but changes nothing here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from oneformer.spec.backbone import SECTIONS
from oneformer.spec.experiment import ExperimentSpec
from oneformer.spec.tree import get, leaves

_ONE_CHOICE = "there is one choice"

# Key of TAO, or the section it lies in -> why its meaning cannot exist here. Keys of our own have no place in it.
UNREAD: dict[str, str] = {
    "model_name": "it is only kept in experiment.yaml",
    "export.input_channel": _ONE_CHOICE,
    "model.backbone.swin.out_indices": "model.backbone.swin.out_features names the maps",
    "model.backbone.dinat.out_indices": "model.backbone.dinat.out_features names the maps",
    "model.backbone.radio.summary_idxs": "summaries describe whole images, the maps are made of the patches",
    "model.sem_seg_head.name": _ONE_CHOICE,
    "model.sem_seg_head.ignore_value": "panoptic masks mark pixels without a class by the id 0",
    "model.one_former.transformer_decoder_name": _ONE_CHOICE,
    "model.one_former.transformer_in_feature": _ONE_CHOICE,
    "model.export": "the network is exported as it is trained, without a special mode",
    "model.test.semantic_on": "model.task_toggling and evaluate.task choose the tasks",
    "model.test.instance_on": "model.task_toggling and evaluate.task choose the tasks",
    "model.test.panoptic_on": "model.task_toggling and evaluate.task choose the tasks",
    "model.test.detection_on": "instance results always carry their boxes",
    "dataset.train.names": "nothing is scored on the training images, so no table names them",
    "dataset.workers": "dataset.<split>.num_workers sets the loader processes of each split",
    "train.optim.type": _ONE_CHOICE,
    "train.optim.monitor_name": "no schedule here watches a metric",
}

_DECODER = "model.sem_seg_head.pixel_decoder_name"
_DEFORMABLE = "MSDeformAttnPixelDecoder"
_ATTENTION = (_DEFORMABLE, "TransformerEncoderPixelDecoder")

_BACKBONE = "model.backbone"

# Key -> the pixel decoders that read it.
READ_BY: dict[str, tuple[str, ...]] = {
    "model.sem_seg_head.deformable_transformer_encoder_in_features": (_DEFORMABLE,),
    "model.sem_seg_head.num_points": (_DEFORMABLE,),
    "model.sem_seg_head.transformer_enc_layers": _ATTENTION,
    "model.sem_seg_head.dim_feedforward": _ATTENTION,
}


def reason(key: str) -> str:
    """Why nothing reads a key; empty for keys that act."""
    parts = key.split(".")
    return next((UNREAD[k] for n in range(len(parts), 0, -1) if (k := ".".join(parts[:n])) in UNREAD), "")


def unread_warnings(spec: ExperimentSpec, set_keys: Iterable[str]) -> list[str]:
    """One line for each key in `set_keys` that differs from its default and has no effect."""
    said = []
    for key in set_keys:
        why = reason(key) or _unread_by(get(spec, _DECODER), key) or _of_another_backbone(spec, key)
        if why and _differs(get(spec, key), leaves()[key].default):
            said.append(f"{key} has no effect: {why}")
    return said


def _unread_by(decoder: str, key: str) -> str:
    readers = READ_BY.get(key, (decoder,))
    return "" if decoder in readers else f"{decoder} does not read it ({_DECODER})"


def _of_another_backbone(spec: ExperimentSpec, key: str) -> str:
    chosen = SECTIONS[spec.model.backbone.name]
    others = tuple(f"{_BACKBONE}.{section}." for section in SECTIONS.values() if section != chosen)
    return f"the backbone is {chosen} ({_BACKBONE}.name)" if key.startswith(others) else ""


def _differs(value: Any, default: Any) -> bool:
    return bool(value != default and (value or default))
