"""An action -> the first line of a YAML file, by which editors find the schema of what may stand in it."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
MARK = "# yaml-language-server: $schema="


def schema_file(action: str = "") -> Path:
    """The JSON Schema of an action's spec; that of any spec where the action has none of its own."""
    own = _PACKAGE / "assets" / "schemas" / f"{action}.schema.json"
    return own if action and own.is_file() else _PACKAGE / "oneformer.schema.json"


def schema_line(action: str = "") -> str:
    """The comment, with the address of the schema that is installed here."""
    return f"{MARK}{schema_file(action).as_uri()}\n"
