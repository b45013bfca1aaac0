"""A spec -> YAML text with the meaning of each key above it; it loads again to the same spec."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from oneformer.spec.check import allowed, parts
from oneformer.spec.experiment import ExperimentSpec
from oneformer.spec.tree import fields_of, get, leaves, sections
from oneformer.spec.unread import reason

_WIDTH = 110
NO_NOTES: Mapping[str, str] = MappingProxyType({})
_UNPRINTABLE = re.compile("[\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff\\ufeff\\ufffe\\uffff]")


def to_yaml(
    spec: ExperimentSpec,
    *,
    only: Collection[str] = (),
    keys: Collection[str] = (),
    notes: Mapping[str, str] = NO_NOTES,
    off: Collection[str] = (),
    comments: bool = True,
) -> str:
    """A spec as YAML.

    Args:
        spec: what to write.
        only: root keys to write; empty writes all of them.
        keys: dotted keys to write; empty writes all of them.
        notes: key -> a sentence behind its comment.
        off: keys whose line is a comment too, so that they keep what a preset says.
        comments: write above each key what it means and may hold.
    """
    lines: list[str] = []
    form = _Form(keys, notes, off)
    for name in fields_of(ExperimentSpec):
        if not only or name in only or keys:
            _write(spec, name, lines, form)
    if not comments:
        lines = [line for line in lines if line and not line.lstrip().startswith("#")]
    return "\n".join(lines).lstrip("\n") + "\n"


@dataclass(frozen=True, slots=True)
class _Form:
    """Which keys are written, and how."""

    keys: Collection[str]
    notes: Mapping[str, str]
    off: Collection[str]


def _write(spec: ExperimentSpec, key: str, lines: list[str], form: _Form) -> None:
    name, indent = key.rpartition(".")[2], "  " * key.count(".")
    if key in sections():
        cls, doc = sections()[key]
        if form.keys and not any(k.startswith(f"{key}.") for k in form.keys):
            return
        lines += [*([""] if not indent else []), *_comment_lines(doc, indent), f"{indent}{name}:"]
        for child in fields_of(cls):
            _write(spec, f"{key}.{child}", lines, form)
    elif not form.keys or key in form.keys:
        said = f"{comment(key)} {form.notes.get(key, '')}".rstrip()
        sign = "# " if key in form.off else ""
        lines += [*_comment_lines(said, indent), f"{indent}{sign}{name}: {value_text(get(spec, key))}"]


def _comment_lines(said: str, indent: str) -> list[str]:
    """Words in lines of at most `_WIDTH` signs; textwrap does the same in five times as long."""
    start = f"{indent}# "
    lines = [start]
    for word in said.split():
        if len(lines[-1]) + len(word) > _WIDTH and lines[-1] != start:
            lines.append(start)
        lines[-1] += f"{word} "
    return [line.rstrip() for line in lines]


def comment(key: str) -> str:
    """Meaning, range and default of a key in one line; keys that nothing reads say so."""
    leaf = leaves()[key]
    why = reason(key)
    words = allowed(leaf.annotation)
    plain = parts(leaf.annotation)[0] in (str, bool) or leaf.doc.count(words)
    told = leaf.doc if plain else f"{leaf.doc.rstrip('.')} ({words})."
    return f"{leaf.doc} No effect: {why}." if why else f"{told} Default: {value_text(leaf.default)}."


def value_text(value: Any) -> str:
    """A value in YAML's flow style, which YAML 1.1 and 1.2 read alike."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{value_text(k)}: {value_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(value_text(v) for v in value) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, str):
        return value if _needs_no_quotes(value) else _quoted(value)
    assert isinstance(value, int), f"a spec holds no {type(value)}"
    return str(value)


def _quoted(text: str) -> str:
    """Double quotes as in JSON; signs that YAML does not allow in a file as escapes."""
    return _UNPRINTABLE.sub(lambda sign: f"\\u{ord(sign[0]):04x}", json.dumps(text, ensure_ascii=False))


def _float_text(value: float) -> str:
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else (".inf" if value > 0 else "-.inf")
    text = repr(value)
    # YAML 1.1 (PyYAML) reads 1e-05 as text: its numbers need a dot before the exponent.
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def _needs_no_quotes(text: str) -> bool:
    """Words that no version of YAML takes for something else."""
    words = {"true", "false", "yes", "no", "on", "off", "null", "y", "n", "none"}
    return text.isascii() and text.replace("_", "").isalnum() and text[:1].isalpha() and text.lower() not in words


def changed_from_default(spec: ExperimentSpec) -> dict[str, Any]:
    """Dotted key -> value, for each key that differs from its default."""
    return {key: value for key, leaf in leaves().items() if (value := get(spec, key)) != leaf.default}
