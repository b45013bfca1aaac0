"""The text of a language model -> values of a trial and ranges, checked against the space; or what is wrong with it.

An answer is data and nothing else: it is parsed as JSON, and each value has to be one that the space could have drawn.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from oneformer.automl.dimension import Dimension
from oneformer.automl.space import Space

REASON = 1000  # characters of a reason that are kept
NAMES = 5  # faults that are told at once
TRIES = 50  # places of a text that an object is looked for at


class Wrong(Exception):
    """The answer cannot be taken; `faults` say why, in words for the one who gave it."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


@dataclass(frozen=True)
class Advice:
    """What was taken from an answer."""

    values: dict[str, Any]
    why: str
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)


def read(text: str, space: Space, *, ranges: bool) -> Advice:
    """The values, the reason and, with `ranges`, the ranges that an answer gives.

    Raises:
        Wrong: no JSON, a key that is not searched or is left out, a value of another type or outside its range.
    """
    told = _object(text)
    faults = [f"there is no {name[:80]!r} in an answer" for name in told if name not in ("values", "why", "ranges")]
    if told.get("ranges") and not ranges:
        faults.append("ranges cannot be changed in this search")
    found: dict[str, tuple[float, float]] = {}
    if ranges:
        found = _ranges(told.get("ranges"), space, faults)
    values = _values(told.get("values"), space.within(found), faults)
    if faults:
        raise Wrong(faults[:NAMES])
    why = told.get("why", "")
    said = " ".join("".join(c if c.isprintable() else " " for c in why).split()) if isinstance(why, str) else ""
    return Advice(values, said[:REASON], found)


def _object(text: str) -> dict[str, Any]:
    """The last JSON object with values in a text: models like to think aloud, and to put a fence around the answer."""
    decoder, at, tries = json.JSONDecoder(parse_constant=_no_number), text.find("{"), 0
    found: list[dict[str, Any]] = []
    while at >= 0 and tries < TRIES:
        tries += 1
        try:
            told, at = decoder.raw_decode(text, at)
            found.append(told)
        except (ValueError, RecursionError):
            at += 1
        at = text.find("{", at)
    if not found:
        raise Wrong(["the answer is no valid JSON" if tries else "the answer holds no JSON object"])
    return next((told for told in reversed(found) if "values" in told), found[-1])


def _no_number(text: str) -> Any:
    raise ValueError(text)


def _values(told: Any, space: Space, faults: list[str]) -> dict[str, Any]:
    if not isinstance(told, dict):
        faults.append('"values" has to be an object with a value for each key')
        return {}
    by_key = {d.key: d for d in space.dimensions}
    faults += [f"{name[:80]!r} is not searched" for name in told if name not in by_key]
    faults += [f"{key} is missing" for key in by_key if key not in told]
    found = {}
    for key, d in by_key.items():
        if key in told:
            if fault := _fault(d, told[key]):
                faults.append(fault)
            else:
                found[key] = _taken(d, told[key])
    return found


def _fault(d: Dimension, value: Any) -> str:
    """Why a dimension does not take a value; empty when it does."""
    if d.kind == "choice":
        if any(_same(value, choice) for choice in d.choices):
            return ""
        return f"{d.key} has to be one of {json.dumps(list(d.choices), default=str)}"
    number = isinstance(value, int | float) and not isinstance(value, bool) and _finite(value)
    if not number or (d.kind == "int" and value != int(value)):
        return f"{d.key} has to be a {'whole ' if d.kind == 'int' else ''}number"
    if not d.low <= value <= d.high:
        return f"{d.key} has to be from {d.low:g} to {d.high:g}"
    if d.kind == "int" and value % d.step and value != d.own:
        return f"{d.key} has to be a multiple of {d.step}"
    return ""


def _taken(d: Dimension, value: Any) -> Any:
    if d.kind == "choice":
        return next(choice for choice in d.choices if _same(value, choice))
    return value if value == d.own else d.realised(value)


def _same(value: Any, choice: Any) -> bool:
    """Whether they are equal; JSON has one kind of number, but true is none."""
    if isinstance(choice, bool) or isinstance(value, bool):
        return value is choice
    if isinstance(choice, list | tuple) and isinstance(value, list):
        return len(value) == len(choice) and all(map(_same, value, choice))
    return bool(value == choice)


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _ranges(told: Any, space: Space, faults: list[str]) -> dict[str, tuple[float, float]]:
    """The ranges that are changed; `space` holds those before."""
    if told is None:
        return {}
    if not isinstance(told, Mapping):
        faults.append('"ranges" has to be an object: {"key": [lowest, highest]}')
        return {}
    by_key, found = {d.key: d for d in space.dimensions}, {}
    for key, pair in told.items():
        d = by_key.get(key)
        if d is None or d.widest is None:
            faults.append(f"the range of {key[:80]!r} cannot be changed")
            continue
        whole = d.kind == "int"
        if not (isinstance(pair, list) and len(pair) == 2 and all(_number(n, whole=whole) for n in pair)):
            faults.append(f"the range of {key} has to be two {'whole ' if whole else ''}numbers [lowest, highest]")
        elif not d.widest[0] <= pair[0] < pair[1] <= d.widest[1]:
            faults.append(f"the range of {key} has to rise and lie within {d.widest[0]:g} to {d.widest[1]:g}")
        else:
            found[key] = (int(pair[0]), int(pair[1])) if whole else (float(pair[0]), float(pair[1]))
    return found


def _number(value: Any, *, whole: bool) -> bool:
    fine = isinstance(value, int | float) and not isinstance(value, bool) and _finite(value)
    return fine and (not whole or value == int(value))
