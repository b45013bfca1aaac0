"""A task MLP that reads sentences padded with end tokens -> one that reads zeros there and computes the same."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from oneformer.data.task import TASKS
from oneformer.data.tokens import END, task_tokenizer
from oneformer.model.weights.checkpoint import CheckpointInfo
from oneformer.spec.model import ModelSpec
from oneformer.spec.tree import from_dict, to_dict

FIRST = "task.mlp.layers.0."


def as_published(info: CheckpointInfo) -> CheckpointInfo:
    """The same network for task sentences padded with zeros, as Hugging Face and SHI-Labs pad them.

    The end tokens behind every task sentence add the same to the first layer whatever the task is, so that the layer's
    bias can hold it. The last place where the sentences differ in nothing but padding is the end token's own.
    """
    if info.model.text_encoder.task_padding == "clip":
        return info
    model = from_dict(ModelSpec, to_dict(info.model))
    rows = torch.stack([task_tokenizer(model.text_encoder).task_tokens(task) for task in TASKS])  # (3, T)
    same = (rows == END).all(dim=0)  # (T,)
    model.text_encoder.task_padding = "clip"
    weight, bias = info.state_dict[FIRST + "weight"], info.state_dict[FIRST + "bias"]
    added = END * weight[:, same].double().sum(dim=1)  # (C,)
    folded: dict[str, Tensor] = {
        FIRST + "weight": torch.where(same, torch.zeros_like(weight), weight),
        FIRST + "bias": (bias.double() + added).to(bias.dtype),
    }
    return replace(info, model=model, state_dict={**info.state_dict, **folded})
