"""Trainings of a search on a Ray cluster: what each holds, and that a lost place costs a try and no trial."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from automl import test_faults as faults
from oneformer import cli
from oneformer.automl import controller
from oneformer.automl.controller import Controller
from oneformer.automl.ledger import Ledger, held
from oneformer.automl.on_ray import OnCluster, OnRay, Share, share_of
from oneformer.automl.study import Study
from oneformer.errors import SpecError
from ray_cluster import ray_cluster

THERE = {"CPU": 8.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("cpus", "gpus", "there", "found"),
    [
        ("", "", THERE, Share(1.0, 1.0)),
        ("", "", {"CPU": 8.0}, Share(1.0, 0.0)),
        ("2", "0.5", THERE, Share(2.0, 0.5)),
        ("", "2", THERE, Share(1.0, 2.0)),
        ("0.5", "0", THERE, Share(0.5, 0.0)),
        ("", "3", THERE, "3 are asked for, the cluster has 2"),
        ("", "1", {"CPU": 8.0}, "the cluster has 0"),
        ("", "1.5", THERE, "neither a part of a GPU nor a whole number"),
        ("many", "", THERE, "'many' is no number"),
        ("0", "", THERE, "needs a processor"),
    ],
)
def test_a_training_holds_what_was_asked_for(cpus: str, gpus: str, there: Any, found: Share | str) -> None:
    if isinstance(found, str):
        with pytest.raises(SpecError, match=found):
            share_of(cpus, gpus, there)
    else:
        assert share_of(cpus, gpus, there) == found


class Gone(Exception):
    pass


class Late(Exception):
    pass


def pretended(answers: dict[str, Any], *, ready: bool = True) -> Any:
    """Ray with one actor that answers so."""

    def get(reference: str, timeout: float | None = None) -> Any:
        if isinstance(answers[reference], type):
            raise answers[reference]
        return answers[reference]

    return SimpleNamespace(
        exceptions=SimpleNamespace(RayActorError=Gone, GetTimeoutError=Late), get=get, killed=[],
        wait=lambda references, timeout: (references, []) if ready else ([], references),
    )  # fmt: skip


ACTOR = SimpleNamespace(over=SimpleNamespace(remote=lambda: "over"), stop=SimpleNamespace(remote=lambda: "stop"))


@pytest.mark.parametrize(
    ("answer", "ready", "over"), [(False, True, False), (True, True, True), (Gone, True, True), (True, False, False)]
)
def test_it_is_over_when_it_has_ended_or_its_place_is_lost(answer: Any, ready: bool, over: bool) -> None:
    ray = pretended({"over": answer, "stop": True}, ready=ready)
    running = OnCluster(ray, ACTOR)
    assert running.over() is over
    ray.kill = ray.killed.append
    running.stop()
    assert ray.killed == [ACTOR]


def test_a_share_without_a_cluster_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*faults.WORDS, f"results_dir={tmp_path}", "automl.max_trials=2"]
    assert cli.main(["automl", "run", *words, "--trial-gpus", "0.5"]) == cli.WRONG_REQUEST
    assert "name it with --cluster" in capsys.readouterr().err


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two processors and one GPU that is none."""
    monkeypatch.setattr(controller, "POLL_S", 0.05)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CHEAP_EPOCH_S", "0.3")
    with ray_cluster(monkeypatch, num_gpus=1) as module:
        yield module


def search(found: Study, ray: Any, share: Share) -> str:
    with held(found.folder), Ledger(found.folder) as ledger:
        found.agree(ledger)
        return Controller(found, ledger, OnRay(ray, share, faults.CHEAP)).run()


@pytest.mark.slow
def test_a_search_on_a_cluster_survives_the_kill_of_workers(ray: Any, tmp_path: Path) -> None:
    """Its record is that of the same search on this machine, which nobody has disturbed."""
    words = ("automl.max_trials=6", "automl.max_concurrent=2", "automl.algorithm=random")
    killed: list[int] = []
    over = threading.Event()

    def killer() -> None:
        while len(killed) < 4 and not over.wait(3.0):
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit() and len(killed) < 4 and _is_trial(entry):
                    os.kill(int(entry.name), signal.SIGKILL)
                    killed.append(int(entry.name))
                    break

    thread = threading.Thread(target=killer, daemon=True)
    thread.start()
    there = faults.study(tmp_path / "cluster", *words)
    try:
        assert search(there, ray, Share(1.0, 0.5)) == "done"
    finally:
        over.set()
        thread.join(10)
    assert killed
    here = faults.study(tmp_path / "here", *words)
    assert faults.search(here) == "done"
    expected = {str(t["values"]): t["rungs"] for t in faults.told(here.folder)}
    assert {str(t["values"]): t["rungs"] for t in faults.told(there.folder)} == expected and len(expected) == 6


def _is_trial(entry: Path) -> bool:
    try:
        return b"ray::TrialActor" in (entry / "cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.slow
def test_two_trainings_share_a_gpu(ray: Any, tmp_path: Path) -> None:
    """Both begin at once with half of it each, and see the same one."""
    program = ("sh", "-c", 'echo $CUDA_VISIBLE_DEVICES > "$0/seen"; sleep 5')
    running = []
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        running.append(OnRay(ray, Share(0.5, 0.5), program).start(tmp_path / name, 1))
    until = time.monotonic() + 120
    while not all((tmp_path / name / "seen").exists() for name in "ab") and time.monotonic() < until:
        time.sleep(0.1)
    assert [(tmp_path / name / "seen").read_text() for name in "ab"] == ["0\n", "0\n"]
    assert not (tmp_path / "c" / "seen").exists()  # there is no room for a third
    for training in running:
        training.stop()
