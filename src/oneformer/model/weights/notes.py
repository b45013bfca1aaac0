"""A converted model -> what its user has to know, a sentence each."""

from __future__ import annotations

from oneformer.model.weights.checkpoint import CheckpointInfo
from oneformer.model.weights.fit import has_text
from oneformer.model.weights.found import Found
from oneformer.model.weights.hf_folder import TRAINING
from oneformer.model.weights.load import LoadReport
from oneformer.model.weights.sizes import HEADS
from oneformer.model.weights.targets import HF_KINDS, SHI_KINDS, text_left_out

DILATIONS = "model.backbone.dinat.dilations"


def notes_on(found: Found, info: CheckpointInfo, target: str, report: LoadReport) -> list[str]:
    """Sentences for the report.

    Args:
        found: the source.
        info: the model.
        target: `ours`, `shi` or `hf`.
        report: what fitted.
    """
    return [
        *assumed(found, info),
        *task(info, target),
        *started(found, made=len(report.missing)),
        *texts(info, target),
        *kept_aside(found, target, report),
    ]


def assumed(found: Found, info: CheckpointInfo) -> list[str]:
    """What neither the file nor its shapes tell."""
    notes = []
    if HEADS not in found.told:
        notes.append(f"{HEADS} is {info.model.one_former.nheads}: the file does not tell")
    if info.model.backbone.name == "D2DiNAT" and DILATIONS not in found.told:
        notes.append(f"{DILATIONS} is {info.model.backbone.dinat.dilations or 'all 1'}: the file does not tell")
    return notes


def task(info: CheckpointInfo, target: str) -> list[str]:
    """What fills up the task sentence."""
    if info.model.text_encoder.task_padding == "clip":
        return []
    if target == "ours":
        return [
            "task sentences are filled up with end tokens, as in NVIDIA TAO's training"
            " (model.text_encoder.task_padding=tao); with zeros the weights would give other results"
        ]
    return ["the end tokens that NVIDIA TAO fills task sentences up with are folded into the task MLP's bias"]


def started(found: Found, *, made: int) -> list[str]:
    """What a Mask2Former lacks."""
    if not made:
        return []
    lost = [name for name in found.left if "query_feat" in name or "static_query" in name]
    more = f"; its learned queries ({lost[0]}) have no place here" if lost else ""
    return [f"{made} tensors that make queries of the task are new{more}: train the model before use"]


def texts(info: CheckpointInfo, target: str) -> list[str]:
    """What becomes of the text branch at Hugging Face."""
    if target != "hf" or not has_text(info.state_dict):
        return []
    if text_left_out(info):
        return ["the text branch is left out: theirs has to be as wide as its queries"]
    if info.aside.layout in HF_KINDS:
        return ["the text branch is in the model file: from_pretrained(folder, is_training=True) uses it"]
    return [f"the text branch, which only training needs, is in {TRAINING}"]


def kept_aside(found: Found, target: str, report: LoadReport) -> list[str]:
    """What becomes of tensors that our network has no place for."""
    if not report.unexpected or target != "ours" or found.kind not in (*HF_KINDS, *SHI_KINDS):
        return []
    return ["what is in the file only is kept aside, for the way back to where it came from"]
