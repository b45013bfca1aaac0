"""A spec with search marks and the wishes of the user -> the space that is searched, and specs of its points."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from oneformer.automl.custom import Wish, wishes
from oneformer.automl.dimension import Dimension
from oneformer.automl.drawn import dimension_of, where_of
from oneformer.automl.population import why_not as fixed
from oneformer.automl.refused import why_not
from oneformer.errors import SpecError, UserError, UserErrors
from oneformer.spec import ExperimentSpec
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
        return self.settled({d.key: d.at(places()) for d in self.dimensions})

    def settled(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A point, every value that breaks its bound to another key moved to the same place of the range that is left.

        Where nothing is left the value stays; `faults` tells it.
        """
        found = dict(values)
        for d in parents_first([d for d in self.dimensions if d.bound]):
            assert d.bound
            parent, value = found[d.bound.parent], found[d.key]
            if not d.obeys(value, parent) and (left := d.beside(parent)):
                found[d.key] = left.at(d.place_of(value))
        return found

    def within(self, ranges: Mapping[str, Sequence[float]]) -> Space:
        """The space with other ranges of some keys."""
        return self._with({key: (low, high) for key, (low, high) in ranges.items()})

    def around(self, ranges: Sequence[Mapping[str, Sequence[float]]]) -> Space:
        """The smallest space that holds this one and all of these ranges of its keys."""
        found: dict[str, tuple[float, float]] = {}
        by_key = {d.key: d for d in self.dimensions}
        for key, (low, high) in (item for each in ranges for item in each.items()):
            before = found.get(key, (by_key[key].low, by_key[key].high))
            found[key] = min(before[0], low), max(before[1], high)
        return self._with(found)

    def _with(self, ranges: Mapping[str, tuple[float, float]]) -> Space:
        if not ranges:
            return self
        dimensions = tuple(
            replace(d, low=ranges[d.key][0], high=ranges[d.key][1]) if d.key in ranges else d for d in self.dimensions
        )
        return replace(self, dimensions=dimensions)

    @property
    def points(self) -> float:
        """How many there are; infinite with a number that is not whole."""
        return math.prod(
            len(d.choices) if d.kind == "choice" else (d.high - d.low) // d.step + 1 if d.kind == "int" else math.inf
            for d in self.dimensions
        )

    def applied(self, spec: ExperimentSpec, values: Mapping[str, Any]) -> ExperimentSpec:
        """A copy of the spec at a point."""
        changed = deepcopy(spec)
        for dimension in self.dimensions:
            for key in (dimension.key, *dimension.ties):
                section, _, name = key.rpartition(".")
                setattr(get(changed, section), name, deepcopy(values[dimension.key]))
        return changed

    def faults(self, spec: ExperimentSpec, values: Mapping[str, Any]) -> list[str]:
        """What the spec's rules and bounds between keys say against a point.

        The trial is then told as not feasible, not patched.
        """
        broken = [
            f"{d.key} is {values[d.key]}, but has to be {d.bound.words}"
            for d in self.dimensions
            if d.bound and not d.obeys(values[d.key], values[d.bound.parent])
        ]
        return broken + [fault.what for fault in faults(self.applied(spec, values))]

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
                raise SpecError(f"{key} cannot be searched: {why}", where=where_of(asked.get(key)))
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
            errors.append(SpecError(f"there is no key {key}", where=where_of(asked[key]), hint=hint))
    errors += _bounds(spec, found, asked)
    if not found and not errors:
        errors.append(SpecError("there is nothing to search", where="automl.parameters", hint="name some keys"))
    if errors:
        raise UserErrors(errors)
    return Space(tuple(found.values()), left_out)


def parents_first(bound: Sequence[Dimension]) -> list[Dimension]:
    """Dimensions with bounds in the order in which their values can be settled; of a circle nothing is left."""
    left, found = list(bound), list[Dimension]()
    while free := [d for d in left if d.bound and d.bound.parent not in {o.key for o in left}]:
        found += free
        left = [d for d in left if d not in free]
    return found


def _bounds(spec: ExperimentSpec, found: dict[str, Dimension], asked: Mapping[str, Wish]) -> list[UserError]:
    """What is wrong with bounds between keys; a bound to a key that is not searched becomes one to its value."""
    errors: list[UserError] = []
    for key, d in list(found.items()):
        if d.bound is None:
            continue
        where, parent = f"{where_of(asked.get(key))}.depends_on", d.bound.parent
        try:
            if parent not in leaves():
                near = nearest(parent)
                hint = f"did you mean {' or '.join(near)}?" if near else ""
                raise SpecError(f"there is no key {parent}", where=where, hint=hint)
            fixed_to = get(spec, parent)
            number = isinstance(fixed_to, int | float) and not isinstance(fixed_to, bool)
            if parent == key or not number or (d.bound.sign == "/" and not isinstance(fixed_to, int)):
                kind = "whole number" if d.bound.sign == "/" else "number"
                raise SpecError(f"{key} cannot depend on {parent}, which is no {kind} beside it", where=where)
            if not d.obeys(d.own, fixed_to):
                what = f"the spec's own {key} is {d.own}, but has to be {d.bound.words}, which is {fixed_to}"
                raise SpecError(what, where=where)
            if parent not in found:
                left = d.beside(fixed_to)
                if left is None or left.low == left.high:
                    what = f"{key} depends on {parent}, which is not searched and leaves it no other value"
                    raise SpecError(what, where=where, hint=f"search {parent} too")
                found[key] = replace(left, bound=None)
        except SpecError as error:
            errors.append(error)
    bound = [d for d in found.values() if d.bound]
    circle = [d for d in bound if d not in parents_first(bound)]
    if circle and not errors:
        names = " and ".join(d.key for d in circle)
        errors.append(
            SpecError(f"{names} depend on one another", where=f"{where_of(asked.get(circle[0].key))}.depends_on")
        )
    return errors


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
