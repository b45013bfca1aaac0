"""A key -> the commands that read it and the files that do.

`readers.json` is recorded while the commands run (`make docs`), and a test records it again.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("readers.json")


@cache
def _recorded() -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def commands(key: str) -> tuple[str, ...]:
    """The commands that read a key."""
    return tuple(_recorded().get(key, {}).get("commands", ()))


def files(key: str) -> tuple[str, ...]:
    """The files below `src/oneformer` that read a key."""
    return tuple(_recorded().get(key, {}).get("files", ()))
