"""A search in real processes whose controller and trainings are killed, or whose disk fills up: nothing is lost."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from automl import cheap
from automl.pretended import files
from oneformer.automl import controller
from oneformer.automl.controller import Controller
from oneformer.automl.executor import Local
from oneformer.automl.ledger import Ledger, held, is_held
from oneformer.automl.study import Study, digest_of, study_of
from oneformer.errors import UserError, WorkError
from oneformer.spec.load import load_spec

WORDS = (
    "preset=swin_t", "train.num_epochs=9", "automl.parameters=[train.optim.lr,train.optim.weight_decay]",
    "automl.retries=1000", "automl.seed=3",
)  # fmt: skip
CHEAP = (sys.executable, str(Path(cheap.__file__)))
KINDS = ("controller", "training", "both")
LINUX = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="children are looked up in /proc")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "POLL_S", 0.01)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CHEAP_EPOCH_S", "0.03")  # or a search would end before it was killed often enough


def study(folder: Path, *words: str) -> Study:
    found = study_of(load_spec(None, [*WORDS, f"results_dir={folder}", *words], action="automl run"))
    found.folder.mkdir(parents=True, exist_ok=True)
    return found


def search(found: Study) -> str:
    with held(found.folder), Ledger(found.folder) as ledger:
        found.agree(ledger)
        return Controller(found, ledger, Local(found.spec.automl.max_concurrent, CHEAP)).run()


def told(folder: Path) -> list[dict[str, Any]]:
    """What the record says of each trial; nothing where the search was cut off before there was one."""
    try:
        Ledger(folder, read_only=True).close()
    except UserError as error:
        assert "there is no search" in error.what
        return []
    with Ledger(folder, read_only=True) as ledger:
        return [
            {
                "values": t.values,
                "source": t.source,
                "state": t.state,
                "rungs": {e: r.score for e, r in t.rungs.items()},
            }
            for t in ledger.trials.values()
        ]


def finished(folder: Path) -> dict[tuple[int, int], float]:
    return {(n, epoch): score for n, t in enumerate(told(folder)) for epoch, score in t["rungs"].items()}


def children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def alive(folder: Path) -> list[str]:
    """Trainings of the search that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().decode(errors="replace")
            if cheap.__file__ in words and str(folder) in words:
                found.append(words)
    return found


def one_life(found: Study, kind: str, after: float) -> tuple[bool, int]:
    """Go on with the search in a child, and kill what `kind` says after some seconds; (it is done, kills)."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if search(found) == "done" else 1
        finally:
            os._exit(code)
    kills = 0
    until = time.monotonic() + after
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0, 0
        time.sleep(0.002)
    trainings = children(child)
    if kind != "training":
        os.kill(child, signal.SIGKILL)
        kills += 1
    if kind != "controller":
        for pid in trainings:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                kills += 1
    if kind == "training":  # the search goes on with another try, until it is killed itself
        time.sleep(0.1)
        os.kill(child, signal.SIGKILL)
        kills += 1
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, kills


def killed(found: Study, kills: int, seed: int) -> int:
    """The search to its end, killed so often on its way; after each kill nothing that was finished is missing."""
    rng, died, known = random.Random(seed), 0, {}
    while True:
        wait = rng.uniform(0.0, 0.3) if died < kills else 600.0
        over, more = one_life(found, rng.choice(KINDS), wait)
        died += more
        now = finished(found.folder)
        assert now.items() >= known.items(), "a finished trial was lost or changed"
        known = now
        if over:
            return died


def check(found: Study) -> None:
    """What must hold after the last start, whatever happened before."""
    until = time.monotonic() + 10
    while alive(found.folder) and time.monotonic() < until:
        time.sleep(0.05)
    assert alive(found.folder) == [] and not is_held(found.folder)
    with Ledger(found.folder, read_only=True) as ledger:
        trials = list(ledger.trials.values())
        assert not [t for t in trials if t.state == "running" or t.target]
        events = Counter((e[2], json.loads(e[3])["epoch"]) for e in ledger.events() if e[1] == "finished")
        assert set(events.values()) == {1}, "a part of a training was recorded twice"
        places = sorted(r.place for t in trials for r in t.rungs.values())
        assert places == list(range(1, len(places) + 1))
        best = found.brain("PQ").best(trials)
        assert best is not None
        record = ledger.checkpoint(best)
    assert record is not None and digest_of(found.folder / record.path) == record.digest
    kept = json.loads((found.folder / record.path).read_text())
    assert max(kept["curve"].values()) == best.rungs[best.epochs].score
    assert set(files(found.folder)) == {f"{best.id:04d}"}
    assert not list(found.folder.glob("trials/**/*.part")), "half a file is left"


@LINUX
def test_ten_kills_of_the_search_and_its_trainings(tmp_path: Path) -> None:
    words = ("automl.max_trials=12", "automl.sampler=random")  # more work than ten lives of 0.3 s get done
    quiet, loud = (study(tmp_path / name, *words) for name in ("quiet", "loud"))
    assert search(quiet) == "done"
    assert killed(loud, 10, seed=1) >= 10
    assert told(loud.folder) == told(quiet.folder)
    check(loud)


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize("seed", [1, 2])
def test_two_hundred_kills_of_the_search_and_its_trainings(tmp_path: Path, seed: int) -> None:
    """With the default sampler, which learns: it has to be told the same of the past each time."""
    quiet, loud = (study(tmp_path / name, "automl.max_trials=40") for name in ("quiet", "loud"))
    assert search(quiet) == "done"
    assert killed(loud, 200, seed) >= 200
    assert told(loud.folder) == told(quiet.folder)
    check(loud)


@pytest.mark.slow
@LINUX
def test_two_hundred_kills_with_three_trainings_at_a_time(tmp_path: Path) -> None:
    """Which trial ends first is chance then, so that only the rules are compared, not the sequence."""
    import optuna  # noqa: F401  # once, not in each life

    loud = study(tmp_path, "automl.max_trials=100", "automl.max_concurrent=3")
    assert killed(loud, 200, seed=5) >= 200
    check(loud)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes; the test is skipped where none may be mounted."""
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, left: int) -> Path:
    """Write a file that leaves so many bytes of the disk."""
    path = folder / "something_else"
    with path.open("wb") as file:
        file.write(b"x" * max(0, shutil.disk_usage(folder).free - left))
    return path


def check_full_disk(folder: Path, lefts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHEAP_BYTES", "20000")
    words = ("automl.max_trials=4", "automl.sampler=random")
    quiet = study(folder / "quiet", *words)
    assert search(quiet) == "done"
    with small_disk(folder / "disk", 2**20) as disk:
        found, known, faults = study(disk, *words), {}, 0
        for left in lefts:
            other = fill(disk, left)
            try:
                search(found)
            except WorkError as error:
                faults += 1
                assert re.search(r"(?i)no space left|disk is full|disk I/O error.*\n.* 0 MiB are free", str(error))
            other.unlink()
            now = finished(found.folder)
            assert now.items() >= known.items()
            known = now
            assert not [t for t in told(found.folder) if t["state"] in ("failed", "infeasible")], (
                "it is no trial's fault"
            )
        assert faults >= min(10, len(lefts)), "the disk was hardly ever full"
        assert search(found) == "done"
        assert told(found.folder) == told(quiet.folder)
        check(found)


def test_a_disk_that_fills_up_ends_the_search_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_full_disk(tmp_path, [0, 120_000, 200_000], monkeypatch)


@pytest.mark.slow
def test_a_disk_that_fills_up_at_any_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_full_disk(tmp_path, list(range(0, 160_000, 4096)), monkeypatch)
