"""Stand-ins for OmegaConf's settings, as they lie in checkpoints of NVIDIA TAO -> plain dictionaries and lists.

OmegaConf keeps a table under `_content`, one node for each entry, and a value under `_val`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oneformer.model.weights.pickles import Stand

MOST = 20_000  # settings; TAO's spec has 250


def plain_settings(value: Any) -> Any:
    """The plain value; what is neither a setting nor plain is None, and so is all of it when there are too many."""
    try:
        return plain(value, iter(range(MOST)))
    except (StopIteration, RecursionError):
        return None


def plain(value: Any, left: Any) -> Any:
    """One setting and all below it; each takes one from what is `left`, for a small file can nest without end."""
    next(left)
    if isinstance(value, Stand):
        state = value.state if isinstance(value.state, Mapping) else {}
        return plain(state.get("_content", state.get("_val")), left)
    if isinstance(value, Mapping):
        return {str(k): plain(v, left) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, left) for v in value]
    return value if isinstance(value, bool | int | float | str) else None
