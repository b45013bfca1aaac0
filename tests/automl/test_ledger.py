"""The record of a search survives kills, torn writes and a full disk: nothing finished is lost, nothing is doubled."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from oneformer.automl.ledger import FILE, Ledger, held, is_held
from oneformer.automl.trial import STATES, Checkpoint, Finished, Trial
from oneformer.errors import UserError, WorkError

TRIALS = 40


def work(folder: Path, acknowledge: int = -1) -> None:
    """A search of the plainest kind: each trial to epoch 1, every second one to epoch 3; what is written is told."""
    with held(folder), Ledger(folder) as ledger:
        ledger.reclaim()
        while True:
            trial = next((t for t in ledger.trials.values() if not t.ended and wanted(t)), None)
            if trial is None:
                if len(ledger.trials) == TRIALS:
                    return
                trial = ledger.add({"lr": float(np.random.default_rng(len(ledger.trials)).random())}, source="random")
            epoch = wanted(trial)
            ledger.lease(trial, epoch, owner=str(os.getpid()), until=time.time() + 60)
            done = Finished(trial.values["lr"] * epoch, 0.1, {"PQ": 1.0}, {epoch: 1.0}, Checkpoint("a.pth", "00", 7))
            ledger.finish(trial, done, last=epoch == 3)
            if acknowledge >= 0:
                os.write(acknowledge, f"{trial.id} {epoch}\n".encode())


def wanted(trial: Trial) -> int:
    return 1 if not trial.rungs else 3 if trial.id % 2 and trial.epochs == 1 else 0


def outcome(folder: Path) -> list[tuple]:
    with Ledger(folder, read_only=True) as ledger:
        return [(t.id, t.values, t.state, {e: r.score for e, r in t.rungs.items()}) for t in ledger.trials.values()]


def killed_often(folder: Path, kills: int, seed: int) -> tuple[set[str], int]:
    """Run `work` in children that are killed at random moments; what they had acknowledged, and how often they were."""
    rng, said, died = random.Random(seed), set(), 0
    while True:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            try:
                work(folder, write)
            finally:
                os._exit(0)
        os.close(write)
        if died < kills:
            time.sleep(rng.uniform(0.0, 0.03))
            os.kill(child, signal.SIGKILL)
        with os.fdopen(read) as lines:
            told = [line for line in lines if line.endswith("\n")]
        _, status = os.waitpid(child, 0)
        assert not said & set(told), "a trial was trained twice"
        said |= set(told)
        died += os.WIFSIGNALED(status)
        if not os.WIFSIGNALED(status):
            return said, died


def check_kills(folder: Path, kills: int, seed: int) -> int:
    quiet, loud = folder / "quiet", folder / "loud"
    for path in (quiet, loud):
        path.mkdir()
    work(quiet)
    said, died = killed_often(loud, kills, seed)
    assert outcome(loud) == outcome(quiet), "the same sequence, values and scores"
    with Ledger(loud, read_only=True) as ledger:
        states = {t.state for t in ledger.trials.values()}
        finished = {f"{t.id} {e}\n" for t in ledger.trials.values() for e in t.rungs}
        places = [r.place for t in ledger.trials.values() for r in t.rungs.values()]
    assert said <= finished and "running" not in states
    assert sorted(places) == list(range(1, len(places) + 1))
    return died


def test_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    assert check_kills(tmp_path, 25, seed=1) > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_two_hundred_kills_lose_and_double_nothing(tmp_path: Path, seed: int) -> None:
    check_kills(tmp_path, 25, seed=seed)


def three_trials(folder: Path) -> tuple[bytes, bytes, int]:
    """A record of three finished trials: the file, the log of the last writes, and where its last record begins."""
    folder.mkdir()
    with Ledger(folder) as ledger:  # not closed before it is copied: closing would fold the log into the file
        for number in range(3):
            trial = ledger.add({"lr": number}, source="random")
            ledger.lease(trial, 1, owner="me", until=0)
            begins = (folder / f"{FILE}-wal").stat().st_size
            ledger.finish(trial, Finished(0.5, 1.0, {"PQ": 0.5}, {1: 0.5}), last=True)
        return (folder / FILE).read_bytes(), (folder / f"{FILE}-wal").read_bytes(), begins


def states_of(folder: Path, base: bytes, last_writes: bytes) -> tuple[list[str], list[int]]:
    """What a start finds in such files: the states of the trials, and those that were put back."""
    folder.mkdir()
    (folder / FILE).write_bytes(base)
    (folder / f"{FILE}-wal").write_bytes(last_writes)
    with Ledger(folder) as ledger:
        states = [t.state for t in ledger.trials.values()]
        assert [len(t.rungs) for t in ledger.trials.values()] == [int(state == "done") for state in states]
        again = [t.id for t in ledger.reclaim()]
    shutil.rmtree(folder)
    return states, again


def check_torn(folder: Path, *, step: int) -> None:
    """The files as a power cut may leave them: the last record ends anywhere, or is not what was written."""
    base, log, begins = three_trials(folder / "whole")
    assert begins < len(log)
    assert states_of(folder / "torn", base, log) == (["done"] * 3, [])
    costs_one = (["done", "done", "running"], [2])
    for cut in [*range(begins, len(log), step), len(log) - 1]:
        assert states_of(folder / "torn", base, log[:cut]) == costs_one, f"cut at byte {cut}"
        nulls = log[:cut] + bytes(len(log) - cut)
        assert (cut - begins) % (8 * step) or nulls == log or states_of(folder / "torn", base, nulls) == costs_one, (
            f"nothing but 0 from byte {cut}"
        )
        turned = log[:cut] + bytes([log[cut] ^ 0x40]) + log[cut + 1 :]
        assert states_of(folder / "torn", base, turned) == costs_one, f"byte {cut} is another"


def test_a_last_record_torn_at_many_bytes_costs_that_record_only(tmp_path: Path) -> None:
    check_torn(tmp_path, step=2039)


@pytest.mark.slow
def test_a_last_record_torn_at_any_byte_costs_that_record_only() -> None:
    """Nearly ninety thousand starts; in memory where that can be, for there it takes a minute or two."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        check_torn(Path(folder), step=1)


