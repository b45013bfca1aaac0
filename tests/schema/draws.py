"""The strict schema -> random specs: most of their values fit, some do not, some keys do not exist."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from oneformer.schema.json_schema import json_schema
from oneformer.spec.tree import leaves, sections

SCHEMA = json_schema()
# No letters of other cases of a choice, no sign of a reference, no number in quotes: see the docstring of json_schema.py.
WORDS = st.text("abc xyz/._-é", max_size=8)
NUMBERS = st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6)
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)


def fitting(schema: Any) -> st.SearchStrategy[Any]:
    """Values that a part of our schemas takes, references left out."""
    if schema is True or not schema.keys() & {"anyOf", "enum", "type"}:
        return PLAIN
    if "anyOf" in schema:
        return st.one_of([fitting(part) for part in schema["anyOf"] if "$ref" not in part])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return st.one_of([_of_type(name, schema) for name in types])


def _of_type(name: str, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if name == "integer":
        low, high = (low if low is not None else -(10**6)), (high if high is not None else 10**6)
        first = low + 1 if "exclusiveMinimum" in schema else low
        return st.integers(first, high - 1 if "exclusiveMaximum" in schema else high)
    if name == "number":
        return st.floats(
            -1e6 if low is None else float(low), 1e6 if high is None else float(high),
            exclude_min="exclusiveMinimum" in schema, exclude_max="exclusiveMaximum" in schema,
        )  # fmt: skip
    if name == "string":
        return st.from_regex(schema["pattern"], fullmatch=True) if "pattern" in schema else WORDS
    if name == "array":
        most = schema.get("maxItems", schema.get("minItems", 0) + 2)
        return st.lists(fitting(schema["items"]), min_size=schema.get("minItems", 0), max_size=most)
    if name == "object":
        return st.dictionaries(WORDS, fitting(schema["additionalProperties"]), max_size=2)
    return {"boolean": st.booleans(), "null": st.none()}[name]


def near(schema: Any) -> st.SearchStrategy[Any]:
    """Values beside the limits of a part, and a list too long or too short."""
    found: list[Any] = []
    for part in [schema, *schema.get("anyOf", [])] if isinstance(schema, dict) else []:
        for name in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
            found += [part[name], part[name] - 1, part[name] + 1, part[name] + 0.5] if name in part else []
        if "items" in part:
            found += [[], [part.get("default", 1)] * 5, [None], [[]]]
        found += part.get("enum", [])[:1]
    return st.sampled_from(found) if found else PLAIN


def at(key: str) -> Any:
    """The schema of one key."""
    schema: Any = SCHEMA
    for part in key.split("."):
        schema = schema["properties"][part]
    return schema


@st.composite
def specs(draw: st.DrawFn, *, faults: bool) -> dict[str, Any]:
    """A spec of some keys; with `faults` about every third has values or keys that may not fit."""
    spec: dict[str, Any] = {}
    wrong = faults and draw(st.integers(0, 2)) == 0
    for key in draw(st.lists(st.sampled_from(list(leaves())), min_size=1, max_size=6, unique=True)):
        schema = at(key)
        value = draw(st.one_of(fitting(schema), near(schema), PLAIN) if wrong else fitting(schema))
        _put(spec, key, value)
    if wrong and draw(st.booleans()):
        section = draw(st.sampled_from(["", *sections()]))
        _put(spec, f"{section}.{draw(st.sampled_from(['x', 'lr_', 'num_epoch', 'names']))}".strip("."), 1)
    return spec


def _put(spec: dict[str, Any], key: str, value: Any) -> None:
    *above, name = key.split(".")
    at_section = spec
    for section in above:
        at_section = at_section.setdefault(section, {})
    at_section[name] = value
