"""Work on many items -> its results in their order, by several processes, a bounded number of items under way."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import chain, islice
from typing import TypeVar

# Numbers and values of glibc's mallopt(3): blocks below it come from the heap; what is free there stays, in bytes.
MMAP_THRESHOLD, TRIM_THRESHOLD = (-3, 64 << 20), (-1, 256 << 20)
A = TypeVar("A")
B = TypeVar("B")

FEW = 48  # items below which starting processes takes longer than the work
AHEAD = 4  # items under way for each process


def processors() -> int:
    """How many processes may run at once here."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered(work: Callable[[A], B], items: Iterable[A], *, workers: int = -1) -> Iterator[tuple[A, B]]:
    """Each item with its result. `workers` -1 is one process for each processor; 0, or few items: this process alone.

    `work` has to be importable. Processes are spawned, not forked: threads of this one may hold locks.
    """
    stream = iter(items)
    first = list(islice(stream, FEW)) if workers < 0 else []
    count = processors() if workers < 0 else workers
    if count < 1 or (workers < 0 and (count == 1 or len(first) < FEW)):
        yield from ((item, work(item)) for item in chain(first, stream))
        return
    pending: deque[tuple[A, Future[B]]] = deque()
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            for item in chain(first, stream):
                pending.append((item, pool.submit(work, item)))
                if len(pending) > AHEAD * count:
                    done, result = pending.popleft()
                    yield done, result.result()
            while pending:
                done, result = pending.popleft()
                yield done, result.result()
        finally:
            for _, result in pending:
                result.cancel()


def keep_memory() -> None:
    """Let this process, a loader's worker, use the memory it has freed again instead of giving it back to the system.

    Each photo takes and frees the same few megabytes, and every page that comes fresh from the system costs a fault:
    a tenth of a worker's time. Does nothing where the C library has no such setting.
    """
    try:
        set_to = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return
    for name, value in (MMAP_THRESHOLD, TRIM_THRESHOLD):
        set_to(name, value)
