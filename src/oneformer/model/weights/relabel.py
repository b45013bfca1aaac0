"""A model and another list of classes -> the model with a class head for that list; what is new in it starts afresh."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from oneformer.data.labels import LabelMap, labels_of
from oneformer.errors import CheckpointError
from oneformer.model.weights.checkpoint import Aside, CheckpointInfo
from oneformer.spec.model import ModelSpec
from oneformer.spec.tree import from_dict, to_dict

HEAD = "decoder.class_embed."
EMPTY_WEIGHT = "criterion.empty_weight"


@dataclass(frozen=True)
class Relabelled:
    """A model with other classes, and what became of them."""

    info: CheckpointInfo
    notes: tuple[str, ...] = ()
    """In words, for the report; nothing when no class is new, gone or moved."""
    reshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    """Tensors of the class head with another number of rows: name, shape before, shape now."""


def relabelled(info: CheckpointInfo, labels: LabelMap, *, named: bool, where: str) -> Relabelled:
    """Give a model another class list: rows of classes with equal names are kept, the others start afresh.

    Args:
        info: the model.
        labels: its new classes.
        named: whether the model knows the names of its classes; without them a list of as many classes names them.
        where: the weight file, for errors.

    Raises:
        CheckpointError: the classes have no names, and the list has another number of them.
    """
    have = info.model.sem_seg_head.num_classes
    if not named and labels.num_classes != have:
        raise CheckpointError(
            f"the weights have {have} classes without names, the label map has {labels.num_classes}",
            where=where,
            hint="give the label map they were trained with first; a second conversion can then change the classes",
        )
    if not named or labels.names == info.labels.names:
        return Relabelled(replace(info, labels=labels))
    head = new_head(info.state_dict, rows_by_name(info.labels, labels))
    model = from_dict(ModelSpec, to_dict(info.model))
    model.sem_seg_head.num_classes = labels.num_classes
    changed = replace(
        info,
        labels=labels,
        model=model,
        state_dict={**info.state_dict, **head},
        metrics={},  # scores of the old classes
        aside=Aside(info.aside.layout, {n: t for n, t in info.aside.tensors.items() if n != EMPTY_WEIGHT}),
    )
    shapes = ((name, tuple(info.state_dict[name].shape), tuple(tensor.shape)) for name, tensor in head.items())
    return Relabelled(
        changed, tuple(class_notes(info.labels, labels)), tuple(row for row in shapes if row[1] != row[2])
    )


def rows_by_name(old: LabelMap, new: LabelMap) -> list[int]:
    """For each class of the new list its place in the old one, -1 for none."""
    places = {name: i for i, name in enumerate(old.names)}
    return [places.get(name, -1) for name in new.names]


def class_notes(old: LabelMap, new: LabelMap) -> list[str]:
    """What becomes of the classes, in words."""
    kept = [name for name in new.names if name in old.names]
    fresh = [name for name in new.names if name not in old.names]
    gone = [name for name in old.names if name not in new.names]
    told = [f"{len(kept)} classes keep their rows of the class head"]
    told += [f"{len(fresh)} start afresh: {shown(fresh)}"] if fresh else []
    told += [f"{len(gone)} are gone: {shown(gone)}"] if gone else []
    return ["; ".join(told) + (": train the model before use" if fresh else "")]


def new_head(state: dict[str, Tensor], rows: list[int]) -> dict[str, Tensor]:
    """The class head with row `rows[i]` as class i, -1 for a new one; the row of "no object" stays the last."""
    weight, bias = state[HEAD + "weight"], state[HEAD + "bias"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same conversion gives the same file
        fresh = nn.Linear(weight.shape[1], len(rows) + 1)
    out: dict[str, Tensor] = {}
    for name, old, start in (("weight", weight, fresh.weight), ("bias", bias, fresh.bias)):
        made = start.detach().to(old.dtype).clone()
        for i, row in enumerate([*rows, old.shape[0] - 1]):
            if row >= 0:
                made[i] = old[row]
        out[HEAD + name] = made
    return out


def placeholder(count: int) -> LabelMap:
    """Classes without names, for targets that keep none."""
    entries = [{"id": i, "name": f"class {i}"} for i in range(count)]
    return labels_of(entries, where="classes without names")


def shown(names: list[str], most: int = 6) -> str:
    """Some of the names."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
