"""What is checked before a job is on the disk, what its folder then holds, and the commands around it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from jobs.work import shell, until
from oneformer.cli import main
from oneformer.errors import UserError
from oneformer.jobs import create_job
from oneformer.jobs.record import CANCELED, ERROR, PENDING, RUNNING
from oneformer.jobs.store import Store
from oneformer.spec.load import load


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """No queue: jobs stay as they were submitted."""
    for module in ("job", "executors.local"):
        monkeypatch.setattr(f"oneformer.jobs.{module}.start_queue", lambda store: None)


def run(store: Store, *words: str) -> int:
    return main(["jobs", *words, "--jobs", str(store.root)])


def test_the_folder_holds_what_was_asked_for_and_no_secret(idle: None, store: Store, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("encryption_key: hush\ntrain: {num_epochs: 7}\nwandb: {name: '${results_dir}'}\nresults_dir: x\n")
    job = create_job("train", spec, ["preset=nano", "learning_rate=2e-4"], jobs=store.root)
    asked = load(job.folder / "asked.yaml", action="train").spec
    assert (asked.train.num_epochs, asked.train.optim.lr, asked.preset, asked.wandb.name) == (7, 2e-4, "nano", "x")
    assert job.record.named == ["preset", "train.optim.lr"]
    assert [p.name for p in job.folder.iterdir() if "hush" in p.read_text()] == ["secrets.json"]


def test_every_fault_of_the_spec_is_told_and_nothing_is_left(idle: None, store: Store) -> None:
    with pytest.raises(UserError) as caught:
        create_job("train", None, ["train.num_epochs=0", "train.lr=1"], jobs=store.root)
    assert "[2/2]" in caught.value.message
    assert not store.root.exists() or not store.ids()


@pytest.mark.parametrize(
    ("action", "words", "wishes", "said"),
    [
        ("train", ["results_dir=elsewhere"], {}, "its own folder"),
        ("train", ["train.results_dir=elsewhere"], {}, "its own folder"),
        ("train", ["train.results_dir=s3://bucket/x"], {}, "uploaded as a whole"),
        ("train", [], {"parent": "train-000000"}, "there is no job"),
        ("train", [], {"executor": "moon"}, "there is no executor 'moon'"),
        ("train", [], {"cpus": 3}, "this machine has 2"),
        ("train", ["train.accelerator=gpu"], {}, "this machine has 0"),
        ("doctor", [], {}, "cannot be a job"),
    ],
)
def test_wrong_requests_are_refused(
    action: str, words: list[str], wishes: dict[str, object], said: str, idle: None, store: Store
) -> None:
    with pytest.raises(UserError, match=said):
        create_job(action, None, words, jobs=store.root, **wishes)
    assert not store.root.exists() or not store.ids()


def test_jobs_are_not_kept_in_an_object_store() -> None:
    with pytest.raises(UserError, match="jobs cannot be kept in an object store"):
        create_job("train", None, [], jobs="s3://bucket/jobs")


@pytest.mark.parametrize(
    ("gpus", "action", "words", "needs"),
    [
        ("0", "train", [], (0, 2)),
        ("4", "train", [], (1, 1)),
        ("4", "train", ["train.num_gpus=2"], (2, 2)),
        ("4", "train", ["train.gpu_ids=[1,2,3]"], (3, 2)),
        ("4", "train", ["train.accelerator=cpu"], (0, 2)),
        ("4", "export", [], (1, 1)),
        ("4", "export", ["export.on_cpu=true"], (0, 2)),
        ("4", "quantize", ["quantize.device=cpu"], (0, 2)),
    ],
)
def test_a_job_needs_what_its_spec_says(
    gpus: str,
    action: str,
    words: list[str],
    needs: tuple[int, int],
    idle: None,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ONEFORMER_JOBS_GPUS", gpus)
    record = create_job(action, None, words, jobs=store.root).record
    assert (record.gpus, record.cpus) == needs


def test_a_dry_run_shows_the_spec_and_submits_nothing(
    idle: None, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(store, "submit", "train", "--dry-run", "train.num_epochs=3") == 0
    out = capsys.readouterr().out
    assert "num_epochs: 3" in out and "would submit train to local: 0 GPUs, 2 processors" in out
    assert not store.root.exists()


def test_the_commands_tell_the_same_story(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(store, "submit", "export", "--json", "--cpus", "1") == 0
    told = json.loads(capsys.readouterr().out)["jobs"][0]
    assert told["state"] == PENDING
    assert run(store, "logs", "-f", told["id"]) == 0
    out, err = capsys.readouterr()
    assert "no weight file is named" in out and f"{told['id']}: ERROR" in err
    assert run(store, "status", "export") == 0
    assert ERROR in capsys.readouterr().out
    assert run(store, "show", told["id"]) == 0
    shown = capsys.readouterr().out
    assert "no weight file is named" in shown and re.search("attempt +1\n", shown)


def test_a_retry_is_listed_as_another_run(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    job = shell(store, "echo again; exit 3")
    job.wait(20)
    assert run(store, "retry", job.id) == 0
    assert "PENDING" in capsys.readouterr().out
    assert run(store, "logs", "--follow", job.id) == 0
    assert capsys.readouterr().out == "again\nagain\n"
    assert run(store, "list", "--json") == 0
    told = json.loads(capsys.readouterr().out)["jobs"][0]
    assert (told["attempt"], told["exit_code"], told["state"]) == (2, 3, ERROR)


def test_a_cancel_from_the_command_line_waits_for_the_end(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    job = shell(store, "sleep 60")
    until(lambda: job.state == RUNNING)
    assert run(store, "cancel", "--json", job.id) == 0
    assert json.loads(capsys.readouterr().out)["jobs"][0]["state"] == CANCELED


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("submit", "trian"), "cannot be a job"),
        (("submit", "train", "--gpus", "two"), "'two' is no number"),
        (("submit", "train", "x"), "no override"),
        (("status",), "no job is named"),
        (("status", "train-1"), "there is no job"),
        (("logs", "train-1"), "there is no job"),
        (("lst",), "did you mean list?"),
    ],
)
def test_wrong_words_are_exit_code_two(
    words: tuple[str, ...], said: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(store, *words) == 2
    assert said in capsys.readouterr().err


def test_an_empty_folder_is_no_fault(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(store, "list") == 0
    assert "no jobs" in capsys.readouterr().out


def test_the_folder_is_named_once_for_all_by_a_variable(
    idle: None, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEFORMER_JOBS", str(store.root))
    assert main(["jobs", "submit", "train"]) == 0
    assert len(store.ids()) == 1
