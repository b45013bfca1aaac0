"""Named tensors -> which of them hold no usable numbers: another type than floating point, NaN, infinity."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from oneformer.errors import CheckpointError

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
COUNTS = "num_batches_tracked"  # of batch normalisation: the one parameter that counts
SHOWN = 5


def not_finite(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Name -> how many of its numbers are NaN or infinite, for each tensor with such numbers."""
    found = {name: int((~t.isfinite()).sum()) for name, t in state.items() if t.is_floating_point()}
    return {name: count for name, count in found.items() if count}


def check_numbers(state: Mapping[str, Tensor], *, where: str) -> None:
    """Raise CheckpointError when a tensor is not of floating-point numbers, or one of them is NaN or infinite."""
    strange = {n: t.dtype for n, t in state.items() if t.dtype not in FLOATS and not n.endswith(COUNTS)}
    if strange:
        name, dtype = next(iter(strange.items()))
        raise CheckpointError(
            f"{name} holds {str(dtype).removeprefix('torch.')} numbers{others(strange)}; weights are floating point",
            where=where,
            hint="quantized or packed weights cannot be used as a checkpoint",
        )
    broken = not_finite(state)
    if broken:
        name, count = next(iter(broken.items()))
        raise CheckpointError(
            f"{name} holds {count} numbers that are NaN or infinite{others(broken)}: the training had diverged",
            where=where,
            hint="take an earlier checkpoint",
        )


def others(found: Mapping[str, object]) -> str:
    """Such as ", and so do 3 others"; empty for one."""
    return f", and so do {len(found) - 1} others" if len(found) > 1 else ""
