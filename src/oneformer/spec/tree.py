"""The dataclass tree -> flat tables of dotted keys, and plain dictionaries <-> sections."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin, get_type_hints

from oneformer.errors import UserErrors
from oneformer.spec.experiment import ExperimentSpec
from oneformer.spec.field import docs
from oneformer.spec.node import Mark, plain_node

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Leaf:
    """One key that holds a value."""

    key: str
    """Dotted path from the root of its tree."""
    annotation: Any
    """Type with its metadata (`Annotated[...]`)."""
    default: Any
    """Default value; compare only, never change it."""
    doc: str
    """Meaning, one line."""

    @property
    def marks(self) -> tuple[Any, ...]:
        """The metadata beside the type: bounds, units, TAO's marks."""
        return get_args(self.annotation)[1:] if get_origin(self.annotation) is Annotated else ()


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    assert field.default is not dataclasses.MISSING, f"spec field {field.name} has no default"
    return field.default


@cache
def fields_of(cls: type) -> dict[str, tuple[Any, Any, str]]:
    """Attribute name -> (annotation, default, meaning) of one section class, in its written order."""
    hints = get_type_hints(cls, include_extras=True)
    told = docs(cls)
    return {f.name: (hints[f.name], _default(f), told.get(f.name, "")) for f in dataclasses.fields(cls)}


@cache
def leaves(root: type = ExperimentSpec) -> dict[str, Leaf]:
    """Dotted key -> leaf, for every value below `root`, in written order."""
    return {leaf.key: leaf for leaf in _leaves(root, "")}


def _leaves(root: type, prefix: str) -> Iterator[Leaf]:
    for name, (annotation, default, doc) in fields_of(root).items():
        if dataclasses.is_dataclass(annotation):
            assert isinstance(annotation, type)
            yield from _leaves(annotation, f"{prefix}{name}.")
        else:
            yield Leaf(prefix + name, annotation, default, doc)


@cache
def sections(root: type = ExperimentSpec) -> dict[str, tuple[type, str]]:
    """Dotted key -> (class, meaning) of every section below `root`."""
    found: dict[str, tuple[type, str]] = {}
    for name, (annotation, _, doc) in fields_of(root).items():
        if dataclasses.is_dataclass(annotation):
            assert isinstance(annotation, type)
            found[name] = (annotation, doc)
            found |= {f"{name}.{k}": v for k, v in sections(annotation).items()}
    return found


def get(spec: Any, key: str) -> Any:
    """The value that a dotted key has in a section."""
    for part in key.split("."):
        spec = getattr(spec, part)
    return spec


def with_value(spec: S, key: str, value: Any) -> S:
    """The section with another value of a dotted key; what lies beside it is the same."""
    name, _, rest = key.partition(".")
    inner = with_value(getattr(spec, name), rest, value) if rest else value
    return cast(S, dataclasses.replace(cast(Any, spec), **{name: inner}))


def build(cls: type[S], values: Mapping[str, Any], prefix: str = "") -> S:
    """Checked values by dotted key -> a section; keys that are left out take their defaults."""
    given: dict[str, Any] = {}
    for name, (annotation, _, _) in fields_of(cast(type, cls)).items():
        key = prefix + name
        if dataclasses.is_dataclass(annotation):
            assert isinstance(annotation, type)
            given[name] = build(annotation, values, f"{key}.")
        elif key in values:
            given[name] = values[key]
    return cls(**given)


def to_dict(spec: Any) -> dict[str, Any]:
    """A section -> nested dictionaries, lists, strings, numbers and None."""
    return dataclasses.asdict(spec)


def from_dict(cls: type[S], data: Mapping[str, Any], *, where: str = "stored spec") -> S:
    """Nested plain values -> a section.

    Args:
        cls: the section's class.
        data: what `to_dict` gave; keys that are missing take their defaults.
        where: named in errors, usually the file that held the data.

    Raises:
        UserErrors: unknown keys or values out of range, all of them at once.
    """
    from oneformer.spec.check import checked
    from oneformer.spec.flat import flatten

    nodes, errors = flatten(plain_node(dict(data), Mark(where)), cls)
    values, wrong = checked(nodes, leaves(cast(type, cls)))
    if errors or wrong:
        raise UserErrors([*errors, *wrong])
    return build(cls, values)
