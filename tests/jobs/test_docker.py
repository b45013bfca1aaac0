"""Docker: the real `docker` command against a stand-in of its daemon, which runs what a container would run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from jobs.docker_daemon import Containers, daemon
from jobs.work import shell, until
from oneformer.errors import UserError, WorkError
from oneformer.jobs.executors.docker import run_command
from oneformer.jobs.record import CANCELED, COMPLETE, ERROR, PENDING, RUNNING, Record
from oneformer.jobs.settle import SILENT_S
from oneformer.jobs.store import Store

ROOT = Path(__file__).resolve().parents[2]
with_docker = pytest.mark.skipif(not shutil.which("docker"), reason="there is no docker command")


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Containers, set[str]]]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with daemon() as (address, containers, missing):
        monkeypatch.setenv("DOCKER_HOST", address)
        yield containers, missing


def in_docker(store: Store, text: str, **options: str) -> Any:
    return shell(store, text, executor="docker", cpus=1, options={"image": "oneformer", **options})


def record(store: Store, tmp_path: Path, **more: Any) -> Record:
    options = {"image": "oneformer", **more.pop("options", {})}
    return Record(
        id="train-3f9a1c", action="train", order=0, executor="docker", cwd=str(tmp_path), options=options, **more
    )


@with_docker
def test_what_the_daemon_is_asked_for(
    store: Store, docker: tuple[Containers, set[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hush")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    options = {"mounts": str(tmp_path / "photos"), "env": "TOKEN", "memory": "2g", "network": "none", "image": "hold"}
    made = in_docker(store, "true", **options)
    (name,) = docker[0]
    assert made.record.external == name == f"oneformer-{made.id}-1"
    asked, host = docker[0][name]["asked"], docker[0][name]["asked"]["HostConfig"]
    assert asked["Cmd"] == [
        "python", "-P", "-m", "oneformer.jobs.worker", str(made.folder), "--tell", "--log",
    ]  # fmt: skip
    assert (asked["User"], asked["WorkingDir"]) == (f"{os.getuid()}:{os.getgid()}", str(tmp_path))
    assert asked["Env"] == ["TOKEN=hush"] and asked["Labels"] == {"oneformer-job": made.id}
    mounts = {row["Target"]: row.get("ReadOnly", False) for row in host["Mounts"]}
    assert mounts == {str(tmp_path): True, str(tmp_path / "photos"): True, str(store.root): False}
    assert all(row["Source"] == row["Target"] and row["Type"] == "bind" for row in host["Mounts"])
    assert (host["NanoCpus"], host["Memory"], host["ShmSize"]) == (10**9, 2 * 2**30, 2 * 2**30)
    assert host["NetworkMode"] == "none" and host["Init"] is True and not host["AutoRemove"]
    assert not host["DeviceRequests"]


def test_no_secret_is_a_word_of_the_command(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hush")
    assert "hush" not in " ".join(run_command(store, record(store, tmp_path, options={"env": "TOKEN"})))


@with_docker
@pytest.mark.parametrize(
    ("more", "slip"),
    [({"gpus": 2}, ""), ({"gpus": 2, "options": {"devices": "0:3"}}, ""), ({"gpus": 0}, ""), ({}, "--detatch")],
)
def test_docker_itself_reads_every_word(more: dict[str, Any], slip: str, store: Store, tmp_path: Path) -> None:
    """It reads all words before it looks for its daemon, which is not there; and this is how a slip shows."""
    command = run_command(store, record(store, tmp_path, **more))
    command[1:1] = ["--host", f"unix://{tmp_path}/none.sock"]
    command[4:4] = [slip] if slip else []
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    said = "unknown flag" if slip else "Cannot connect to the Docker daemon"
    assert done.returncode == 125 and said.lower() in done.stderr.lower()


@with_docker
def test_gpus_are_asked_for_by_number_or_by_name(
    store: Store, docker: tuple[Containers, set[str]], tmp_path: Path
) -> None:
    for devices, wanted in (("", (2, None)), ("0:3", (0, ["0", "3"]))):
        options = {"image": "hold", **({"devices": devices} if devices else {})}
        shell(store, "true", executor="docker", gpus=2, cpus=1, options=options)
        (request,) = list(docker[0].values())[-1]["asked"]["HostConfig"]["DeviceRequests"]
        assert (request["Count"], request["DeviceIDs"]) == wanted and request["Capabilities"] == [["gpu"]]


@with_docker
def test_a_job_runs_in_a_container_and_its_record_and_log_are_true(
    store: Store, docker: tuple[Containers, set[str]]
) -> None:
    good, bad = in_docker(store, "echo here; exit 0"), in_docker(store, "echo 'error: no data' >&2; exit 4")
    assert good.wait(60) == COMPLETE and good.log == "here\n"
    assert bad.wait(60) == ERROR and (bad.record.exit_code, bad.message) == (4, "no data")


@with_docker
def test_a_running_container_is_asked_to_end_and_a_waiting_one_removed(
    store: Store, docker: tuple[Containers, set[str]]
) -> None:
    runs, waits = in_docker(store, "sleep 60"), in_docker(store, "true", image="hold")
    until(lambda: runs.state == RUNNING, seconds=60)
    assert waits.cancel() == CANCELED and waits.record.external not in docker[0]
    runs.cancel()
    assert runs.wait(30) == CANCELED
    assert docker[0][runs.record.external]["signals"] == ["TERM"]


@with_docker
def test_a_container_that_ended_before_its_worker_began_is_an_error_with_its_last_words(
    store: Store, docker: tuple[Containers, set[str]]
) -> None:
    made = in_docker(store, "true", image="hold")
    name, long_ago = made.record.external, time.time() - 2 * SILENT_S
    os.utime(made.folder / "job.json", (long_ago, long_ago))
    assert made.state == PENDING
    docker[0][name]["process"] = subprocess.Popen(["sh", "-c", "exit 127"])
    docker[0][name]["process"].wait()
    docker[0][name]["log"] = "starting\npython: No module named oneformer\n"
    assert made.state == ERROR
    assert made.message == f"its container {name} ended: exit code 127: python: No module named oneformer"
    lost = in_docker(store, "true", image="hold")
    os.utime(lost.folder / "job.json", (long_ago, long_ago))
    del docker[0][lost.record.external]
    assert lost.state == ERROR and "has no container" in lost.message


@with_docker
def test_an_image_that_is_not_there_is_told_and_the_job_does_not_stay_pending(
    store: Store, docker: tuple[Containers, set[str]]
) -> None:
    docker[1].add("oneformr")
    with pytest.raises(WorkError, match="pull access denied for docker.io/library/oneformr"):
        in_docker(store, "true", image="oneformr")
    assert [r.state for r in store.records()] == [CANCELED]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image": ""}, "needs image"),
        ({"imgae": "x"}, "no option imgae"),
        ({"env": "TOKEN=hush"}, "no name of a variable"),
        ({"env": "NO_SUCH_VARIABLE"}, "no variable NO_SUCH_VARIABLE"),
        ({"user": "root"}, "no value for user"),
        ({"memory": "much"}, "no value for memory"),
        ({"network": "host"}, "name of its own"),
        ({"devices": "0"}, "needs 0 GPUs"),
        ({"mounts": "/no/such/folder"}, "no such folder"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, str], said: str, store: Store) -> None:
    with pytest.raises(UserError, match=said):
        in_docker(store, "true", **options)
    assert not store.root.exists() or not store.ids()


def test_docker_keeps_no_order(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oneformer.jobs.executors.docker.run_tool", lambda *_, **__: "")
    first = in_docker(store, "true")
    with pytest.raises(UserError, match="keeps no order"):
        shell(store, "true", executor="docker", options={"image": "i"}, after=[first.id])


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their words."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(row.split()[0], row.partition(" ")[2].strip()) for row in text.splitlines() if row.strip()]


def test_the_image_is_made_of_what_is_sent_to_the_builder() -> None:
    """Every file that is copied exists and is let through, and nothing else is sent."""
    rules = [row for row in (ROOT / ".dockerignore").read_text().splitlines() if row and not row.startswith("#")]
    assert rules[0] == "*"
    let_through = [row[1:] for row in rules if row.startswith("!")]
    copied = [word for name, words in instructions() if name == "COPY" for word in words.split()[:-1]]
    assert sorted(copied) == sorted(let_through)
    assert all((ROOT / path).exists() for path in copied)
    assert not any(fnmatch(path, row) for path in copied for row in rules[1:] if not row.startswith("!"))


def test_the_image_holds_the_locked_versions_and_runs_as_nobody_special() -> None:
    told = instructions()
    assert [words for name, words in told if name == "FROM"] == ["python:3.11-slim"]
    runs = " ".join(words for name, words in told if name == "RUN")
    assert "--requirement requirements.lock" in runs and "--constraint requirements.lock" in runs
    assert "torch==" in (ROOT / "requirements.lock").read_text()  # what the build for processors is looked up by
    assert [words for name, words in told if name == "USER"] == ["1000:1000"]
    assert not re.search(r"https?://", " ".join(words for _, words in told))


@pytest.mark.skipif(not shutil.which("hadolint"), reason="there is no hadolint")
def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    done = subprocess.run(
        ["hadolint", str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")
