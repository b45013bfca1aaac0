"""Ray: what `ray job` gets, against a stand-in of it, and a job through a real cluster of this machine."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.test_executors import stand_in, tools
from jobs.work import shell, until
from oneformer.errors import UserError, WorkError
from oneformer.jobs.record import CANCELED, COMPLETE, ERROR, PENDING
from oneformer.jobs.settle import SILENT_S
from oneformer.jobs.store import Store

__all__ = ["tools"]


@pytest.fixture
def ray(tools: Path) -> Path:
    """It keeps its words, a line for each call, and says what lies in `said`."""
    text = f'echo "$@" >> {tools}/asked; [ -f {tools}/fails ] && {{ cat {tools}/fails >&2; exit 1; }}; cat {tools}/said 2>/dev/null; exit 0'
    stand_in(tools, "ray", text)
    return tools


def test_the_job_is_submitted_with_what_it_needs(store: Store, ray: Path) -> None:
    options = {"address": "http://head:8265", "resources": "a100:1"}
    made = shell(store, "true", executor="ray", gpus=2, cpus=3, options=options)
    assert made.record.external == f"oneformer-{made.id}-1"
    assert (ray / "asked").read_text().split() == [
        "job", "submit", "--no-wait", "--submission-id", made.record.external, "--entrypoint-num-cpus", "3",
        "--entrypoint-num-gpus", "2", "--entrypoint-resources", '{"a100":', "1.0}", "--address", "http://head:8265",
        "--", sys.executable, "-P", "-m", "oneformer.jobs.worker", str(made.folder), "--tell", "--log",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("Status for job 'x': PENDING\nStatus message: waits for resources", PENDING),
        ("Status for job 'x': RUNNING", PENDING),
        ("Job 'x' failed\nStatus message: no python", ERROR),
        ("Job 'x' was stopped", ERROR),
    ],
)
def test_what_the_cluster_says_is_believed(said: str, state: str, store: Store, ray: Path) -> None:
    made = shell(store, "true", executor="ray", cpus=1)
    long_ago = time.time() - 2 * SILENT_S
    os.utime(made.folder / "job.json", (long_ago, long_ago))
    (ray / "said").write_text(said)
    assert made.state == state


def test_a_job_that_the_cluster_does_not_know_is_an_error(store: Store, ray: Path) -> None:
    made = shell(store, "true", executor="ray", cpus=1)
    long_ago = time.time() - 2 * SILENT_S
    os.utime(made.folder / "job.json", (long_ago, long_ago))
    (ray / "fails").write_text("Cannot connect")
    assert made.state == PENDING  # no answer is no news
    (ray / "fails").write_text(f"Job {made.record.external} does not exist")
    assert made.state == ERROR


def test_a_waiting_job_is_taken_back(store: Store, ray: Path) -> None:
    made = shell(store, "true", executor="ray", cpus=1)
    assert made.cancel() == CANCELED
    assert f"job stop --no-wait {made.record.external}" in (ray / "asked").read_text()


def test_wrong_options_and_chains_are_refused(store: Store, ray: Path) -> None:
    with pytest.raises(UserError, match="no NAME:COUNT"):
        shell(store, "true", executor="ray", options={"resources": "a100"})
    first = shell(store, "true", executor="ray", cpus=1)
    with pytest.raises(UserError, match="keeps no order"):
        shell(store, "true", executor="ray", after=[first.id])
    (ray / "fails").write_text("no cluster")
    with pytest.raises(WorkError, match="no cluster"):
        shell(store, "true", executor="ray", cpus=1)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A real one on this machine, with its job server; its address."""
    pytest.importorskip("ray", reason="ray is not installed (the extra [ray])")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert shutil.which("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    port, server = free_port(), free_port()
    words = ["--head", "--block", f"--port={port}", f"--dashboard-port={server}", "--num-cpus=2", "--num-gpus=0"]
    with (tmp_path / "ray.txt").open("w") as said:
        process = subprocess.Popen(["ray", "start", *words], stdout=said, stderr=said, start_new_session=True)
    address = f"http://127.0.0.1:{server}"
    ask = ["ray", "job", "list", "--address", address]
    try:
        until(lambda: subprocess.run(ask, capture_output=True, check=False).returncode == 0, seconds=180)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


@pytest.mark.slow
def test_jobs_run_on_a_real_cluster_and_their_records_are_true(store: Store, cluster: str) -> None:
    options = {"address": cluster}
    good = shell(store, "echo here; exit 0", executor="ray", cpus=1, options=options)
    bad = shell(store, "echo 'error: no data' >&2; exit 4", executor="ray", cpus=1, options=options)
    assert good.wait(180) == COMPLETE and good.log == "here\n"
    assert bad.wait(180) == ERROR and (bad.record.exit_code, bad.message) == (4, "no data")
    waits = shell(store, "true", executor="ray", cpus=2, options=options | {"resources": "none_of_it:1"})
    time.sleep(5)
    assert waits.state == PENDING
    assert waits.cancel() == CANCELED
    said = subprocess.run(
        ["ray", "job", "status", "--address", cluster, bad.record.external], capture_output=True, text=True, check=False
    )
    assert "fail" in said.stdout.lower() + said.stderr.lower()
    assert json.loads((good.folder / "job.json").read_text())["executor"] == "ray"
