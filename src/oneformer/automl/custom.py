"""`automl.parameters` and `automl.ranges`, in the form of NVIDIA TAO's custom ranges -> checked wishes by key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from oneformer.automl.dimension import Bound
from oneformer.errors import SpecError, UserError
from oneformer.spec.automl import AutomlSpec
from oneformer.spec.check import value_of
from oneformer.spec.node import Mark, plain_node
from oneformer.spec.tree import leaves

KNOWN = (
    "valid_min", "valid_max", "valid_options", "option_weights", "scale", "math_cond", "depends_on", "disable_list",
)  # fmt: skip
_RANGE = ("valid_min", "valid_max", "scale", "math_cond", "depends_on")
_CONDITION = re.compile(r"(>=|<=|>|<|/|\^)\s*(\S+)")


@dataclass(frozen=True)
class Wish:
    """What the user says about one key."""

    where: str
    low: float | None = None
    high: float | None = None
    options: tuple[Any, ...] = ()
    weights: tuple[float, ...] = ()
    scale: str = ""
    sign: str = ""
    """`> >= < <=`: every value is on this side of `number`; `/`: a multiple of it; `^`: a power of it."""
    number: float = 0.0
    bound: Bound | None = None
    """To the value of another key."""

    @property
    def ranged(self) -> bool:
        """Whether it says anything about a range."""
        return self.low is not None or self.high is not None or bool(self.sign or self.bound)


def wishes(automl: AutomlSpec) -> tuple[dict[str, Wish], list[UserError]]:
    """Key -> wish, and everything that is wrong with them."""
    found = {key: Wish("automl.parameters") for key in automl.parameters}
    errors: list[UserError] = []
    seen: set[str] = set()
    for key, said in _flat(automl.ranges):
        where = f"automl.ranges.{key}"
        if key in seen:
            errors.append(SpecError(f"{key} has two ranges", where=where, hint="one with dots, one with tables"))
            continue
        seen.add(key)
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


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Ranges by dotted key, also where a command line such as `automl.ranges.train.optim.lr={...}` has nested them."""
    for name, said in table.items():
        key = f"{prefix}{name}"
        if key not in leaves() and isinstance(said, Mapping) and said and not set(said) & set(KNOWN):
            yield from _flat(said, f"{key}.")
        else:
            yield key, said


def _wish(key: str, said: Any, where: str) -> Wish:
    if not isinstance(said, Mapping):
        raise SpecError("a range is a table", where=where, hint="{valid_min: 1, valid_max: 2}")
    for name in said:
        if name not in KNOWN:
            near = get_close_matches(str(name), KNOWN, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(KNOWN)}"
            raise SpecError(f"there is no {name} in a range", where=where, hint=hint)
    said = {name: value for name, value in said.items() if value is not None}
    if said.get("disable_list", True) is not True:
        what = "disable_list can only be true: a value is drawn whole, never a list of several"
        raise SpecError(what, where=f"{where}.disable_list", hint="name whole lists in valid_options")
    scale = said.get("scale") or ""
    if scale not in ("", "linear", "log"):
        raise SpecError(f"scale is {scale!r}, but must be linear or log", where=where)
    if "valid_options" in said:
        return _options(key, said, where)
    if "option_weights" in said:
        raise SpecError("option_weights belong to valid_options", where=where)
    low, high = (_number(key, said.get(name), f"{where}.{name}") for name in ("valid_min", "valid_max"))
    if any(isinstance(said.get(name), list) for name in ("valid_min", "valid_max")):
        scale = scale or "log"  # what a list means in TAO
    sign, number, bound = _condition(said, where)
    if low is not None and high is not None and low >= high:
        raise SpecError(f"valid_min {low:g} is not below valid_max {high:g}", where=where)
    found = Wish(where, low, high, scale=scale, sign=sign, number=number, bound=bound)
    if not found.ranged:
        raise SpecError("a range needs valid_min and valid_max, both numbers", where=where)
    return found


def _condition(said: Mapping[str, Any], where: str) -> tuple[str, float, Bound | None]:
    """(sign, number, bound) of `math_cond`, and of the `depends_on` that it may name."""
    text, parent = said.get("math_cond"), said.get("depends_on")
    if text is None and parent is None:
        return "", 0.0, None
    at, form = f"{where}.math_cond", "a sign and a number, such as '> 0', '/ 32' or '^ 2', or '> depends_on'"
    if text is None:
        what = f"depends_on names {parent}, but nothing says how"
        raise SpecError(what, where=f"{where}.depends_on", hint="math_cond: '> depends_on'")
    match = _CONDITION.fullmatch(str(text).strip())
    if not match:
        raise SpecError(f"math_cond is {str(text)!r}, but must be {form}", where=at)
    sign, other = match.groups()
    if other in ("depends_on", parent):
        if parent is None:
            raise SpecError("math_cond names depends_on, which is not given", where=at)
        if sign in ("/", "^"):
            raise SpecError(f"math_cond {sign} needs a number", where=at, hint="with depends_on it divides that key")
        return "", 0.0, Bound(str(parent), sign)
    try:
        number = float(other)
    except ValueError:
        raise SpecError(f"math_cond is {str(text)!r}, but must be {form}", where=at) from None
    if sign in ("/", "^") and not (number.is_integer() and 2 <= number < 2**31):
        raise SpecError(f"math_cond {sign} needs a whole number of at least 2", where=at)
    if parent is not None:
        if sign != "/":
            what = f"math_cond {str(text)!r} does not name depends_on"
            raise SpecError(what, where=at, hint=f"'{sign} depends_on', or leave depends_on out")
        return "", 0.0, Bound(str(parent), "/", int(number))
    return sign, number, None


def _options(key: str, said: Mapping[str, Any], where: str) -> Wish:
    options, weights = said["valid_options"], said.get("option_weights") or []
    if not isinstance(options, list) or len(options) < 2:
        raise SpecError("valid_options has to list two values or more", where=where)
    if other := next((name for name in _RANGE if name in said), ""):
        raise SpecError(f"valid_options and {other} exclude each other", where=where)
    fine = tuple(_value(key, option, f"{where}.valid_options") for option in options)
    if any(fine.count(option) > 1 for option in fine):
        raise SpecError("valid_options names a value twice", where=where)
    numbers = isinstance(weights, list) and all(isinstance(w, int | float) and 0 <= w < 1e9 for w in weights)
    if weights and (not numbers or len(weights) != len(options) or sum(weights) <= 0):
        raise SpecError("option_weights has to hold a number of at least 0 for each option, not all 0", where=where)
    return Wish(where, options=fine, weights=tuple(map(float, weights)))


def _number(key: str, value: Any, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, list):
        if len(value) != 1:
            what = f"this bound lists {len(value)} numbers, but one value is drawn"
            raise SpecError(what, where=where, hint="search a key of its own for each part of the network")
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError("a range needs valid_min and valid_max, both numbers", where=where)
    checked = _value(key, value, where)
    if not isinstance(checked, int | float):
        raise SpecError(f"{key} is no number", where=where)
    return checked


def _value(key: str, value: Any, where: str) -> Any:
    """The value, as the spec would take it for this key; keys that do not exist are told elsewhere."""
    return value_of(plain_node(value, Mark(where)), leaves()[key]) if key in leaves() else value
