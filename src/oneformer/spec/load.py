"""A YAML file and `key=value` words -> one checked ExperimentSpec, or all faults at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from oneformer.errors import SpecError, UserError, UserErrors
from oneformer.spec.check import checked
from oneformer.spec.experiment import ExperimentSpec
from oneformer.spec.flat import flatten, merge
from oneformer.spec.interpolate import interpolate
from oneformer.spec.node import Mark, Node, read_yaml
from oneformer.spec.override import SOURCE, apply_overrides
from oneformer.spec.rules import faults
from oneformer.spec.tao import from_file, from_tao
from oneformer.spec.tao_automl import from_tao_automl
from oneformer.spec.tree import build, get, leaves
from oneformer.spec.unread import unread_warnings

PRESETS = Path(__file__).resolve().parent.parent / "assets" / "presets"


@dataclass
class Loaded:
    """A spec and what is known about where it came from."""

    spec: ExperimentSpec
    """The resolved spec."""
    warnings: list[str] = field(default_factory=list)
    """One line for each key that was set and has no effect."""
    set_keys: tuple[str, ...] = ()
    """Dotted keys that file and overrides set, presets not counted."""


def load_spec(path: str | Path | None, overrides: Sequence[str] = (), *, action: str) -> ExperimentSpec:
    """The spec of one action: defaults, then the preset, then the file, then the overrides.

    Args:
        path: YAML file; None starts from the defaults.
        overrides: `section.key=value` words; the value is YAML.
        action: the verb the spec is for, such as `train`.

    Raises:
        UserErrors: everything that is wrong with the request, each fault with its place, what is allowed and the
            nearest right key.
    """
    return load(path, overrides, action=action).spec


def load(path: str | Path | None, overrides: Sequence[str] = (), *, action: str) -> Loaded:
    """Like `load_spec`, with the warnings beside the spec."""
    assert action, "a spec is loaded for an action"
    try:
        written = read_yaml(Path(path)) if path is not None else Node({}, Mark(SOURCE))
    except SpecError as error:
        raise UserErrors([error]) from error
    errors: list[UserError] = []
    written, wrong = apply_overrides(from_file(written), overrides, action=action)
    errors += wrong
    written, left_out = from_tao(written)
    written, wrong = _on_preset(written)
    errors += wrong
    resolved, wrong = interpolate(written)
    errors += wrong
    resolved, idle, wrong = from_tao_automl(resolved, presets=PRESETS)
    left_out += idle
    errors += wrong
    nodes, wrong = flatten(resolved)
    errors += wrong
    values, wrong = checked(nodes, leaves())
    errors += wrong
    spec = build(ExperimentSpec, values)
    errors += _between(spec, nodes, fine=set(values) | (set(leaves()) - set(nodes)))
    if errors:
        raise UserErrors(errors)
    _draw_seed(spec)
    if action == "inference":
        _name_images(spec)
    set_keys = tuple(key for key, node in nodes.items() if not node.mark.source.startswith(str(PRESETS)))
    return Loaded(spec, [*left_out, *unread_warnings(spec, set_keys)], set_keys)


def preset_names() -> list[str]:
    """The packaged presets."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def _on_preset(written: Node) -> tuple[Node, list[SpecError]]:
    """Lay what the user wrote over the preset it names."""
    named = written.value.get("preset")
    if named is None or not named.value:
        return written, []
    if named.text not in preset_names():
        known = ", ".join(preset_names())
        return written, [
            SpecError(
                f"there is no preset {named.text or 'of that kind'}", where=str(named.mark), hint=f"there are {known}"
            )
        ]
    return merge(read_yaml(PRESETS / f"{named.text}.yaml"), written), []


def _between(spec: ExperimentSpec, nodes: dict[str, Node], *, fine: set[str]) -> list[SpecError]:
    """Faults between values that are fine one by one, at the place of the first key that the user wrote."""
    errors = []
    for fault in faults(spec):
        if not all(key in fine for key in fault.keys):
            continue
        marks = [str(nodes[key].mark) for key in fault.keys if key in nodes]
        errors.append(SpecError(fault.what, where=marks[0] if marks else "defaults", hint=fault.hint))
    return errors


def _name_images(spec: ExperimentSpec) -> None:
    """Let inference read the test images where it is given none of its own."""
    images = get(spec, "dataset.test.images")
    if not get(spec, "inference.images_dir") and isinstance(images, str):
        spec.inference.images_dir = images


def _draw_seed(spec: ExperimentSpec) -> None:
    """Replace a seed of -1 by a drawn one, so that the resolved spec can be run again."""
    from secrets import randbelow

    if get(spec, "train.seed") == -1:
        spec.train.seed = randbelow(2**31)
