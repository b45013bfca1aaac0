"""The spec tree -> strict JSON Schema 2020-12: it takes what the loader takes, key by key, and refuses what it refuses.

What a schema cannot say stays with the loader: sums and products of several keys (`spec/rules.py`), and where a
reference leads. The loader also forgives two things that the schema does not: letter case of choices, and quotes around
a number in scientific notation.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from copy import deepcopy
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Len, Lt

from oneformer.schema.inputs import INPUTS, Input, path_format
from oneformer.spec.check import alternatives, parts
from oneformer.spec.experiment import ExperimentSpec
from oneformer.spec.field import Pattern, Spellings
from oneformer.spec.load import preset_names
from oneformer.spec.tree import Leaf, fields_of, leaves
from oneformer.spec.unread import reason

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE = {"$ref": "#/$defs/reference"}
_BOUNDS = {Ge: "minimum", Gt: "exclusiveMinimum", Le: "maximum", Lt: "exclusiveMaximum"}
Schema = dict[str, Any]


def json_schema(action: str = "") -> Schema:
    """The schema of any spec or, with an action, of a spec that has all that the action cannot do without."""
    title = f"Spec of oneformer {action}" if action else "Spec of oneformer"
    root = _section(ExperimentSpec, "", "Everything a user may say.")
    root["type"] = "object" if action else ["object", "null"]
    needs = [_need(one) for one in INPUTS.get(action, ()) if not one.optional]
    reference = {"type": "string", "pattern": r"\$\{[^{}]+\}", "description": "The value of another key, ${a.b}."}
    head = {"$schema": DIALECT, "title": title, **root}
    return {**head, **({"allOf": needs} if needs else {}), "$defs": {"reference": reference}}


def _section(cls: type, prefix: str, doc: str) -> Schema:
    inside: dict[str, Schema] = {}
    for name, (annotation, _, told) in fields_of(cls).items():
        key = prefix + name
        if dataclasses.is_dataclass(annotation):
            assert isinstance(annotation, type)
            inside[name] = _section(annotation, f"{key}.", told)
        else:
            inside[name] = leaf_schema(leaves()[key])
    return {"type": ["object", "null"], "description": doc, "properties": inside, "additionalProperties": False}


def leaf_schema(leaf: Leaf) -> Schema:
    """What one key may hold, with its meaning and default."""
    why = reason(leaf.key)
    told: Schema = {
        "description": f"{leaf.doc} No effect: {why}." if why else leaf.doc,
        "default": deepcopy(leaf.default),
    }
    if why:
        told["deprecated"] = True
    if leaf.key == "preset":  # it is looked up before anything else is
        return {"enum": ["", *preset_names(), None], **told}
    value = value_schema(leaf.annotation)
    form = path_format(leaf.key)
    return {**_or_reference({**value, "format": form} if form else value), **told}


def _or_reference(value: Schema) -> Schema:
    """A value or a reference to one; what takes any text takes references too."""
    takes_any_text = "string" in _types(value) and "pattern" not in value
    return value if takes_any_text or not value else {"anyOf": [value, _REFERENCE]}


def value_schema(annotation: Any) -> Schema:
    """The values that the loader takes for a type with its marks, references left out."""
    kind, marks = parts(annotation)
    members = alternatives(annotation)
    if len(members) == 1:
        return _one(kind, marks, alone=True)
    whole: Schema = {"type": []}
    for member in members:
        inner, own = parts(member)
        one = _one(inner, (*own, *marks), alone=False)
        assert "enum" not in one, f"a choice within a union: {annotation}"
        whole = {**one, **whole, "type": [*whole["type"], *_types(one)]}
    return {**whole, "type": list(dict.fromkeys(whole["type"]))}


def _types(schema: Schema) -> list[str]:
    said = schema.get("type", [])
    return [said] if isinstance(said, str) else list(said)


def _one(kind: Any, marks: tuple[Any, ...], *, alone: bool) -> Schema:
    """A type that is no union; `alone`, nothing said stands for an empty list or table."""
    if kind in (Any, NoneType):
        return {} if kind is Any else {"type": "null"}
    if get_origin(kind) is Literal:
        return {"enum": _choices(get_args(kind), marks)}
    if get_origin(kind) is list:
        return _list(get_args(kind)[0], marks, alone=alone)
    if get_origin(kind) is dict:
        return {"type": ["object", "null"] if alone else "object", "additionalProperties": _item(get_args(kind)[1])}
    if kind is str:
        pattern = next((m.regex for m in marks if isinstance(m, Pattern)), None)
        return {"type": "string", "pattern": pattern} if pattern else {"type": ["string", "number", "null"]}
    name = {bool: "boolean", int: "integer", float: "number"}[kind]
    return {"type": name, **{_BOUNDS[type(m)]: bound(m) for m in marks if type(m) in _BOUNDS}}


def bound(mark: Any) -> Any:
    """The number of a limit."""
    return next(getattr(mark, name) for name in ("ge", "gt", "le", "lt") if hasattr(mark, name))


def _list(inner: Any, marks: tuple[Any, ...], *, alone: bool) -> Schema:
    size = next((m for m in marks if isinstance(m, Len)), Len(0))
    schema: Schema = {"type": ["array", "null"] if alone and not size.min_length else "array", "items": _item(inner)}
    if size.min_length:
        schema["minItems"] = size.min_length
    if size.max_length is not None:
        schema["maxItems"] = size.max_length
    return schema


def _item(inner: Any) -> Schema | bool:
    """A value within a list or table."""
    return _or_reference(value_schema(inner)) or True


def _choices(choices: Iterable[Any], marks: tuple[Any, ...]) -> list[Any]:
    """The choices and their other spellings; of a spelling in digits also the number."""
    table = next((m.table for m in marks if isinstance(m, Spellings)), ())
    said = [*choices, *(spelling for spelling, _ in table)]
    return list(dict.fromkeys([*said, *(int(text) for text, _ in table if text.isdigit())]))


def _need(one: Input) -> Schema:
    found = [_at(key, {"type": ["string", "number", "array"], "minLength": 1, "minItems": 1}) for key in one.keys]
    need = found[0] if len(found) == 1 else {"title": " or ".join(one.keys), "anyOf": found}
    key, values = one.only_if
    return {"if": _at(key, {"enum": list(values)}), "then": need} if key else need


def _at(key: str, schema: Schema) -> Schema:
    """A schema for specs that have a key, whose value fits `schema`."""
    *sections, name = key.split(".")
    for part in (name, *reversed(sections)):
        schema = {"type": "object", "required": [part], "properties": {part: schema}}
    return schema


def as_text(schema: Schema) -> str:
    """A schema as JSON that people can compare: a section over several lines, a key on one."""
    return _lines(schema, "") + "\n"


def _lines(section: Schema, indent: str) -> str:
    rows = []
    for name, value in section.items():
        if name == "properties":
            inside = ",\n".join(f'{indent}  "{key}": {_value(one, indent + "  ")}' for key, one in value.items())
            rows.append(f'{indent} "{name}": {{\n{inside}\n{indent} }}')
        else:
            rows.append(f'{indent} "{name}": {_value(value, "")}')
    return "{\n" + ",\n".join(rows) + f"\n{indent}}}"


def _value(value: Any, indent: str) -> str:
    is_section = isinstance(value, dict) and "additionalProperties" in value and "properties" in value
    return _lines(value, indent) if is_section else json.dumps(value, ensure_ascii=False, allow_nan=False)
