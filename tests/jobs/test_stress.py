"""Many jobs at once while submitters, queue, workers and actions are killed at random: none lost, none run twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from jobs.conftest import processes_of
from jobs.work import lines
from oneformer.jobs.job import all_refreshed
from oneformer.jobs.record import COMPLETE, ENDED, ERROR
from oneformer.jobs.store import Store
from oneformer.jobs.verdict import last_status, status_file

# It notes its start and its end where all can see it, and says SUCCESS last, as the actions do.
WORK = """
folder="{root}/$ONEFORMER_JOB/results/work"; mkdir -p "$folder"
echo "$ONEFORMER_JOB start" >> "{ledger}"; echo '{{"status": "STARTED"}}' >> "$folder/status.json"
sleep 0.1
echo "$ONEFORMER_JOB end" >> "{ledger}"; echo '{{"status": "SUCCESS"}}' >> "$folder/status.json"
"""
SUBMIT = """
import os, sys
from oneformer.jobs import create_job
for _ in range(int(sys.argv[1])):
    job = create_job("work", command=["sh", "-c", sys.argv[2]], jobs=sys.argv[3])
    os.write(1, (job.id + chr(10)).encode())  # in one piece: others write too
"""


class Storm:
    """Submits jobs from several processes at once, and kills what it can reach."""

    def __init__(self, store: Store, folder: Path, seed: int) -> None:
        self.store, self.ledger = store, folder / "ledger"
        self.said = folder / "said"
        self.work = WORK.format(root=store.root, ledger=self.ledger)
        self.random = random.Random(seed)
        self.submitters: list[subprocess.Popen[bytes]] = []
        self.kills: Counter[str] = Counter()

    def submitter(self, jobs: int) -> None:
        with self.said.open("ab") as said:
            command = [sys.executable, "-c", SUBMIT, str(jobs), self.work, str(self.store.root)]
            self.submitters.append(subprocess.Popen(command, stdout=said))

    def strike(self, most: int) -> None:
        """Kill one process, a submitter or one of the jobs', of the kind that was hit least, at most so many of one."""
        targets = [("submitter", process.pid) for process in self.submitters if process.poll() is None]
        targets += [(role(pid), pid) for pid in processes_of(self.store)]
        least = min((self.kills[kind] for kind, _ in targets), default=most)
        if least < most:
            kind, pid = self.random.choice([target for target in targets if self.kills[target[0]] == least])
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.kills[kind] += 1

    def go(self, jobs: int, *, kills: int, seconds: float) -> None:
        """Until so many jobs are on the disk and all have ended."""
        end = time.monotonic() + seconds
        while True:
            assert time.monotonic() < end, Counter(record.state for record in self.store.records())
            assert {process.poll() for process in self.submitters} <= {None, 0, -signal.SIGKILL}, "a submitter failed"
            missing = jobs - len(self.store.ids())
            if missing > 0 and sum(process.poll() is None for process in self.submitters) < 4:
                self.submitter(min(missing, 10))
            if self.store.ids():
                self.strike(kills // 4)
            time.sleep(self.random.uniform(0.05, 0.3))
            # What any command does: it writes down what is lost and wakes the queue.
            records = all_refreshed(self.store)
            if (
                missing <= 0
                and all(r.state in ENDED for r in records)
                and not any(p.poll() is None for p in self.submitters)
            ):
                return

    def check(self) -> None:
        """No job is lost or ran twice, and every state is true."""
        records = {record.id: record for record in self.store.records()}
        assert set(lines(self.said)) <= set(records), "a job whose id was told is gone"
        assert set(self.store.ids()) == set(records), "a record cannot be read"
        starts = Counter(line.split()[0] for line in lines(self.ledger) if line.endswith("start"))
        ends = {line.split()[0] for line in lines(self.ledger) if line.endswith("end")}
        assert max(starts.values()) == 1, "a job ran twice"
        assert {record.state for record in records.values()} <= {COMPLETE, ERROR}
        for job, record in records.items():
            success = last_status(status_file(self.store.folder(job), "work")).get("status") == "SUCCESS"
            assert (record.state == COMPLETE) == success, (record.state, record.message)
            assert record.state != COMPLETE or (starts[job] == 1 and job in ends)
        failed = sum(record.state == ERROR for record in records.values())
        assert failed <= self.kills["worker"] + self.kills["action"], "a job failed that nobody has shot at"


def role(pid: int) -> str:
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        for name in ("queue", "worker"):
            if f"oneformer.jobs.{name}".encode() in words:
                return name
    return "action"


@pytest.fixture
def storm(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storm:
    monkeypatch.setenv("ONEFORMER_JOBS_CPUS", "4")
    return Storm(store, tmp_path, seed=int(os.environ.get("ONEFORMER_TEST_SEED", "0")))


def test_twenty_jobs_in_a_small_storm(storm: Storm) -> None:
    storm.go(20, kills=8, seconds=120)
    storm.check()


@pytest.mark.slow
def test_two_hundred_jobs_in_a_storm(storm: Storm) -> None:
    storm.go(200, kills=80, seconds=540)
    storm.check()
    assert min(storm.kills[kind] for kind in ("submitter", "queue", "worker", "action")) > 0, storm.kills


def test_when_everything_is_killed_at_once_it_goes_on_where_it_was(storm: Storm) -> None:
    """As after a power cut: nothing runs, and the next command finds the truth and goes on."""
    storm.submitter(8)
    while len(lines(storm.ledger)) < 3:
        time.sleep(0.02)
    storm.submitters[0].wait()
    while pids := processes_of(storm.store):
        for pid in pids:
            with suppress(ProcessLookupError):
                storm.kills[role(pid)] += 1
                os.kill(pid, signal.SIGKILL)
    storm.go(8, kills=0, seconds=120)
    storm.check()
