"""`automl.parameters` and `automl.ranges`, in the form of NVIDIA TAO's custom ranges -> checked wishes by key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from oneformer.errors import SpecError, UserError
from oneformer.spec.automl import AutomlSpec
from oneformer.spec.check import value_of
from oneformer.spec.node import Mark, plain_node
from oneformer.spec.tree import leaves

KNOWN = ("valid_min", "valid_max", "valid_options", "option_weights", "scale")
# What TAO takes besides -> why it has no place here.
_OTHERS = {
    "depends_on": "values that depend on one another follow from the spec's own rules here",
    "disable_list": "lists are searched by valid_options",
    "math_cond": "the key's own limits hold; give valid_min and valid_max",
}


@dataclass(frozen=True)
class Wish:
    """What the user says about one key."""

    where: str
    low: float | None = None
    high: float | None = None
    options: tuple[Any, ...] = ()
    weights: tuple[float, ...] = ()
    scale: str = ""


def wishes(automl: AutomlSpec) -> tuple[dict[str, Wish], list[UserError]]:
    """Key -> wish, and everything that is wrong with them."""
    found = {key: Wish("automl.parameters") for key in automl.parameters}
    errors: list[UserError] = []
    for key, said in automl.ranges.items():
        where = f"automl.ranges.{key}"
        if automl.parameters and key not in automl.parameters:
            hint = "add it there, or leave automl.parameters empty"
            errors.append(SpecError(f"{key} has a range but is not in automl.parameters", where=where, hint=hint))
            continue
        try:
            found[key] = _wish(key, said, where)
        except UserError as error:
            errors.append(error)
            found.pop(key, None)
    return found, errors


def _wish(key: str, said: Any, where: str) -> Wish:
    if not isinstance(said, Mapping):
        raise SpecError("a range is a table", where=where, hint="{valid_min: 1, valid_max: 2}")
    for name in said:
        if name in _OTHERS:
            raise SpecError(f"{name} is not read here: {_OTHERS[name]}", where=where)
        if name not in KNOWN:
            near = get_close_matches(str(name), KNOWN, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(KNOWN)}"
            raise SpecError(f"there is no {name} in a range", where=where, hint=hint)
    scale = said.get("scale") or ""
    if scale not in ("", "linear", "log"):
        raise SpecError(f"scale is {scale!r}, but must be linear or log", where=where)
    if "valid_options" in said:
        return _options(key, said, where)
    low, high = (_number(key, said.get(name), f"{where}.{name}") for name in ("valid_min", "valid_max"))
    if "option_weights" in said:
        raise SpecError("option_weights belong to valid_options", where=where)
    if low >= high:
        raise SpecError(f"valid_min {low:g} is not below valid_max {high:g}", where=where)
    return Wish(where, low, high, scale=scale)


def _options(key: str, said: Mapping[str, Any], where: str) -> Wish:
    options, weights = said["valid_options"], said.get("option_weights") or []
    if not isinstance(options, list) or len(options) < 2:
        raise SpecError("valid_options has to list two values or more", where=where)
    if any(name in said for name in ("valid_min", "valid_max", "scale")):
        raise SpecError("valid_options and a range exclude each other", where=where)
    fine = tuple(_value(key, option, f"{where}.valid_options") for option in options)
    if any(fine.count(option) > 1 for option in fine):
        raise SpecError("valid_options names a value twice", where=where)
    numbers = isinstance(weights, list) and all(isinstance(w, int | float) and 0 <= w < 1e9 for w in weights)
    if weights and (not numbers or len(weights) != len(options) or sum(weights) <= 0):
        raise SpecError("option_weights has to hold a number of at least 0 for each option, not all 0", where=where)
    return Wish(where, options=fine, weights=tuple(map(float, weights)))


def _number(key: str, value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError("a range needs valid_min and valid_max, both numbers", where=where)
    checked = _value(key, value, where)
    if not isinstance(checked, int | float):
        raise SpecError(f"{key} is no number", where=where)
    return checked


def _value(key: str, value: Any, where: str) -> Any:
    """The value, as the spec would take it for this key; keys that do not exist are told elsewhere."""
    return value_of(plain_node(value, Mark(where)), leaves()[key]) if key in leaves() else value
