"""Nested plain values -> the same with passwords, keys and tokens masked."""

from __future__ import annotations

import re
from typing import Any

from oneformer.errors import MASK, without_secrets

_SECRET = re.compile(r"(^|[_\-.])(key|token|password|passwd|secret|credential)s?($|[_\-.])", re.IGNORECASE)


def masked(value: Any, name: str = "") -> Any:
    """Mask what stands under a secret name, and logins and queries inside addresses (`s3://user:password@host`)."""
    if isinstance(value, dict):
        return {k: masked(v, str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [masked(v, name) for v in value]
    if isinstance(value, str) and value:
        return MASK if _SECRET.search(name) else without_secrets(value)
    return value
