"""A tree of nodes -> nodes by dotted key, unknown keys with the nearest right one; and the merging of such trees."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from typing import Any, get_origin

from oneformer.errors import SpecError
from oneformer.spec.check import parts, shown
from oneformer.spec.experiment import ExperimentSpec
from oneformer.spec.node import Node
from oneformer.spec.tree import leaves, sections

# What people call a key in other tools -> its name here; only asked when the name itself is unknown.
_OTHER_NAMES = {
    "learning_rate": ("train.optim.lr",),
    "epochs": ("train.num_epochs",),
    "max_epochs": ("train.num_epochs",),
    "gpus": ("train.num_gpus",),
    "devices": ("train.num_gpus",),
    "amp": ("train.precision",),
    "weights": ("train.pretrained_model", "evaluate.checkpoint", "inference.checkpoint"),
    "resume": ("train.resume_training_checkpoint_path",),
    "output_dir": ("results_dir",),
    "num_queries": ("model.one_former.num_object_queries",),
    "in_features": ("model.sem_seg_head.in_features",),
    "optimizer": ("train.optim",),
    "scheduler": ("train.optim.lr_scheduler",),
}


def flatten(root: Node, cls: type = ExperimentSpec) -> tuple[dict[str, Node], list[SpecError]]:
    """A table -> its values by dotted key, and one error for each key that the spec does not have."""
    known, parents = leaves(cls), sections(cls)
    found: dict[str, Node] = {}
    errors: list[SpecError] = []

    def walk(node: Node, prefix: str) -> None:
        for name, child in node.value.items():
            key = prefix + name
            if key in known:
                found[key] = child
            elif key not in parents:
                errors.append(unknown_key(key, child, cls))
            elif isinstance(child.value, dict):
                walk(child, f"{key}.")
            elif child.value is not None:  # `train:` with nothing below it is an empty section
                errors.append(
                    SpecError(
                        f"{key} is {shown(child)}, but it is a section with keys of its own",
                        where=str(child.mark),
                        hint="write " + ", ".join(f"{key}.{k}" for k in list(_below(key, cls))[:3]) + ", ...",
                    )
                )

    if not isinstance(root.value, dict):
        return {}, [SpecError(f"this is {shown(root)}, but must be a table", where=str(root.mark))]
    walk(root, "")
    return found, errors


def _below(key: str, cls: type) -> list[str]:
    start = f"{key}."
    names = [k[len(start) :].split(".")[0] for k in [*leaves(cls), *sections(cls)] if k.startswith(start)]
    return list(dict.fromkeys(names))


def unknown_key(key: str, node: Node, cls: type = ExperimentSpec) -> SpecError:
    """The error for a key that does not exist, with the one that was probably meant."""
    near = nearest(key, cls)
    hint = f"did you mean {' or '.join(near)}?" if near else "`oneformer default_specs` lists every key"
    return SpecError(f"there is no key {key}", where=str(node.key_mark or node.mark), hint=hint)


def nearest(key: str, cls: type = ExperimentSpec) -> list[str]:
    """Up to three keys that a wrong key may have meant, the likeliest first."""
    everything = [*leaves(cls), *sections(cls)]
    section, _, name = key.rpartition(".")
    siblings = get_close_matches(
        name, _below(section, cls) if section else [k for k in everything if "." not in k], n=1
    )
    found = [f"{section}.{s}" if section else s for s in siblings]
    # The end of a key, such as optim.lr.
    ends = {k.split(".", k.count(".") - key.count("."))[-1]: k for k in everything if k.count(".") > key.count(".")}
    found += [ends[end] for end in get_close_matches(key, ends, n=1, cutoff=0.8)] if section else []
    same = [k for k in everything if k.rpartition(".")[2].lower() == name.lower()]
    # Of several namesakes the one whose path looks most like what was written comes first.
    found += get_close_matches(key, same, n=len(same) or 1, cutoff=0.0) if section else same
    found += [k for k in _OTHER_NAMES.get(name.lower(), ()) if k in everything]
    found += get_close_matches(key, everything, n=2, cutoff=0.8)
    if not found:
        found += get_close_matches(key, everything, n=1, cutoff=0.6)
    return list(dict.fromkeys(found))[:3]


def merge(below: Node, above: Node, prefix: str = "") -> Node:
    """Two tables -> one in which the second wins key by key; a value that is a table is replaced as a whole."""
    if not (isinstance(below.value, dict) and isinstance(above.value, dict)):
        return above
    merged: dict[str, Any] = dict(below.value)
    for name, node in above.value.items():
        key = prefix + name
        if node.value is None and name in merged and key in sections():
            continue  # an empty section says nothing
        known = name in merged and key not in leaves()
        merged[name] = merge(merged[name], node, f"{key}.") if known else node
    return replace(above, value=merged)


def is_table(key: str) -> bool:
    """Whether a key holds a table as its value."""
    leaf = leaves().get(key)
    return leaf is not None and get_origin(parts(leaf.annotation)[0]) is dict
