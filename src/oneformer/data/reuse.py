"""A shape and a type -> a tensor on the CPU, in the memory of an earlier one that nobody holds any more.

Memory of this size comes from the system page by page, each cleared before it is handed out: for a batch of floats that
takes longer than filling it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from math import prod

import numpy as np
import torch

KEPT = 3  # blocks of a type: the batch that is computed on, the one that comes next, and one that is being made


class Pool:
    """A few blocks of memory for each type; the tensors that are made of them are like any other."""

    def __init__(self) -> None:
        # Each block with whatever keeps it from being used: torch holds that as long as any tensor shows the memory.
        self._blocks: dict[torch.dtype, list[tuple[np.ndarray, weakref.ref[np.ndarray]]]] = {}
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes of all blocks, in use or not."""
        return sum(block.nbytes for blocks in self._blocks.values() for block, _ in blocks)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """A tensor whose content is whatever was there before."""
        size = prod(shape) * dtype.itemsize
        if not size:
            return torch.empty(tuple(shape), dtype=dtype)
        with self._lock:
            used = [(block, holder) for block, holder in self._blocks.get(dtype, []) if holder() is not None]
            free = [block for block, holder in self._blocks.get(dtype, []) if holder() is None and block.nbytes >= size]
            # What is free and too small is given back. NumPy asks for large pages, torch does not.
            block = free.pop() if free else np.empty(size, np.uint8)
            holder = block[:size]
            spare = [(one, weakref.ref(one[:0])) for one in free]  # nobody holds these
            self._blocks[dtype] = [*spare, *used, (block, weakref.ref(holder))][-KEPT:]
        return torch.from_numpy(holder).view(dtype).view(tuple(shape))
