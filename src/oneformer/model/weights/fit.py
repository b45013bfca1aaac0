"""A model's description and its tensors -> what fits and what does not, before anything is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from oneformer.errors import CheckpointError
from oneformer.model.oneformer import build_model
from oneformer.model.weights.checkpoint import Aside, CheckpointInfo
from oneformer.model.weights.load import NOT_OURS, LoadReport

TEXT = "text."
# Tensors of others that our network computes itself, or that nothing uses there either: not worth a line.
COMPUTED = (*NOT_OURS, "criterion.empty_weight", "swin.layernorm.weight", "swin.layernorm.bias")
TASK = ("task.", "decoder.initialiser.")


def has_text(state: dict[str, Tensor]) -> bool:
    """Whether the text branch is among the tensors."""
    return any(name.startswith(TEXT) for name in state)


def compared(info: CheckpointInfo, left: Iterable[str] = ()) -> LoadReport:
    """Names and shapes of the tensors against those of the network that the description gives.

    The text branch may be missing as a whole: it is used in training only. `left` are tensors of the file without a
    name of ours.
    """
    state = info.state_dict
    with torch.device("meta"):
        own = build_model(info.model, text_branch=has_text(state)).state_dict()
    same = [name for name in own if name in state]
    fitting = [name for name in same if state[name].shape == own[name].shape]
    return LoadReport(
        matched=tuple(fitting),
        missing=tuple(n for n in own if n not in state and not n.endswith(NOT_OURS)),
        unexpected=(*(n for n in state if n not in own), *(n for n in left if not n.endswith(COMPUTED))),
        mismatched=tuple((n, tuple(state[n].shape), tuple(own[n].shape)) for n in same if n not in fitting),
        notes=() if has_text(state) else ("there is no text branch: training starts it afresh",),
    )


def tidied(info: CheckpointInfo, report: LoadReport) -> CheckpointInfo:
    """The model with tensors that its network does not know put aside, such as the classifier of a backbone."""
    strange = {name: tensor for name, tensor in info.state_dict.items() if name in report.unexpected}
    known = {name: tensor for name, tensor in info.state_dict.items() if name not in strange}
    return replace(info, state_dict=known, aside=Aside(info.aside.layout, info.aside.tensors | strange))


def completed(info: CheckpointInfo, report: LoadReport) -> CheckpointInfo:
    """The model with what is missing initialised as for training, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = build_model(info.model, text_branch=has_text(info.state_dict)).state_dict()
    return replace(info, state_dict={**info.state_dict, **{name: fresh[name] for name in report.missing}})


def check_fit(info: CheckpointInfo, report: LoadReport, *, task_may_miss: bool, where: str) -> None:
    """Raise CheckpointError when the tensors are not those of the network.

    Args:
        info: the model.
        report: what `compared` found.
        task_may_miss: the parts that make queries of the task may be missing, as in a Mask2Former.
        where: the weight file.
    """
    missing = [name for name in report.missing if not (task_may_miss and name.startswith(TASK))]
    faults = [f"{name} is {file}, not {net}" for name, file, net in report.mismatched]
    if not (missing or faults):
        return
    strange = [name for name in info.state_dict if name in report.unexpected]
    counts = f"{len(missing)} are missing, {len(strange)} unknown, {len(faults)} of another shape"
    first = [*(f"{name} is missing" for name in missing), *faults][0]
    raise CheckpointError(
        f"the weights do not fit the network that they seem to be of: {counts}; {first}",
        where=where,
        hint="say what the file does not: -e spec.yaml or model.section.key=value",
    )
