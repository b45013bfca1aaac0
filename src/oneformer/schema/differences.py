"""A key -> how TAO differs: its default or limit with the reason for ours, and what it does with the key.

`tao_differences.json` is the one list of them; the tests hold TAO's schemas against it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("tao_differences.json")


@cache
def differences() -> dict[str, dict[str, Any]]:
    """Key -> of `default` and `maximum` TAO's value, `why` ours is another, and what TAO `does` with the key."""
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found
