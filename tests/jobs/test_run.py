"""Jobs that run: their order, their end, what a cancel or a kill leaves, and that each runs once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from jobs.conftest import processes_of
from jobs.work import lines, shell, until
from oneformer.errors import UserError
from oneformer.jobs import Job, create_job, queue, worker
from oneformer.jobs.alive import Process, members
from oneformer.jobs.job import all_refreshed
from oneformer.jobs.record import CANCELED, COMPLETE, ERROR, PENDING, RUNNING, UNKNOWN, Run
from oneformer.jobs.settle import SILENT_S
from oneformer.jobs.store import PRIVATE, Store


def test_jobs_run_in_their_order_and_after_what_they_wait_for(store: Store, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    first = shell(store, f"sleep 0.2; echo a >> {ledger}; echo said", cpus=1)
    second = shell(store, f"echo b >> {ledger}", cpus=1, after=[first.id])
    assert second.state == PENDING
    assert (second.wait(30), first.state) == (COMPLETE, COMPLETE)
    assert lines(ledger) == ["a", "b"]
    assert first.log == "said\n" and first.record.exit_code == 0
    until(lambda: not processes_of(store))  # the queue ends with its work


def test_slots_are_never_given_out_twice(store: Store, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    jobs = [shell(store, f"echo + >> {ledger}; sleep 0.15; echo - >> {ledger}", cpus=1) for _ in range(6)]
    assert {job.wait(30) for job in jobs} == {COMPLETE}
    running = most = 0
    for line in lines(ledger):
        running += 1 if line == "+" else -1
        most = max(most, running)
    assert most == 2 and len(lines(ledger)) == 12


def test_gpus_are_told_to_the_process_that_got_them(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEFORMER_JOBS_GPUS", "2")
    asks = "echo $CUDA_VISIBLE_DEVICES $OMP_NUM_THREADS; sleep 0.3"
    jobs = [shell(store, asks, gpus=1, cpus=1), shell(store, asks, gpus=1, cpus=1)]
    assert [job.wait(30) for job in jobs] == [COMPLETE, COMPLETE]
    assert {job.log.split()[0] for job in jobs} == {"0", "1"}
    assert shell(store, "exit 0", gpus=2).wait(30) == COMPLETE
    without = shell(store, 'test "$CUDA_VISIBLE_DEVICES" = ""')
    assert without.wait(30) == COMPLETE


def test_a_failure_is_told_and_ends_what_follows(store: Store) -> None:
    bad = shell(store, "sleep 0.2; echo 'error: no data' >&2; exit 3")
    next_one = shell(store, "true", after=[bad.id])
    last = shell(store, "true", after=[next_one.id])
    assert last.wait(30) == CANCELED
    assert (bad.state, bad.message, bad.record.exit_code) == (ERROR, "no data", 3)
    assert next_one.state == CANCELED and bad.id in next_one.message
    with pytest.raises(UserError, match="ended as ERROR"):
        shell(store, "true", after=[bad.id])


def test_a_command_that_is_not_there_is_an_error_of_the_job(store: Store) -> None:
    job = create_job("work", command=["/no/such/program"], jobs=store.root)
    assert job.wait(30) == ERROR and "/no/such/program" in job.message


def test_a_command_that_somebody_else_wrote_into_a_record_is_not_run(store: Store, tmp_path: Path) -> None:
    job = shell(store, "sleep 0.3", cpus=2)
    strange = shell(store, "true", after=[job.id])
    store.change(strange.id, lambda record: setattr(record, "command", ["touch", str(tmp_path / "ran")]))
    assert strange.wait(30) == ERROR and "not submitted by you" in strange.message
    assert not (tmp_path / "ran").exists()


def test_a_waiting_job_is_taken_back(store: Store, tmp_path: Path) -> None:
    busy = shell(store, "sleep 30", cpus=2)
    waits = shell(store, f"touch {tmp_path / 'ran'}", cpus=2)
    until(lambda: busy.state == RUNNING)
    assert waits.cancel() == CANCELED
    busy.cancel()
    assert busy.wait(20) == CANCELED
    until(lambda: not processes_of(store))
    assert not (tmp_path / "ran").exists()


def test_a_cancel_ends_every_process_of_the_job_even_deaf_ones(store: Store, tmp_path: Path) -> None:
    deaf = "trap '' TERM; echo in > in; while :; do sleep 0.1; done"
    job = shell(store, f'cd {tmp_path}; setsid sh -c "{deaf}" & sleep 60')
    until((tmp_path / "in").exists)
    run = job.record.run
    assert run and len(members(run.token, run.process.pid)) >= 2
    job.cancel()
    assert job.wait(20) == CANCELED
    assert members(run.token, run.process.pid) == []


def test_what_a_finished_action_leaves_in_the_background_is_ended(store: Store) -> None:
    job = shell(store, "sleep 60 & exit 0")
    assert job.wait(20) == COMPLETE
    run = job.record.run
    assert run and members(run.token, run.process.pid) == []


def test_a_killed_worker_is_found_out_and_its_action_ended(store: Store) -> None:
    job = shell(store, "sleep 60")
    until(lambda: (now := job.record).run and members(now.run.token, 0))
    run = job.record.run
    assert run
    os.kill(run.process.pid, signal.SIGKILL)
    assert job.wait(20) == ERROR and job.message == "its process was killed from outside"
    assert members(run.token, run.process.pid) == []


def test_a_killed_queue_is_replaced_and_nothing_runs_twice(store: Store, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    jobs = [shell(store, f"echo {n} >> {ledger}; sleep 0.1", cpus=1) for n in range(4)]
    until(lambda: lines(ledger))
    for pid in processes_of(store):
        words = Path(f"/proc/{pid}/cmdline").read_bytes() if Path(f"/proc/{pid}").exists() else b""
        if b"oneformer.jobs.queue" in words:
            os.kill(pid, signal.SIGKILL)
    assert [job.wait(30) for job in jobs] == [COMPLETE] * 4
    assert sorted(lines(ledger)) == ["0", "1", "2", "3"]


def test_of_two_workers_one_runs_the_job(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oneformer.jobs.executors.local.start_queue", lambda store: None)
    job = shell(store, f"echo ran >> {tmp_path / 'ledger'}; sleep 0.3")
    command = [sys.executable, "-m", "oneformer.jobs.worker", str(job.folder)]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert sorted(process.wait(timeout=30) for process in both) == [0, worker.NOT_NOW]
    assert lines(tmp_path / "ledger") == ["ran"]


def running_elsewhere(store: Store, process: Process) -> Job:
    """A job whose record says that it runs in that process."""
    job = shell(store, "true")
    job.wait(20)
    with store.locked():
        record = store.read(job.id)
        record.state, record.run, record.ended = RUNNING, Run(process, "none"), ""
        store.write(record)
    return job


def test_after_a_restart_of_the_machine_records_tell_the_truth(store: Store) -> None:
    before = replace(Process.this(), boot="before")  # its number runs, it does not
    job = running_elsewhere(store, before)
    assert (job.state, job.message) == (ERROR, "the machine was restarted while it ran")


def test_the_spec_with_the_key_goes_with_a_lost_run(store: Store) -> None:
    job = running_elsewhere(store, replace(Process.this(), boot="before"))
    (job.folder / PRIVATE).write_text("encryption_key: hush\n")
    assert job.state == ERROR and not (job.folder / PRIVATE).exists()


def test_a_record_that_names_no_executor_of_ours_hinders_nobody(store: Store) -> None:
    job = running_elsewhere(store, replace(Process.this(), host="elsewhere"))
    store.change(job.id, lambda record: setattr(record, "executor", "moon"))
    long_ago = time.time() - 2 * SILENT_S
    for path in job.folder.iterdir():
        os.utime(path, (long_ago, long_ago))
    assert [record.id for record in all_refreshed(store)] == [job.id]
    with pytest.raises(UserError, match="no executor 'moon'"):
        job.cancel()


def test_a_number_that_another_process_has_now_is_not_taken_for_the_worker(store: Store) -> None:
    job = running_elsewhere(store, replace(Process.this(), began="1"))
    assert job.state == ERROR
    assert Process.this().runs()  # and nobody has shot at that other process


def test_a_run_on_a_machine_that_does_not_answer_is_unknown(store: Store) -> None:
    job = running_elsewhere(store, replace(Process.this(), host="elsewhere"))
    assert job.state == RUNNING and job.message == "on elsewhere"
    long_ago = (job.folder / "job.json").stat().st_mtime - 2 * SILENT_S
    for name in ("job.json", "alive"):
        if (job.folder / name).exists():
            os.utime(job.folder / name, (long_ago, long_ago))
    assert job.state == UNKNOWN and "elsewhere" in job.message
    assert job.cancel() == CANCELED and "given up" in job.message


def test_a_retry_runs_in_the_same_folder_and_keeps_what_was_before(store: Store, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    job = shell(store, f"test -f {flag} && echo now || exit 4")
    assert job.wait(20) == ERROR
    with pytest.raises(UserError, match="complete"):
        done = shell(store, "true")
        done.wait(20)
        done.retry()
    flag.touch()
    job.retry()
    assert job.wait(20) == COMPLETE
    assert job.record.attempt == 2 and job.record.history[0]["exit_code"] == 4


def test_what_a_job_says_is_followed_to_its_end(store: Store) -> None:
    job = shell(store, "echo a; sleep 0.3; printf 'gr\\303\\274n'; sleep 0.2; echo !")
    said: list[str] = []
    assert job.follow(said.append) == COMPLETE
    assert "".join(said) == "a\ngrün!\n"


def test_a_worker_that_cannot_begin_is_given_up(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oneformer.jobs.executors.local.start_queue", lambda store: None)
    job = shell(store, "true")
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no module >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(queue.sys, "executable", str(broken))
    assert queue.main([str(store.root)]) == 0
    assert job.state == ERROR and "3 times" in job.message and "no module" in job.log


def test_the_record_is_json_that_other_programs_read(store: Store) -> None:
    job = shell(store, "true")
    job.wait(20)
    told = json.loads((job.folder / "job.json").read_text())
    assert told["state"] == COMPLETE and told["run"]["process"] == asdict(job.record.run.process)  # type: ignore[union-attr]
    assert all_refreshed(store)[0].id == job.id
