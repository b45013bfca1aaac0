"""What a weight file says, what its shapes tell and what the user adds -> one spec; the shapes are never overruled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oneformer.data.labels import LabelMap
from oneformer.errors import CheckpointError, SpecError, UserError, UserErrors
from oneformer.model.weights.checkpoint import Aside, CheckpointInfo, read_checkpoint
from oneformer.model.weights.found import Found, find
from oneformer.model.weights.sizes import HEADS, ROUNDED, differences, sizes_of
from oneformer.spec.experiment import ExperimentSpec
from oneformer.spec.flat import flatten
from oneformer.spec.interpolate import interpolate
from oneformer.spec.load import load
from oneformer.spec.model import ModelSpec
from oneformer.spec.node import Mark, Node, read_yaml
from oneformer.spec.override import apply_overrides
from oneformer.spec.tree import from_dict, leaves

PRESET = "preset"
KEPT = 6  # contradictions that one message lists


def read_model(path: str | Path) -> CheckpointInfo:
    """Open what describes itself: a checkpoint of ours or a Hugging Face folder.

    Raises:
        CheckpointError: it is missing, broken, unsafe, of another kind, or contradicts itself.
    """
    path = Path(path)
    if not path.is_dir():
        return read_checkpoint(path)
    found = find(path)
    assert found.labels is not None
    return described(found, settled(found), found.labels)


def settled(found: Found, spec_file: Path | None = None, words: Sequence[str] = ()) -> ExperimentSpec:
    """The spec of a weight file: the user's values, then the file's own, then what its shapes tell, then defaults.

    Args:
        found: the file.
        spec_file: YAML file for what the file does not say.
        words: `section.key=value`, laid over both.

    Raises:
        CheckpointError: the file contradicts its own shapes, or says what cannot be.
        UserErrors: the user's spec is wrong or contradicts the shapes.
    """
    given = users_keys(spec_file, words)
    check_told(found)
    heads = given[HEADS].value if HEADS in given else found.told.get(HEADS, ModelSpec().one_former.nheads)
    shapes = sizes_of(found.state, heads=heads) if isinstance(heads, int) and heads > 0 else {}
    told = {key: value for key, value in {**shapes, **found.told}.items() if key not in given}
    if PRESET not in given:  # most are defaults, and need not be said
        told = {key: value for key, value in told.items() if value != leaves()[key].default}
    try:
        spec = load(spec_file, [*(f"{k}={json.dumps(v)}" for k, v in told.items()), *words], action="checkpoint").spec
    except UserErrors as errors:
        if given:
            raise
        raise CheckpointError(f"what it says cannot be: {errors.errors[0].what}", where=str(found.path)) from errors
    if not spec.model.sem_seg_head.num_classes:
        spec.model.sem_seg_head.num_classes = shapes.get("model.sem_seg_head.num_classes", 0)
    wrong: list[UserError] = [
        SpecError(f"{key} is {said!r}, but the weights have {is_!r}", where=str(spec_file or "command line"))
        for key, (said, is_) in differences(spec.model, found.state).items()
    ]
    if wrong:
        raise UserErrors(wrong)
    return spec


def users_keys(spec_file: Path | None, words: Sequence[str]) -> dict[str, Node]:
    """The dotted keys that the user's file and words set; their faults are left to `load`, which tells them all."""
    written = read_yaml(spec_file) if spec_file else Node({}, Mark("command line"))
    written, _ = apply_overrides(written, words)
    resolved, _ = interpolate(written)
    return flatten(resolved)[0]


def nested(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested dictionaries."""
    out: dict[str, Any] = {}
    for key, value in keys.items():
        *sections, name = key.split(".")
        at = out
        for section in sections:
            at = at.setdefault(section, {})
        at[name] = value
    return out


def check_told(found: Found) -> None:
    """What a file says of itself has to be possible, and so that its tensors have the sizes it says.

    Raises:
        CheckpointError: it contradicts its tensors.
        UserErrors: it says what no spec can say.
    """
    from_dict(ExperimentSpec, nested(found.told), where=str(found.path))
    shapes = sizes_of(found.state, heads=found.told.get(HEADS, ModelSpec().one_former.nheads))
    exact = {key: value for key, value in shapes.items() if key in found.told and not key.endswith(ROUNDED)}
    lies = [f"{k} as {found.told[k]!r}, the weights have {v!r}" for k, v in exact.items() if found.told[k] != v]
    if lies:
        more = f" and {len(lies) - KEPT} more" if len(lies) > KEPT else ""
        raise CheckpointError(
            f"it contradicts its weights: it gives {'; '.join(lies[:KEPT])}{more}", where=str(found.path)
        )


def described(found: Found, spec: ExperimentSpec, labels: LabelMap) -> CheckpointInfo:
    """A found file with a spec and classes: everything that is needed to use it."""
    info = found.info
    sizes = spec.dataset.augmentation
    network = {name: tensor for name, tensor in found.state.items() if not name.startswith("criterion.")}
    return CheckpointInfo(
        labels=labels,
        model=spec.model,
        pixel_mean=tuple(spec.dataset.pixel_mean),
        pixel_std=tuple(spec.dataset.pixel_std),
        test_min_size=sizes.test_min_size,
        test_max_size=sizes.test_max_size,
        state_dict=network,
        epoch=info.epoch if info else 0,
        step=info.step if info else 0,
        metrics=info.metrics if info else {},
        version=info.version if info else "",
        criterion={name: tensor for name, tensor in found.state.items() if name not in network},
        aside=info.aside if info else Aside(found.kind, found.left),
    )
