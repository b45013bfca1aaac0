"""Who may start: slots of GPUs and processors, order of submission, and what has to be complete first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oneformer.errors import SpecError, UserError
from oneformer.jobs import slots
from oneformer.jobs.alive import Process
from oneformer.jobs.record import CANCELED, COMPLETE, ERROR, RUNNING, Record, Run


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEFORMER_JOBS_CPUS", "4")
    monkeypatch.setenv("ONEFORMER_JOBS_GPUS", "2")


def job(name: str, *, gpus: int = 0, cpus: int = 1, state: str = "PENDING", after: tuple[str, ...] = ()) -> Record:
    record = Record(id=name, action="train", order=0, gpus=gpus, cpus=cpus, state=state, after=list(after))
    if state == RUNNING:
        record.run = Run(Process.this(), "t", [str(n) for n in range(gpus)])
    return record


def may_start(*records: Record, starting: tuple[str, ...] = ()) -> list[str]:
    return [record.id for record in slots.startable(records, starting=starting)]


def test_as_many_start_as_fit() -> None:
    assert may_start(job("a", cpus=2), job("b", cpus=2), job("c", cpus=1)) == ["a", "b"]


def test_running_and_starting_jobs_hold_their_slots() -> None:
    assert may_start(job("a", cpus=3, state=RUNNING), job("b", cpus=1), job("c")) == ["b"]
    assert may_start(job("a", cpus=3), job("b", cpus=2), job("c"), starting=("a",)) == []


def test_a_large_job_is_not_overtaken_for_ever() -> None:
    """The small one behind it would fit, and the next, and the next: the large one would never start."""
    assert may_start(job("a", cpus=2, state=RUNNING), job("large", cpus=4), job("small", cpus=1)) == []


def test_one_that_waits_for_a_gpu_lets_those_pass_that_need_none() -> None:
    records = [job("a", gpus=1, state=RUNNING), job("two", gpus=2), job("one", gpus=1), job("none", cpus=1)]
    assert may_start(*records) == ["none"]


def test_a_running_job_of_another_machine_holds_nothing_here() -> None:
    away = job("a", cpus=4, state=RUNNING)
    assert away.run
    away.run = replace(away.run, process=replace(away.run.process, host="elsewhere"))
    assert may_start(away, job("b", cpus=4)) == ["b"]


def test_what_comes_first_has_to_be_complete() -> None:
    assert may_start(job("a", state=COMPLETE), job("b", after=("a",)), job("c", after=("b",))) == ["b"]
    assert may_start(job("a", state=RUNNING), job("b", after=("a",))) == []


@pytest.mark.parametrize("state", [ERROR, CANCELED, ""])
def test_after_a_failure_nothing_follows(state: str) -> None:
    assert "a" in slots.held_up(job("b", after=("a",)), {"a": state} if state else {})
    assert slots.held_up(job("b", after=("a",)), {"a": COMPLETE}) == ""


def test_gpus_are_given_out_by_the_names_that_cuda_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEFORMER_JOBS_GPUS")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-12ab")
    assert slots.machine().gpus == ("3", "GPU-12ab")
    assert slots.machine().without([replace_gpus(job("a", gpus=1, state=RUNNING), "3")]).gpus == ("GPU-12ab",)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert slots.machine().gpus == ()


def replace_gpus(record: Record, *gpus: str) -> Record:
    assert record.run
    record.run.gpus = list(gpus)
    return record


def test_more_than_there_is_is_refused_with_what_there_is() -> None:
    with pytest.raises(UserError, match="3 GPUs are asked for, this machine has 2"):
        slots.check_fits(3, 1)
    with pytest.raises(UserError, match="9 processors are asked for, this machine has 4"):
        slots.check_fits(0, 9)


def test_a_variable_that_holds_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEFORMER_JOBS_GPUS", "many")
    with pytest.raises(SpecError, match="ONEFORMER_JOBS_GPUS"):
        slots.machine()
