"""A spec -> YAML text with the meaning of each key above it; it loads again to the same spec."""

from __future__ import annotations

import json
import math
import re
from textwrap import wrap
from typing import Any

from oneformer.spec.check import allowed, parts
from oneformer.spec.experiment import ExperimentSpec
from oneformer.spec.tree import fields_of, get, leaves, sections
from oneformer.spec.unread import reason

_WIDTH = 110
_UNPRINTABLE = re.compile("[\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff\\ufeff\\ufffe\\uffff]")


def to_yaml(spec: ExperimentSpec, *, only: tuple[str, ...] = (), comments: bool = True) -> str:
    """A spec as YAML.

    Args:
        spec: what to write.
        only: root keys to write; empty writes all of them.
        comments: write above each key what it means and may hold.
    """
    lines: list[str] = []
    for name in fields_of(ExperimentSpec):
        if not only or name in only:
            _write(spec, name, lines)
    if not comments:
        lines = [line for line in lines if line and not line.lstrip().startswith("#")]
    return "\n".join(lines).lstrip("\n") + "\n"


def _write(spec: ExperimentSpec, key: str, lines: list[str]) -> None:
    name, indent = key.rpartition(".")[2], "  " * key.count(".")
    if key in sections():
        cls, doc = sections()[key]
        lines += [*([""] if not indent else []), *_comment_lines(doc, indent), f"{indent}{name}:"]
        for child in fields_of(cls):
            _write(spec, f"{key}.{child}", lines)
    else:
        lines += [*_comment_lines(comment(key), indent), f"{indent}{name}: {value_text(get(spec, key))}"]


def _comment_lines(said: str, indent: str) -> list[str]:
    return wrap(said, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", break_long_words=False)


def comment(key: str) -> str:
    """Meaning and range of a key in one line; keys that nothing reads say so."""
    leaf = leaves()[key]
    why = reason(key)
    words = allowed(leaf.annotation)
    plain = parts(leaf.annotation)[0] in (str, bool) or leaf.doc.count(words)
    told = leaf.doc if plain else f"{leaf.doc.rstrip('.')} ({words})."
    return f"{leaf.doc} No effect: {why}." if why else told


def value_text(value: Any) -> str:
    """A value in YAML's flow style, which YAML 1.1 and 1.2 read alike."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {value_text(v)}" for k, v in value.items()) + "}"
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
