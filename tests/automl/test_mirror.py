"""The trials of a search as Optuna opens them: values, directions, what was reached on the way, and states."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from automl.language_model import language_model, says
from automl.pretended import Pretended
from oneformer import cli
from oneformer.automl import controller, results
from oneformer.automl.ledger import Ledger
from oneformer.automl.trial import Trial

LR, DECAY, CURVE = "train.optim.lr", "train.optim.weight_decay", "train.optim.lr_scheduler"
WORDS = ("preset=swin_t", "train.num_epochs=9", f"automl.parameters=[{LR},{DECAY},{CURVE}]")


def searched(folder: Path, place: Pretended, *words: str) -> tuple[optuna.Study, list[Trial]]:
    """A search that was run and reported: its study as Optuna opens it, and the trials of the ledger."""
    given = [*WORDS, f"results_dir={folder}", *words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controller, "POLL_S", 0.0)
        patch.setattr("oneformer.automl.executor.Local", lambda share: place)
        assert cli.main(["automl", "run", *given]) in (cli.DONE, cli.INTERRUPTED)
    assert cli.main(["automl", "report", *given]) == cli.DONE
    with Ledger(folder / "automl", read_only=True) as ledger:
        return opened(folder), list(ledger.trials.values())


def opened(folder: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(folder / "automl" / "optuna.journal")))
    return optuna.load_study(study_name="oneformer", storage=storage)


def states(study: optuna.Study) -> Sequence[str]:
    return [t.state.name for t in study.trials]


def test_optuna_opens_a_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = Pretended(kinds={2: "diverged", 3: "memory"})
    study, trials = searched(tmp_path, place, "automl.max_trials=8", "automl.metric=train_loss")
    assert f"optuna: {tmp_path / 'automl' / 'optuna.journal'}" in capsys.readouterr().out
    assert study.direction == optuna.study.StudyDirection.MINIMIZE and study.metric_names == ["train_loss"]
    assert [t.params for t in study.trials] == [t.values for t in trials]
    ours = {"done": "COMPLETE", "paused": "PRUNED", "failed": "FAIL", "infeasible": "FAIL"}
    assert states(study) == [ours[t.state] for t in trials] and {"COMPLETE", "PRUNED", "FAIL"} <= set(states(study))
    for theirs, t in zip(study.trials, trials, strict=True):
        assert theirs.intermediate_values == t.curve and theirs.number == t.id
        assert theirs.value == (t.rungs[t.epochs].score if t.rungs else None)
        assert theirs.datetime_start <= theirs.datetime_complete
    whole = [t for t in trials if t.state == "done"]
    assert study.best_trial.number == min(whole, key=lambda t: t.rungs[9].score).id
    assert study.trials[2].user_attrs["reason"] and study.trials[0].user_attrs["from"] == "own"


def test_a_search_that_was_stopped_shows_what_waits_and_what_was_cut_off(tmp_path: Path) -> None:
    place = Pretended(stop_after=3)
    more = ("automl.algorithm=random", "automl.max_trials=6", "automl.max_concurrent=2")
    study, trials = searched(tmp_path, place, *more)
    assert states(study) == ["COMPLETE", "COMPLETE", "WAITING", "RUNNING"]
    for theirs, ours in zip(study.trials[2:], trials[2:], strict=True):
        assert theirs.params == ours.values and theirs.value is None and theirs.datetime_complete is None


def test_a_newer_report_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    for count in (2, 4):
        study, _ = searched(tmp_path, Pretended(), "automl.algorithm=random", f"automl.max_trials={count}")
        assert len(study.trials) == count
    assert not list((tmp_path / "automl").glob("*.part*")) and not list((tmp_path / "automl").glob("optuna*.lock"))


@pytest.mark.parametrize(("combine", "values"), [("pareto", 2), ("weighted", 1)])
def test_several_objectives(combine: str, values: int, tmp_path: Path) -> None:
    objectives = "{PQ: {direction: maximize}, size_mib: {direction: minimize, weight: 0.5}}"
    place = Pretended(more=lambda spec: {"size_mib": 100 * spec.train.optim.weight_decay})
    more = (f"automl.objectives={objectives}", f"automl.combine={combine}", "automl.max_trials=6")
    study, trials = searched(tmp_path, place, *more)
    assert len(study.directions) == values
    if combine == "pareto":
        assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
        assert study.metric_names == ["PQ", "size_mib"]
        done = [t for t in trials if t.state == "done"]
        assert [t.values for t in study.trials if t.state == TrialState.COMPLETE] == [
            [t.rungs[9].metrics["PQ"], t.rungs[9].metrics["size_mib"]] for t in done
        ]
        assert {t.number for t in study.best_trials} <= {t.id for t in done}
    else:
        assert study.metric_names == ["1 PQ - 0.5 size_mib"]
        assert study.trials[0].intermediate_values == {e: r.score for e, r in trials[0].rungs.items()}


def test_choices_that_are_lists_are_told_as_text(tmp_path: Path) -> None:
    key = "dataset.augmentation.train_crop_size"
    ranges = f"automl.ranges={{{key}: {{valid_options: [[512, 512], [640, 640]]}}}}"
    study, trials = searched(
        tmp_path, Pretended(), "automl.algorithm=random", "automl.max_trials=3", f"automl.parameters=[{key}]", ranges
    )
    assert study.trials[0].params[key] == str(trials[0].values[key]) and isinstance(trials[0].values[key], list)


def test_ranges_that_changed_on_the_way_are_no_obstacle(tmp_path: Path) -> None:
    def script(body: Any) -> Any:
        if len(body["messages"]) == 1:
            return says("ready")
        number = len(server.asked)
        return says(
            f'{{"values": {{"{LR}": 1e-6, "{DECAY}": {number / 1000}, "{CURVE}": "cosine"}}, '
            f'"ranges": {{"{LR}": [1e-6, 2e-6]}}, "why": "lower"}}'
        )

    with language_model(script) as server:
        more = (f"automl.llm.endpoint={server.address}", "automl.llm.model=m", "automl.max_trials=5")
        study, _ = searched(tmp_path, Pretended(), "automl.algorithm=autoresearch", *more)
    assert study.trials[2].params[LR] == 1e-6 and study.trials[2].user_attrs["why"] == "lower"
    assert study.trials[0].distributions[LR].low == 1e-6


def test_without_optuna_the_report_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(results, "find_spec", lambda name: None if name == "optuna" else found(name))
    given = [*WORDS, f"results_dir={tmp_path}", "automl.algorithm=random", "automl.max_trials=1"]
    monkeypatch.setattr("oneformer.automl.executor.Local", lambda share: Pretended())
    assert cli.main(["automl", "run", *given]) == cli.DONE
    assert cli.main(["automl", "report", *given]) == cli.DONE
    assert "optuna: not written" in capsys.readouterr().out and (tmp_path / "automl" / "report.html").is_file()
