"""Tensors of a loader's worker -> the main process, in memory that both keep for as long as the loader works.

torch sends each tensor as a file of its own: made, filled page by page, handed over, mapped page by page, and thrown
away again. Here a worker has a few blocks, and lays a batch into one that the main process has done with.
"""

from __future__ import annotations

import mmap
import os
import weakref
from multiprocessing import reduction
from typing import Any
from uuid import uuid4

import torch

PAGE = mmap.PAGESIZE
FREE, TAKEN = 0, 1


class Shelf:
    """`blocks` blocks of `size` bytes for each of `workers` workers; pages that are never written to take no memory.

    Only a worker takes its blocks and only the main process gives them back, so a byte for each is all they agree by.
    Where `available`; goes to workers however they are started.
    """

    def __init__(self, workers: int, blocks: int, size: int) -> None:
        head = _pages(workers * blocks)
        descriptor = os.memfd_create("oneformer-loader")
        os.ftruncate(descriptor, head + workers * blocks * _pages(size))
        self._open(uuid4().hex, descriptor, blocks, size, head)

    def _open(self, token: str, descriptor: int, blocks: int, size: int, head: int) -> None:
        self.token, self.blocks, self.size = token, blocks, size
        self._descriptor, self._head = descriptor, head
        self._memory = torch.frombuffer(mmap.mmap(descriptor, 0), dtype=torch.uint8)
        weakref.finalize(self, os.close, descriptor)
        _OPEN[token] = self

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (self.token, reduction.DupFd(self._descriptor), self.blocks, self.size, self._head)

    def take(self, worker: int, size: int) -> Lease | None:
        """A free block of a worker's own, None when none is or so many bytes do not fit."""
        own = range(worker * self.blocks, (worker + 1) * self.blocks)
        free = next((number for number in own if self._memory[number] == FREE), None)
        if free is None or size > self.size:
            return None
        self._memory[free] = TAKEN
        return Lease(self, free, ours=False)

    def give_back(self, number: int) -> None:
        """Let the worker use a block again."""
        self._memory[number] = FREE

    def block(self, number: int) -> torch.Tensor:
        """uint8 (size,): a block's memory."""
        start = self._head + number * _pages(self.size)
        return self._memory[start : start + self.size]


class Lease:
    """A block that is in use. It travels as a number; where it arrives, its end lets the worker use the block again."""

    def __init__(self, shelf: Shelf, number: int, *, ours: bool) -> None:
        self._shelf, self._number, self._ours = shelf, number, ours

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self._shelf.token, self._number)

    def tensor(self, start: int, count: int, dtype: torch.dtype) -> torch.Tensor:
        """(count,) of the block, from byte `start` on."""
        return self._shelf.block(self._number)[start : start + count * dtype.itemsize].view(dtype)

    def end(self) -> None:
        """Give the block back, once."""
        if self._ours:
            self._ours = False
            self._shelf.give_back(self._number)

    def __del__(self) -> None:
        self.end()


def stand_at(shelf: Shelf, worker: int) -> None:
    """From now on this process, which is that worker, has the shelf's blocks for it."""
    _own[:] = [(shelf, worker)]


def own_block(size: int) -> Lease | None:
    """A free block of this process for so many bytes; None when it has none."""
    return next((shelf.take(worker, size) for shelf, worker in _own), None)


def available() -> bool:
    """Whether the system has what is needed (Linux)."""
    return hasattr(os, "memfd_create")


def _pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


def _opened(token: str, descriptor: Any, *rest: int) -> Shelf:
    shelf = Shelf.__new__(Shelf)
    shelf._open(token, descriptor.detach(), *rest)
    return shelf


def _arrived(token: str, number: int) -> Lease:
    return Lease(_OPEN[token], number, ours=True)


_own: list[tuple[Shelf, int]] = []  # of this process: one at most
_OPEN: weakref.WeakValueDictionary[str, Shelf] = weakref.WeakValueDictionary()
