"""A spec with search marks and the wishes of the user -> the space that is searched, and specs of its points."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from oneformer.automl.custom import Wish, wishes
from oneformer.automl.dimension import Dimension
from oneformer.automl.population import why_not as fixed
from oneformer.automl.refused import why_not
from oneformer.errors import SpecError, UserErrors
from oneformer.spec import ExperimentSpec
from oneformer.spec.check import alternatives, parts
from oneformer.spec.field import Search
from oneformer.spec.flat import nearest
from oneformer.spec.rules import faults
from oneformer.spec.tree import Leaf, get, leaves

LONG = 40  # trials from which on the second tier pays


@dataclass(frozen=True)
class Space:
    """The searched keys, in the order of the spec."""

    dimensions: tuple[Dimension, ...]
    left_out: Mapping[str, str]
    """Keys that would be searched by default -> why they are not here."""

    def own(self) -> dict[str, Any]:
        """The spec's own point: the first trial."""
        return {d.key: d.own for d in self.dimensions}

    def draw(self, places: Callable[[], float]) -> dict[str, Any]:
        """A point, one place 0..1 asked for each key."""
        return {d.key: d.at(places()) for d in self.dimensions}

    def applied(self, spec: ExperimentSpec, values: Mapping[str, Any]) -> ExperimentSpec:
        """A copy of the spec at a point."""
        changed = deepcopy(spec)
        for dimension in self.dimensions:
            for key in (dimension.key, *dimension.ties):
                section, _, name = key.rpartition(".")
                setattr(get(changed, section), name, deepcopy(values[dimension.key]))
        return changed

    def faults(self, spec: ExperimentSpec, values: Mapping[str, Any]) -> list[str]:
        """What the spec's rules say against a point; the trial is then told as not feasible, not patched."""
        return [fault.what for fault in faults(self.applied(spec, values))]

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {d.key: d.to_dict() for d in self.dimensions}


def space_of(spec: ExperimentSpec) -> Space:
    """The space that `automl` asks for.

    Raises:
        UserErrors: keys that do not exist or are never searched, ranges that make no sense; all of them at once.
    """
    asked, errors = wishes(spec.automl)
    tier = spec.automl.tier or (2 if spec.automl.max_trials >= LONG else 1)
    population = spec.automl.algorithm == "pbt"
    found: dict[str, Dimension] = {}
    left_out: dict[str, str] = {}
    for key, leaf in leaves().items():
        mark = mark_of(leaf)
        by_name = key in asked
        if not by_name and (spec.automl.parameters or mark is None or mark.tier > tier):
            continue
        try:
            if why := why_not(key) or (unmet(spec, mark.when) if mark else "") or (fixed(key) if population else ""):
                raise SpecError(f"{key} cannot be searched: {why}", where=_where(asked.get(key)))
            found[key] = dimension_of(spec, leaf, mark, asked.get(key))
        except SpecError as error:
            if by_name:
                errors.append(error)
            else:
                left_out[key] = error.what.removeprefix(f"{key} cannot be searched: ")
    for key in asked:
        if key not in leaves():
            near = nearest(key)
            hint = f"did you mean {' or '.join(near)}?" if near else ""
            errors.append(SpecError(f"there is no key {key}", where=_where(asked[key]), hint=hint))
    if not found and not errors:
        errors.append(SpecError("there is nothing to search", where="automl.parameters", hint="name some keys"))
    if errors:
        raise UserErrors(errors)
    return Space(tuple(found.values()), left_out)


def _where(wish: Wish | None) -> str:
    return wish.where if wish else "automl.parameters"


def mark_of(leaf: Leaf) -> Search | None:
    """How the spec says that a key is drawn."""
    return next((m for m in leaf.marks if isinstance(m, Search)), None)


def unmet(spec: ExperimentSpec, when: str) -> str:
    """Why a condition does not hold; empty when it does."""
    if not when:
        return ""
    key, negated, wanted = when.partition("!=") if "!=" in when else when.partition("=")
    value = get(spec, key)
    if negated == "!=":
        has = wanted in value if isinstance(value, list) else str(value) == wanted
        return f"{key} is {value}" if has else ""
    return "" if str(value) in wanted.split("|") else f"{key} is {value}"


def dimension_of(spec: ExperimentSpec, leaf: Leaf, mark: Search | None, wish: Wish | None) -> Dimension:
    """How one key is drawn: by the user's range, else by its mark, else all choices of a switch or list of choices.

    Raises:
        SpecError: there is no range, or the range does not suit the key.
    """
    own = get(spec, leaf.key)
    ties = mark.ties if mark else ()
    if wish and wish.options:
        return _choice(leaf.key, own, wish.options, wish.weights, ties)
    kind = next((k for m in alternatives(leaf.annotation) if (k := parts(m)[0]) is not NoneType), None)
    ranged = wish is not None and wish.low is not None
    if not ranged and mark and mark.choices:
        return _choice(leaf.key, own, mark.choices, (), ties)
    if not ranged and kind is bool:
        return _choice(leaf.key, own, (False, True), (), ties)
    if not ranged and get_origin(kind) is Literal:
        return _choice(leaf.key, own, get_args(kind), (), ties)
    if kind not in (int, float) or isinstance(own, list | dict):
        hint = "give it valid_options in automl.ranges"
        raise SpecError(f"{leaf.key} is no number", where=_where(wish), hint=hint)
    if not ranged and mark is None:
        hint = f"automl.ranges: {{{leaf.key}: {{valid_min: ..., valid_max: ...}}}}"
        raise SpecError(f"{leaf.key} has no range of its own", where=_where(wish), hint=hint)
    low, high, log = _range(spec, leaf, mark, wish)
    if own is None:
        own = low
    low, high = min(low, own), max(high, own)
    if log and low <= 0:
        what = f"{leaf.key} is drawn on a logarithmic scale, but its range begins at {low:g}"
        raise SpecError(what, where=_where(wish), hint="scale: linear in automl.ranges, or a value above 0")
    name: Literal["float", "int"] = "int" if kind is int else "float"
    if name == "int":
        low, high = math.ceil(low), math.floor(high)
    return Dimension(leaf.key, name, own, low, high, log, ties=ties)


def _choice(
    key: str, own: Any, options: tuple[Any, ...], weights: tuple[float, ...], ties: tuple[str, ...]
) -> Dimension:
    """A choice; the spec's own value is always among the options."""
    if own not in options:
        options = (*options, own)
        weights = (*weights, min(w for w in weights if w > 0)) if weights else ()
    return Dimension(key, "choice", own, choices=options, weights=weights, ties=ties)


def _range(spec: ExperimentSpec, leaf: Leaf, mark: Search | None, wish: Wish | None) -> tuple[float, float, bool]:
    log = mark is not None and mark.scale == "log"
    if wish is not None and wish.low is not None and wish.high is not None:
        return wish.low, wish.high, wish.scale == "log" if wish.scale else log and wish.low > 0
    assert mark is not None
    if not mark.spread:
        return mark.low, mark.high, log
    middle = get(spec, leaf.key)
    if mark.images and middle == leaf.default:
        middle *= math.sqrt(images_per_step(spec) / mark.images)
    return middle / mark.spread, middle * mark.spread, log


def images_per_step(spec: ExperimentSpec) -> int:
    """Images that one optimiser step learns from."""
    train = spec.train
    return spec.dataset.train.batch_size * train.accumulate_grad_batches * train.num_gpus * train.num_nodes
