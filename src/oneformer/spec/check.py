"""A node and the type of its key -> the checked value, or one error that says what is allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from math import isfinite
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Len, Lt

from oneformer.errors import SpecError
from oneformer.spec.field import Infinite, Pattern, Spellings, Unit
from oneformer.spec.node import Node
from oneformer.spec.tree import Leaf

# What PyYAML reads as text although its writer meant a number: 1e-4 has no dot.
_SCIENTIFIC = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_MANY = {bool: "values true or false", int: "whole numbers", float: "numbers", str: "texts"}


def checked(nodes: Mapping[str, Node], table: Mapping[str, Leaf]) -> tuple[dict[str, Any], list[SpecError]]:
    """Nodes by dotted key -> values by dotted key, and an error for each that does not fit."""
    values: dict[str, Any] = {}
    errors: list[SpecError] = []
    for key, node in nodes.items():
        try:
            values[key] = value_of(node, table[key])
        except SpecError as error:
            errors.append(error)
    return values, errors


def value_of(node: Node, leaf: Leaf) -> Any:
    """The value that a node gives to a key.

    Raises:
        SpecError: another type, out of range or not one of the choices.
    """
    annotation = _alternative(node, leaf.annotation)
    value = _fitted(node, annotation)
    if value is None and annotation is NoneType:
        return None
    if value is None and _optional(leaf.annotation):
        return None
    fault = _fault(annotation, value)
    if fault is None:
        return value
    place = node
    for step in fault:
        at_item = isinstance(place.value, list) and isinstance(step, int) and step < len(place.value)
        if at_item or (isinstance(place.value, dict) and step in place.value):
            place = place.value[step]
    inside = f" (its part {shown(place)})" if place is not node else ""
    raise SpecError(
        f"{leaf.key} is {shown(node)}{inside}, but must be {allowed(leaf.annotation)}",
        where=str(place.mark),
        hint=_hint(place, annotation),
    )


def _fault(annotation: Any, value: Any) -> tuple[Any, ...] | None:
    """Path inside the value of what is wrong with it, () when it is the value itself, None when it fits."""
    from pydantic import ValidationError

    if (
        isinstance(value, float)
        and not isfinite(value)
        and not any(isinstance(m, Infinite) for m in parts(annotation)[1])
    ):
        return ()
    try:
        _adapter(annotation).validate_python(value)
    except ValidationError as error:
        return error.errors(include_url=False, include_context=False)[0]["loc"]
    return None


@cache
def _adapter(annotation: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(annotation, config=ConfigDict(strict=True))


def parts(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """An annotation -> (its type without metadata, the metadata)."""
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        deeper, more = parts(inner)
        return deeper, (*more, *marks)
    return annotation, ()


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    kind, _ = parts(annotation)
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _optional(annotation: Any) -> bool:
    return NoneType in alternatives(annotation)


def _alternative(node: Node, annotation: Any) -> Any:
    """The member of a union that a node of this kind can be, with the metadata of the whole."""
    _, marks = parts(annotation)
    members = alternatives(annotation)
    if len(members) == 1:
        return annotation
    if node.value is None and NoneType in members:
        return NoneType
    some = [m for m in members if m is not NoneType]
    lists = [m for m in some if get_origin(parts(m)[0]) is list]
    others = [m for m in some if m not in lists]
    chosen = lists[0] if lists and (isinstance(node.value, list) or not others) else others[0]
    return Annotated[(chosen, *marks)] if marks else chosen


def _fitted(node: Node, annotation: Any) -> Any:
    """The node's value, where YAML leaves a choice brought to the type that the key wants; no bounds are checked."""
    kind, marks = parts(annotation)
    if get_origin(kind) is Literal:
        return _choice(node, get_args(kind), next((m for m in marks if isinstance(m, Spellings)), Spellings(())))
    if get_origin(kind) is list:
        (inner,) = get_args(kind)
        items = [] if node.value is None else node.value
        return [_fitted(item, inner) for item in items] if isinstance(items, list) else node.plain()
    if get_origin(kind) is dict:
        inner = get_args(kind)[1]
        table = {} if node.value is None else node.value
        return {k: _fitted(v, inner) for k, v in table.items()} if isinstance(table, dict) else node.plain()
    return _scalar(node, kind)


