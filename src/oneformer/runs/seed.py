"""One seed -> every random number generator that a run draws from."""

from __future__ import annotations

import random
import sys


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch (GPU generators included).

    torch is only seeded when it is installed; loader workers seed themselves from (seed, epoch, index).

    Args:
        seed: 0 to 2**32 - 1.
    """
    assert 0 <= seed < 2**32, f"seed {seed} is outside of numpy's range"
    random.seed(seed)
    import numpy as np

    np.random.seed(seed)
    if _has_torch():
        import torch

        torch.manual_seed(seed)


def _has_torch() -> bool:
    if "torch" in sys.modules:
        return True
    from importlib.util import find_spec

    return find_spec("torch") is not None
