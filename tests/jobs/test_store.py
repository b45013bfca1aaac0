"""Jobs on the disk: whole records, ids that no two jobs share, secrets apart, broken records told."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from oneformer.errors import UserError
from oneformer.jobs.alive import Process
from oneformer.jobs.record import ERROR, RUNNING, Record, Run, from_dict
from oneformer.jobs.store import PART, Store


def record(action: str = "train") -> Record:
    return Record(id="", action=action, order=0)


def test_a_record_comes_back_as_it_was_written(store: Store) -> None:
    made = store.create(record(), {"asked.yaml": "a: 1\n"})
    assert store.read(made.id) == made
    made.run = Run(Process.this(), "token", ["0"], 7)
    made.state, made.infer = RUNNING, {"train.pretrained_model": {"link": "x"}}
    with store.locked():
        store.write(made)
    assert store.read(made.id) == made
    assert (store.folder(made.id) / "asked.yaml").read_text() == "a: 1\n"


def test_ids_are_drawn_again_when_they_are_taken(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["aaaaaa", "aaaaaa", "bbbbbb"])
    monkeypatch.setattr("oneformer.jobs.store.secrets.token_hex", lambda n: next(drawn))
    first, second = store.create(record(), {}), store.create(record(), {})
    assert (first.id, second.id) == ("train-aaaaaa", "train-bbbbbb")
    assert not list(store.root.glob(f"{PART}*"))


def test_what_a_killed_submitter_has_begun_is_no_job(store: Store) -> None:
    store.create(record(), {})
    (store.root / f"{PART}train-cccccc-1").mkdir()
    (store.root / "notes").mkdir()
    assert len(store.ids()) == 1


def test_changes_of_many_threads_are_all_kept(store: Store) -> None:
    job = store.create(record(), {}).id

    def add() -> None:
        for _ in range(20):
            store.change(job, lambda r: r.after.append("x"))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.read(job).after) == 80


def test_a_job_is_found_by_the_beginning_of_its_id_or_its_digits(store: Store) -> None:
    job = store.create(record(), {}).id
    other = store.create(record("export"), {}).id
    assert store.find("tr").id == store.find(job.rpartition("-")[2][:4]).id == job
    assert store.find(other).id == other


@pytest.mark.parametrize("name", ["", "evaluate-000000", "../x"])
def test_a_job_that_is_not_there_is_told(store: Store, name: str) -> None:
    store.create(record(), {})
    with pytest.raises(UserError, match="there is no job"):
        store.find(name)


def test_a_name_that_fits_several_jobs_names_them(store: Store) -> None:
    jobs = sorted([store.create(record(), {}).id, store.create(record(), {}).id])
    with pytest.raises(UserError, match=f"{jobs[0]} or {jobs[1]}"):
        store.find("train")


def test_only_its_owner_can_read_a_secret(store: Store) -> None:
    job = store.create(record(), {}, {"encryption_key": "hush"}).id
    assert store.secret(job) == {"encryption_key": "hush"}
    assert (store.folder(job) / "secrets.json").stat().st_mode & 0o077 == 0
    assert "hush" not in (store.folder(job) / "job.json").read_text()


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"state": "ASLEEP"}, {"stranger": 1}, {"run": {"token": "x"}}, {"run": 3}]
)
def test_a_record_of_nobody_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(UserError, match="record"):
        from_dict({**record().to_dict(), **change}, where="job.json")


def test_a_broken_record_hides_no_other_job(store: Store) -> None:
    good, bad = store.create(record(), {}).id, store.create(record(), {}).id
    (store.folder(bad) / "job.json").write_text("{")
    assert [r.id for r in store.records()] == [good]
    with pytest.raises(UserError, match="broken"):
        store.read(bad)


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--jobs") as caught:
        Store(tmp_path / "file" / "jobs").create(record(), {})
    assert caught.value.exit_code == 2


def test_another_run_keeps_what_became_of_the_one_before() -> None:
    made = record()
    made.end(ERROR, "no space", exit_code=1)
    made.again()
    assert (made.state, made.attempt, made.exit_code) == ("PENDING", 2, None)
    assert made.history[0]["message"] == "no space" and json.dumps(made.to_dict())
