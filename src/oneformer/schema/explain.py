"""A dotted key -> what it means, may hold and starts from, who reads it, and how TAO differs."""

from __future__ import annotations

from typing import Any

from oneformer.errors import SpecError
from oneformer.schema.differences import differences
from oneformer.schema.readers import commands, files
from oneformer.spec.check import allowed
from oneformer.spec.field import Spellings
from oneformer.spec.flat import nearest
from oneformer.spec.shorthand import NAMES, names_of
from oneformer.spec.tree import leaves, sections
from oneformer.spec.unread import reason
from oneformer.spec.write import value_text


def explain(key: str) -> dict[str, Any]:
    """What is known about one key, section or short name, as plain values.

    Returns:
        For a key: key, meaning, allowed, default, read_by (commands), files (that read it), and where they exist
        spellings, short_names, tao (default, maximum, why, does) and no_effect.
        For a section: key, meaning, keys (dotted key -> meaning).

    Raises:
        SpecError: there is no such key; the hint names the nearest ones.
    """
    key = NAMES.get(key, key)
    if key in sections():
        return {"key": key, "meaning": sections()[key][1], "keys": _inside(f"{key}.")}
    if key not in leaves():
        near = nearest(key)
        hint = f"did you mean {' or '.join(near)}?" if near else "`oneformer default_specs` lists every key"
        raise SpecError(f"there is no key {key}", where="explain", hint=hint)
    leaf = leaves()[key]
    told: dict[str, Any] = {
        "key": key,
        "meaning": leaf.doc,
        "allowed": allowed(leaf.annotation),
        "default": leaf.default,
        "read_by": list(commands(key)),
        "files": list(files(key)),
    }
    spellings = next((m for m in leaf.marks if isinstance(m, Spellings)), None)
    if spellings:
        told["spellings"] = dict(spellings.table)
    if names_of(key):
        told["short_names"] = list(names_of(key))
    if key in differences():
        told["tao"] = dict(differences()[key])
    if reason(key):
        told["no_effect"] = reason(key)
    return told


def _inside(prefix: str) -> dict[str, str]:
    return {k: leaf.doc for k, leaf in leaves().items() if k.startswith(prefix)}


def as_text(told: dict[str, Any]) -> str:
    """What `explain` gave, for a terminal."""
    if "keys" in told:
        width = max(len(k) for k in told["keys"])
        rows = [f"  {k:<{width}}  {doc}" for k, doc in told["keys"].items()]
        return "\n".join([f"{told['key']}: {told['meaning']}", *rows])
    rows = [told["key"], f"  meaning  {told['meaning']}", f"  allowed  {told['allowed']}"]
    rows.append(f"  default  {value_text(told['default'])}")
    if "spellings" in told:
        rows.append(
            "  also     " + ", ".join(f"{said or '(empty)'} = {meant}" for said, meant in told["spellings"].items())
        )
    if "short_names" in told:
        rows.append("  short    " + ", ".join(f"{name}=" for name in told["short_names"]))
    if told["read_by"]:
        rows.append(f"  read by  {', '.join(told['read_by'])} ({', '.join(told['files'])})")
    rows += [f"  TAO      {line}" for line in tao_lines(told.get("tao", {}))]
    if "no_effect" in told:
        rows.append(f"  note     no effect: {told['no_effect']}")
    return "\n".join(rows)


def tao_lines(tao: dict[str, Any]) -> list[str]:
    """How TAO differs, in sentences without a full stop."""
    lines = [f"default {value_text(tao['default'])}: {tao['why']}"] if "default" in tao else []
    lines += [f"at most {value_text(tao['maximum'])}: {tao['why']}"] if "maximum" in tao else []
    return lines + ([tao["does"]] if "does" in tao else [])