def test_a_full_disk_is_told_and_nothing_is_half_written(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.add({"lr": 1}, source="own")
        pages = ledger._base.execute("PRAGMA page_count").fetchone()[0]
        ledger._base.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(WorkError, match="full"):
            for number in range(1000):
                ledger.add({"lr": number, "text": "x" * 500}, source="random")
        known = list(ledger.trials)
        ledger._base.execute("PRAGMA max_page_count = 100000")
        assert ledger.add({"lr": 3}, source="random").id == len(known)
    with Ledger(tmp_path, read_only=True) as ledger:
        assert list(ledger.trials) == [*known, len(known)]
        assert len([e for e in ledger.events() if e[1] == "added"]) == len(known) + 1


def test_only_one_process_runs_a_search(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    with held(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(UserError, match="another process"), held(tmp_path):
            pass
    with held(tmp_path):
        pass


def test_readers_do_not_disturb_the_writer(tmp_path: Path) -> None:
    with Ledger(tmp_path) as writer:
        trial = writer.add({"lr": 1}, source="own")
        with Ledger(tmp_path, read_only=True) as reader:
            writer.lease(trial, 3, owner="me", until=9.0)
            assert reader.trials[0].state == "waiting"
            with pytest.raises(WorkError, match="readonly"):
                reader.add({"lr": 2}, source="random")
        with Ledger(tmp_path, read_only=True) as reader:
            assert (reader.trials[0].state, reader.trials[0].target) == ("running", 3)


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.set_facts({"seed": 7, "space": {"train.optim.lr": {"low": 1e-5}}})
        trial = ledger.add({"train.optim.lr": 1e-3, "a": [1, 2], "b": None, "c": True}, source="tpe", bracket=2)
        ledger.lease(trial, 3, owner="me", until=0)
        ledger.put_back(trial, "the machine went away", retry=True)
        ledger.lease(trial, 3, owner="me", until=0)
        file = Checkpoint("trials/000/best.pth", "abc", 12)
        ledger.finish(trial, Finished(41.5, 9.0, {"PQ": 41.5, "mIoU": 60.0}, {1: 20.0, 2: 41.5}, file), last=False)
        before = trial
    with Ledger(tmp_path, read_only=True) as ledger:
        assert ledger.facts() == {"seed": 7, "space": {"train.optim.lr": {"low": 1e-5}}}
        assert ledger.trials == {0: before}
        assert ledger.checkpoint(before) == file
        assert ledger.metrics(before) == {1: {"curve": 20.0}, 2: {"curve": 41.5}, 3: {"PQ": 41.5, "mIoU": 60.0}}


def test_states_follow_their_order(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        trial = ledger.add({}, source="own")
        with pytest.raises(AssertionError, match="from waiting to done"):
            ledger.finish(trial, Finished(1.0, 1.0, {}), last=True)
        ledger.lease(trial, 1, owner="me", until=0)
        ledger.end(trial, "failed", "a loss was no number")
        for state in STATES:
            with pytest.raises(AssertionError), ledger._moved(trial, state, "x", detail=""):
                pass


def test_another_file_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("my notes " * 400)
    with pytest.raises(UserError, match="no record of a search"):
        Ledger(tmp_path)
    assert (tmp_path / FILE).read_text().startswith("my notes")
    with pytest.raises(UserError, match="there is no search"):
        Ledger(tmp_path / "none", read_only=True)
    assert sqlite3.threadsafety >= 1


def test_what_came_with_a_proposal_is_read_again(tmp_path: Path) -> None:
    note = {"why": "less is better here", "ranges": {"train.optim.lr": [1e-4, 1e-3]}}
    with Ledger(tmp_path) as ledger:
        ledger.add({"train.optim.lr": 1e-4}, source="own")
        ledger.add({"train.optim.lr": 2e-4}, source="llm", note=note)
        ledger.tell("asked", {"times": 2}, trial=1)
    with Ledger(tmp_path, read_only=True) as ledger:
        assert [t.note for t in ledger.trials.values()] == [{}, note]
        assert [(what, trial) for _, what, trial, _ in ledger.events()] == [
            ("added", 0), ("proposed", 1), ("added", 1), ("asked", 1)
        ]  # fmt: skip
