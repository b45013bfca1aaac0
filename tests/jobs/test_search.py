"""A job that was a search: its best checkpoint is scored again, copied, and handed to the jobs that follow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.test_fields import done, submit, values
from oneformer.errors import CheckpointError, UserError
from oneformer.jobs import search
from oneformer.jobs.alive import Process
from oneformer.jobs.job import Job
from oneformer.jobs.record import COMPLETE, ERROR, Run
from oneformer.jobs.store import Store
from oneformer.jobs.verdict import status_file, verdict

FOUND = {"trial": 3, "metric": "mIoU", "recorded": 41.25, "measured": 41.25, "equal": True, "checkpoint": "c.pth"}


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    for module in ("job", "executors.local"):
        monkeypatch.setattr(f"oneformer.jobs.{module}.start_queue", lambda store: None)


def searched(store: Store, told: dict[str, object] | None = FOUND, *, best: bool = True) -> Job:
    """A search as it is when it is complete."""
    job = done(store, "train", "automl_policy=on", files=())
    folder = search.folder_of(job.folder)
    (folder / "best").mkdir(parents=True)
    (folder / search.RECORD).touch()
    if best:
        (folder / search.BEST).write_text("weights")
    (folder / search.VERIFIED).write_text("" if told is None else json.dumps(told))
    return job


@pytest.mark.parametrize(
    ("action", "key"),
    [
        ("evaluate", "evaluate.checkpoint"),
        ("inference", "inference.checkpoint"),
        ("export", "export.checkpoint"),
        ("quantize", "quantize.model_path"),
    ],
)
def test_the_best_of_a_search_lands_where_that_of_a_training_would(action: str, key: str, store: Store) -> None:
    first = searched(store)
    job = submit(store, action, parent=first.id)
    assert values(store, job)[key] == f"{first.id}/results/automl/best/model.pth"


def test_what_is_known_of_it_is_told(store: Store) -> None:
    _, why = search.best_of(searched(store).folder, job="x", choice="best")
    assert why == "best of the search, trial 3: mIoU 41.25 found again"
    _, why = search.best_of(searched(store, None).folder, job="x", choice="best")
    assert "by its checksum" in why  # of a training loss there is no second measurement


def test_a_score_that_is_not_found_again_is_refused(store: Store) -> None:
    first = searched(store, {**FOUND, "measured": 38.0, "equal": False})
    with pytest.raises(UserError, match=r"mIoU 41.25 when it was recorded and has 38.0 now"):
        submit(store, "evaluate", parent=first.id)
    near = searched(store, {**FOUND, "measured": 41.2499, "equal": False})  # as GPUs give it
    assert submit(store, "evaluate", parent=near.id)


def test_another_checkpoint_than_the_best_is_refused(store: Store) -> None:
    first = searched(store)
    with pytest.raises(CheckpointError, match="its best checkpoint only"):
        submit(store, "evaluate", parent=first.id, checkpoint="latest")


def test_a_search_that_was_lost_before_it_handed_over_is_run_again(store: Store) -> None:
    for best, state in ((False, ERROR), (True, COMPLETE)):
        job = searched(store, best=best)
        path = status_file(job.folder, "train")
        assert path == job.results / "automl" / "status.json"
        path.write_text('{"status": "SUCCESS", "message": "done"}\n')
        record = store.read(job.id)
        record.run = Run(Process.this(), "token")
        assert verdict(record, job.folder, None)[0] == state


def test_the_closing_commands_run_on_the_spec_of_the_search() -> None:
    command = ["python", "-P", "-m", "oneformer", "train", "-e", "jobs/train-1/spec.yaml"]
    assert search.closing(command, json_out=True)[4:] == ["automl", "verify", "-e", command[-1], "--json"]
    assert search.closing(command, json_out=False)[4:] == ["automl", "export-best", "-e", command[-1]]
    from oneformer import cli

    for words in (search.closing(command, json_out=True), search.closing(command, json_out=False)):
        asked, more = cli._parser().parse_known_args([f"automl {words[5]}", *words[6:]])
        assert asked.spec == command[-1] and more == []


def test_the_record_of_a_search_has_the_name_that_is_looked_for() -> None:
    from oneformer.automl import ledger, results

    assert ledger.FILE == search.RECORD
    assert search.BEST.split("/") == [results.BEST, Path(search.BEST).name]