def _scalar(node: Node, kind: Any) -> Any:
    value = node.plain()
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is str and value is None:
        value = ""  # `key:` with nothing behind it
    elif kind is str and number:
        value = node.text  # results_dir=2024 needs no quotes
    elif kind is float and (number or (isinstance(value, str) and _SCIENTIFIC.fullmatch(value))):
        value = float(value)
    elif kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)  # 1e3
    return value


def _choice(node: Node, choices: tuple[Any, ...], spellings: Spellings) -> Any:
    """The choice a scalar means: its own, another spelling, or either in other letter case."""
    if isinstance(node.value, list | dict | NoneType) or node.value in choices:
        return node.plain()
    table = {said.lower(): meant for said, meant in spellings.table}
    table |= {c.lower(): c for c in choices if isinstance(c, str)}
    return table.get(node.text.lower(), node.value)


def shown(node: Node) -> str:
    """A node in an error message, short."""
    if isinstance(node.value, dict):
        return f"a table with {', '.join(list(node.value)[:3]) or 'nothing'}"
    if isinstance(node.value, list):
        text = "[" + ", ".join(shown(v) for v in node.value[:6]) + (", ...]" if len(node.value) > 6 else "]")
        return text if len(text) < 80 else f"a list of {len(node.value)}"
    if isinstance(node.value, str):
        return f"the text {node.value[:60]!r}"
    return node.text or "null"


def _hint(node: Node, annotation: Any) -> str:
    kind, _ = parts(annotation)
    if isinstance(node.value, str) and node.quoted and kind in (int, float, bool):
        return "take the quotes away"
    if get_origin(kind) is Literal and isinstance(node.value, str):
        names = {str(c).lower(): str(c) for c in get_args(kind)}
        near = get_close_matches(node.value.lower(), names, n=1)
        return f"did you mean {names[near[0]]}?" if near else ""
    if get_origin(kind) is list and isinstance(node.value, str) and node.value:
        return f"write [{node.text}]"
    return ""


def allowed(annotation: Any) -> str:
    """What a key may hold, in words: type, choices, range, unit."""
    kind, marks = parts(annotation)
    members = alternatives(annotation)
    if len(members) > 1:
        each = [allowed(Annotated[(m, *marks)] if marks and m is not NoneType else m) for m in members]
        return " or ".join(each)
    pattern = next((m for m in marks if isinstance(m, Pattern)), None)
    if kind is NoneType:
        words = "null"
    elif pattern:
        words = pattern.meaning
    elif get_origin(kind) is Literal:
        choices = [str(c) for c in get_args(kind)]
        words = choices[0] if len(choices) == 1 else "one of " + ", ".join(choices)
    elif get_origin(kind) is list:
        words = _allowed_list(kind, marks)
    elif get_origin(kind) is dict:
        words = f"a table whose values are {_range(*parts(get_args(kind)[1]), many=True)}"
    else:
        words = _range(kind, marks, many=False)
    return words + next((f" ({m.name})" for m in marks if isinstance(m, Unit)), "")


def _allowed_list(kind: Any, marks: tuple[Any, ...]) -> str:
    size = next((m for m in marks if isinstance(m, Len)), Len(0))
    count = f"{size.min_length} " if size.min_length == size.max_length else ""
    inner, inner_marks = parts(get_args(kind)[0])
    if get_origin(inner) is list:
        return f"a list of {count}lists of {_range(*parts(get_args(inner)[0]), many=True)}"
    pattern = next((m for m in inner_marks if isinstance(m, Pattern)), None)
    what = pattern.meaning if pattern else _range(inner, inner_marks, many=True)
    few = "" if count or not (size.min_length or size.max_length) else _length(size)
    return f"a list of {count}{what}{few}"


def _length(size: Len) -> str:
    low = f"at least {size.min_length}" if size.min_length else ""
    high = f"at most {size.max_length}" if size.max_length is not None else ""
    return f", {' and '.join(b for b in (low, high) if b)} of them"


def _range(kind: Any, marks: tuple[Any, ...], *, many: bool) -> str:
    words = (_MANY if many else _WORDS).get(kind, "values" if many else "a value")
    low = next((f"of at least {m.ge}" for m in marks if isinstance(m, Ge)), "")
    low = low or next((f"above {m.gt}" for m in marks if isinstance(m, Gt)), "")
    high = next((f"at most {m.le}" for m in marks if isinstance(m, Le)), "")
    high = high or next((f"below {m.lt}" for m in marks if isinstance(m, Lt)), "")
    bounds = " and ".join(b for b in (low, high) if b)
    return f"{words} {bounds}" if bounds else words
