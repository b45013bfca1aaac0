"""Blocks of shared memory: a worker's own, used again after the main process has let go, however workers start."""

from __future__ import annotations

import gc
import multiprocessing
import pickle

import pytest
import torch

from oneformer.data import shelf as shelves
from oneformer.data.shelf import Lease, Shelf

pytestmark = pytest.mark.skipif(not shelves.available(), reason="needs anonymous files in memory (Linux)")


def arrive(lease: Lease) -> Lease:
    """As a worker's lease arrives in the main process."""
    again: Lease = pickle.loads(pickle.dumps(lease))
    return again


def test_a_block_is_used_again_when_the_main_process_has_let_go() -> None:
    shelf = Shelf(workers=1, blocks=2, size=100)
    first, second = shelf.take(0, 100), shelf.take(0, 1)
    assert first is not None and second is not None and shelf.take(0, 1) is None
    arrived = arrive(first)
    del first
    gc.collect()
    assert shelf.take(0, 1) is None, "the worker's own end of it is no sign that it was read"
    arrived.end()
    assert shelf.take(0, 1) is not None and shelf.take(0, 1) is None
    arrived.end()
    assert shelf.take(0, 1) is None, "it is given back once"


def test_a_lease_that_nobody_holds_is_given_back() -> None:
    shelf = Shelf(workers=1, blocks=1, size=8)
    lease = shelf.take(0, 8)
    assert lease is not None
    arrive(lease)
    gc.collect()
    assert shelf.take(0, 8) is not None


def test_what_is_written_arrives_and_workers_do_not_meet() -> None:
    shelf = Shelf(workers=2, blocks=1, size=5000)
    leases = [shelf.take(worker, 5000) for worker in (0, 1)]
    for value, lease in enumerate(leases):
        assert lease is not None
        lease.tensor(0, 1000, torch.int16).fill_(value + 7)
        lease.tensor(2000, 3000, torch.uint8).fill_(value)
    for value, lease in enumerate(leases):
        assert lease is not None
        there = arrive(lease)
        assert there.tensor(0, 1000, torch.int16).eq(value + 7).all()
        assert there.tensor(2000, 3000, torch.uint8).eq(value).all()


def test_what_does_not_fit_gets_no_block() -> None:
    shelf = Shelf(workers=1, blocks=1, size=10)
    assert shelf.take(0, 11) is None and shelf.take(0, 10) is not None


@pytest.mark.parametrize("way", ["fork", "spawn", "forkserver"])
def test_a_process_that_was_started_in_any_way_has_the_same_memory(way: str) -> None:
    shelf = Shelf(workers=2, blocks=1, size=6)
    process = multiprocessing.get_context(way).Process(target=shelf.take, args=(1, 6))  # type: ignore[attr-defined]
    process.start()
    process.join()
    assert process.exitcode == 0 and shelf.take(1, 6) is None and shelf.take(0, 6) is not None


def test_nothing_is_left_when_nobody_holds_the_shelf() -> None:
    before = len(shelves._OPEN)
    shelf = Shelf(workers=1, blocks=1, size=10)
    lease = shelf.take(0, 10)
    assert lease is not None and len(shelves._OPEN) == before + 1
    del shelf, lease
    gc.collect()
    assert len(shelves._OPEN) == before


def test_a_process_without_a_shelf_has_no_block() -> None:
    assert shelves.own_block(1) is None


def test_a_worker_takes_blocks_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(workers=2, blocks=1, size=6)
    monkeypatch.setattr(shelves, "_own", [])
    shelves.stand_at(shelf, 1)
    assert shelves.own_block(6) is not None and shelves.own_block(6) is None
    assert shelf.take(1, 6) is None and shelf.take(0, 6) is not None
