"""The process of one trial: it trains alone in its folder, and no word of an older one is taken for its own."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from automl import cheap
from oneformer.automl import worker
from oneformer.automl.ledger import held
from oneformer.automl.worker import OUTCOME, SPEC
from oneformer.errors import WorkError

CHEAP = (sys.executable, str(Path(cheap.__file__)))


def started(folder: Path, epoch: int, *, epoch_s: float) -> subprocess.Popen[bytes]:
    (folder / SPEC).write_text("train:\n  num_epochs: 9\n")
    environment = {**os.environ, "CHEAP_EPOCH_S": str(epoch_s)}
    return subprocess.Popen([*CHEAP, str(folder), str(epoch)], stdin=subprocess.PIPE, env=environment)


def wait_for(seen: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not seen():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_word_of_an_older_process_is_not_taken_for_one_of_this(tmp_path: Path) -> None:
    with held(tmp_path):  # an older process saves its last step
        child = started(tmp_path, 3, epoch_s=30)
        time.sleep(0.3)
        (tmp_path / OUTCOME).write_text('{"kind": "interrupted", "epoch": 3}')
    wait_for((tmp_path / "train").is_dir)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / OUTCOME).exists(), "it was killed before it could say anything"


def test_it_ends_in_order_when_the_search_is_gone_and_goes_on_where_it_was(tmp_path: Path) -> None:
    child = started(tmp_path, 9, epoch_s=0.05)
    wait_for((tmp_path / cheap.WORKED).is_file)
    assert child.stdin
    child.stdin.close()  # as the system does for a process that was killed
    assert child.wait(30) == 0
    assert json.loads((tmp_path / OUTCOME).read_text())["kind"] == "interrupted"
    assert started(tmp_path, 9, epoch_s=0.0).wait(30) == 0
    outcome = json.loads((tmp_path / OUTCOME).read_text())
    assert (outcome["kind"], outcome["epoch"], len(outcome["curve"])) == ("done", 9, 9)
    assert (tmp_path / cheap.WORKED).read_text().split() == [str(n) for n in range(1, 10)], "each epoch once"


def test_a_folder_that_does_not_become_free_is_no_fault_of_the_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "GRACE_S", 0.1)
    monkeypatch.setattr(worker, "end_with_parent", lambda _: None)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with held(tmp_path):
            assert worker.main(tmp_path, 3) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not (tmp_path / OUTCOME).exists(), "the folder is another's"


def test_a_full_disk_has_a_kind_of_its_own() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    told = WorkError("the checkpoint cannot be written: No space left on device")
    zipped = RuntimeError("[enforce fail at inline_container.cc:603] . PytorchStreamWriter failed writing file data/7")
    try:
        raise zipped from full
    except RuntimeError as error:
        chained = error
    assert [worker.kind_of(e) for e in (full, told, chained)] == ["disk"] * 3
    assert worker.kind_of(OSError(errno.ENOENT, "No such file or directory")) == "fault"
