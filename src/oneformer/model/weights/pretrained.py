"""A weight file or folder of anybody -> the starting point of a training, with a report of what fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from oneformer.data.labels import LabelMap
from oneformer.errors import CheckpointError
from oneformer.model.oneformer import OneFormer
from oneformer.model.weights.describe import describe
from oneformer.model.weights.fit import COMPUTED
from oneformer.model.weights.found import Found, find
from oneformer.model.weights.hf_folder import is_hf
from oneformer.model.weights.load import NOT_OURS, LoadReport, check_file, put
from oneformer.model.weights.relabel import HEAD, class_notes, new_head, rows_by_name

PADDING = "model.text_encoder.task_padding"


def check_whole(path: Path) -> None:
    """Raise CheckpointError when there is neither a weight file nor a Hugging Face folder."""
    if not is_hf(path):
        check_file(path)


def load_pretrained(model: OneFormer, path: Path, labels: LabelMap) -> LoadReport:
    """Put the weights of a whole OneFormer, or of a Mask2Former as far as it goes, into `model`.

    Classes are matched by name where the file names its own; a class that it does not have, and whatever has another
    shape, stays as it is initialised.

    Args:
        model: the network to be trained.
        path: a weight file of any kind, or a Hugging Face folder.
        labels: the classes of the training.

    Raises:
        CheckpointError: the file cannot be read, or most of its backbone does not fit, so that it is another model's.
    """
    found = find(path)
    own = model.state_dict()
    state = {n: v for n, v in found.state.items() if not n.startswith("criterion.") and not n.endswith(NOT_OURS)}
    backbone = [n for n in own if n.startswith("backbone.")]
    fitting = [n for n in backbone if n in state and own[n].shape == state[n].shape]
    if 2 * len(fitting) < len(backbone):
        raise nothing_fits(found, own)
    notes = []
    if found.labels and found.labels.names != labels.names and HEAD + "weight" in state:
        rows = rows_by_name(found.labels, labels)
        state |= new_head(state, rows)
        notes += class_notes(found.labels, labels)
    padding, here = found.told.get(PADDING, "clip"), model.spec.text_encoder.task_padding
    if padding != here:
        notes.append(f"the weights were trained with {PADDING}={padding}, here it is {here}: set it for a good start")
    report = put(model, state)
    left = [name for name in found.left if not name.endswith(COMPUTED)]
    return replace(report, unexpected=(*report.unexpected, *left), notes=tuple(notes))


def nothing_fits(found: Found, own: Mapping[str, Tensor]) -> CheckpointError:
    """The error for a file of another network, with what both seem to be."""
    backbone = {name: tensor for name, tensor in own.items() if name.startswith("backbone.")}
    theirs = {name: tensor for name, tensor in found.state.items() if name.startswith("backbone.")} or found.left
    return CheckpointError(
        f"its backbone does not fit: it holds {describe(theirs)} ({found.words}), the backbone here is"
        f" {describe(backbone)}",
        where=str(found.path),
        hint="choose the file or the sizes of model.backbone so that they agree;"
        " a backbone alone goes into train.pretrained_backbone",
    )
