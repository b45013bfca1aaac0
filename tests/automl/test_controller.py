"""The process that runs a search: faults, limits, stops and restarts, with trainings that are only pretended."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from automl.pretended import Pretended, files, quality
from oneformer import cli
from oneformer.automl import commands, controller
from oneformer.automl.controller import Controller
from oneformer.automl.ledger import Ledger
from oneformer.automl.study import Study, digest_of, recorded_as, study_of
from oneformer.errors import UserError, WorkError
from oneformer.spec.load import load_spec

WORDS = ("preset=swin_t", "train.num_epochs=9", "automl.parameters=[train.optim.lr,train.optim.weight_decay]")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "POLL_S", 0.0)


def study(folder: Path, *words: str) -> Study:
    found = study_of(load_spec(None, [*WORDS, f"results_dir={folder}", *words], action="automl run"))
    found.folder.mkdir(parents=True, exist_ok=True)
    return found


def search(found: Study, place: Pretended) -> tuple[str, list[dict[str, Any]]]:
    """Run it; how it ended, and what the ledger says then."""
    with Ledger(found.folder) as ledger:
        found.agree(ledger)
        ended = Controller(found, ledger, place).run()
        return ended, told(ledger)


def told(ledger: Ledger) -> list[dict[str, Any]]:
    return [
        {"id": t.id, "values": t.values, "state": t.state, "rungs": {e: r.score for e, r in t.rungs.items()}}
        for t in ledger.trials.values()
    ]


def test_a_search_finds_better_settings_than_the_specs_own(tmp_path: Path) -> None:
    found = study(tmp_path, "automl.max_trials=24")
    place = Pretended()
    ended, trials = search(found, place)
    assert ended == "done" and len(trials) == 24 and place.most == 1
    assert place.started[0] == (0, 1) and trials[0]["values"] == found.space.own()
    whole = {t["id"]: t["rungs"][9] for t in trials if 9 in t["rungs"]}
    assert max(whole.values()) > quality(found.spec, 9)
    best = max(whole, key=lambda number: whole[number])
    assert set(files(found.folder)) == {f"{best:04d}"}, "only the best keeps its checkpoints"
    with Ledger(found.folder, read_only=True) as ledger:
        record = ledger.checkpoint(ledger.trials[best])
    assert record is not None and record.digest == digest_of(found.folder / record.path)
    assert (found.folder / record.path).read_text() == f"{best} 9" and record.path.endswith(recorded_as(9))


def test_a_trial_is_an_ordinary_training_of_the_spec_at_its_point(tmp_path: Path) -> None:
    found = study(tmp_path, "automl.max_trials=3", "automl.algorithm=random", "model.one_former.dec_layers=10")
    trials = search(found, Pretended())[1]
    for trial in trials:
        written = load_spec(found.folder / "trials" / f"{trial['id']:04d}" / "spec.yaml", action="train")
        expected = found.space.applied(found.spec, trial["values"])
        assert (written.model, written.dataset) == (expected.model, expected.dataset)
        assert written.train.optim == expected.train.optim and written.train.num_epochs == 9
        assert written.automl_policy == "off"


def test_the_clock_decides_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A time limit would squeeze the schedule by how fast the machine was, and a pause would change the weights."""
    found = study(tmp_path, "automl.max_trials=1", "train.max_minutes=7.5")
    search(found, Pretended())
    written = load_spec(found.folder / "trials" / "0000" / "spec.yaml", action="train")
    assert written.train.max_minutes == 0 and found.spec.train.max_minutes == 7.5
    words = [*WORDS, f"results_dir={tmp_path}"]
    assert cli.main(["automl", "plan", *words, "train.max_minutes=7.5"]) == cli.DONE
    assert "train.max_minutes (7.5) is not applied" in capsys.readouterr().out
    assert cli.main(["automl", "plan", *words]) == cli.DONE
    assert "max_minutes" not in capsys.readouterr().out


def test_several_at_a_time(tmp_path: Path) -> None:
    place = Pretended()
    ended, trials = search(study(tmp_path, "automl.max_trials=9", "automl.max_concurrent=3"), place)
    assert ended == "done" and place.most == 3 and len(trials) == 9


def test_a_population_goes_on_from_the_best_ones_checkpoints(tmp_path: Path) -> None:
    found = study(tmp_path, "automl.algorithm=pbt", "automl.max_trials=10", "automl.min_epochs=3")
    place = Pretended()
    trials = search(found, place)[1]
    with Ledger(found.folder, read_only=True) as ledger:
        children = [t for t in ledger.trials.values() if t.origin]
        best = found.brain("PQ").best(list(ledger.trials.values()))
        assert best is not None and ledger.checkpoint(best) is not None
    assert len(children) == 4 and len(trials) == 14
    for child in children:
        parent, epoch = child.origin.trial, child.origin.epoch
        state = f"state {parent} {epoch}"
        assert place.there[child.id] == {
            f"model_epoch_{epoch - 1:03d}_step_00001.pth": state, "oneformer_model_best.pth": f"{parent} {epoch}"
        }  # fmt: skip
        assert sorted(child.rungs) == [e for e in (3, 6, 9) if e > epoch]
    assert set(files(found.folder)) == {f"{best.id:04d}"}


def test_finalists_are_trained_again_with_other_seeds(tmp_path: Path) -> None:
    words = ("automl.algorithm=random", "automl.max_trials=5", "automl.finalists=2", "automl.fresh_seeds=2")
    found = study(tmp_path, *words)
    seeds: list[int] = []

    def score(spec: Any, epoch: int) -> float:
        seeds.append(spec.train.seed)
        return quality(spec, epoch) + spec.train.seed % 7

    trials = search(found, Pretended(score=score))[1]
    again = [t for t in trials if t["id"] >= 5]
    assert len(again) in (4, 6) and seeds[:5] == [found.spec.train.seed] * 5
    assert set(seeds[5:]) == {found.spec.train.seed + 1, found.spec.train.seed + 2}
    assert all(t["values"] in [first["values"] for first in trials[:5]] and 9 in t["rungs"] for t in again)
    with Ledger(found.folder, read_only=True) as ledger:
        brain, kept = found.brain("PQ"), list(ledger.trials.values())
        finalists = {v.trial.id for v in brain.verdicts(kept)}
        assert brain.best(kept).id in finalists and all(ledger.checkpoint(ledger.trials[n]) for n in finalists)
    assert set(files(found.folder)) == {f"{n:04d}" for n in finalists}, "each may be handed over"
    more = study(tmp_path, words[0], "automl.max_trials=8", *words[2:])
    assert len(search(more, Pretended(score=score))[1]) > len(trials)
    with Ledger(found.folder, read_only=True) as ledger:
        best = brain.best(list(ledger.trials.values()))
        assert best is not None and ledger.checkpoint(best) is not None


def test_several_objectives_are_kept_for_each_trial_and_the_front_keeps_its_checkpoints(tmp_path: Path) -> None:
    words = (
        "automl.combine=pareto", "automl.algorithm=random", "automl.max_trials=12",
        "automl.objectives={PQ: {direction: maximize}, size_mib: {direction: minimize}}",
    )  # fmt: skip
    found = study(tmp_path, *words)
    place = Pretended(more=lambda spec: {"size_mib": spec.train.optim.lr * 1e4})
    search(found, place)
    assert place.metrics == {"PQ"}
    with Ledger(found.folder, read_only=True) as ledger:
        trials = list(ledger.trials.values())
        front = found.brain("PQ").front(trials)
        assert all(set(t.rungs[9].metrics) == {"PQ", "size_mib"} for t in trials)
        assert all(ledger.checkpoint(t) for t in front)
    assert len(front) > 1 and set(files(found.folder)) == {f"{t.id:04d}" for t in front}


def test_an_objective_that_is_not_measured_ends_the_search(tmp_path: Path) -> None:
    found = study(tmp_path, "automl.objectives={PQ: {direction: maximize}, AP: {direction: maximize}}")
    with pytest.raises(WorkError, match="no validation has given a AP"):
        search(found, Pretended())


@pytest.mark.parametrize("algorithm", ["asha", "hyperband", "random", "dehb", "pbt"])
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(tmp_path: Path, algorithm: str) -> None:
    words = (f"automl.algorithm={algorithm}", "automl.max_trials=10", "automl.min_epochs=3")
    whole = search(study(tmp_path / "whole", *words), Pretended())[1]
    started = []
    for _ in range(100):
        place = Pretended(stop_after=3)
        try:
            ended, trials = search(study(tmp_path / "cut", *words), place)
        except KeyboardInterrupt:
            started += place.started
            continue
        started += place.started
        break
    assert ended == "done" and trials == whole
    assert len(started) == len(set(started)), "nothing was trained twice"


@pytest.mark.parametrize("written", [False, True])
def test_a_kill_beside_the_record_of_a_score_leaves_each_file_as_it_was_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, written: bool
) -> None:
    """The new best file is there, its record not yet or just so: whoever looks then finds what the record says."""
    words, finish = ("automl.max_trials=6", "automl.sampler=random"), Ledger.finish
    quiet = search(study(tmp_path / "quiet", *words), Pretended())[1]
    parts = sum(len(t["rungs"]) for t in quiet)
    for at in range(1, parts + 1):
        found, calls = study(tmp_path / str(at), *words), []

        def cut(self: Ledger, *given: Any, at: int = at, calls: list[int] = calls, **more: Any) -> None:
            calls.append(len(calls) + 1)
            if len(calls) < at or written:
                finish(self, *given, **more)
            if len(calls) == at:
                raise KeyboardInterrupt

        monkeypatch.setattr(Ledger, "finish", cut)
        with pytest.raises(KeyboardInterrupt):
            search(found, Pretended())
        monkeypatch.setattr(Ledger, "finish", finish)
        with Ledger(found.folder, read_only=True) as ledger:
            recorded = [r for t in ledger.trials.values() if (r := ledger.checkpoint(t))]
        assert len(recorded) >= (at > 1 or written)
        assert all(digest_of(found.folder / r.path) == r.digest for r in recorded), f"after part {at}"
        assert search(found, Pretended())[1] == quiet
        assert len(list(found.folder.glob("trials/*/record*"))) == 1


def test_more_trials_may_be_asked_for_later(tmp_path: Path) -> None:
    few = search(study(tmp_path, "automl.max_trials=4", "automl.algorithm=random"), Pretended())[1]
    place = Pretended()
    more = search(study(tmp_path, "automl.max_trials=7", "automl.algorithm=random"), place)[1]
    assert more[:4] == few and [number for number, _ in place.started] == [4, 5, 6]


def test_faults_of_the_machine_are_tried_again_and_count_for_nothing(tmp_path: Path) -> None:
    quiet = search(study(tmp_path / "quiet", "automl.max_trials=9"), Pretended())[1]
    place = Pretended(faults={0: 2, 4: 1})
    assert search(study(tmp_path / "loud", "automl.max_trials=9"), place)[1] == quiet
    assert place.started[:3] == [(0, 1)] * 3
    trials = search(study(tmp_path / "worse", "automl.max_trials=6"), Pretended(faults={3: 9}))[1]
    assert trials[3]["state"] == "failed" and trials[3]["rungs"] == {}


def test_what_diverged_or_does_not_fit_is_never_promoted(tmp_path: Path) -> None:
    place = Pretended(kinds={1: "diverged", 2: "memory", 5: "shape", 6: "request"})
    trials = search(study(tmp_path, "automl.max_trials=12"), place)[1]
    states = {t["id"]: t["state"] for t in trials}
    assert states[1] == "failed" and {states[n] for n in (2, 5, 6)} == {"infeasible"}
    for number in (1, 2, 5, 6):
        assert sum(n == number for n, _ in place.started) == 1
        assert not files(tmp_path / "automl")[f"{number:04d}"]


def test_scores_that_are_no_number_are_never_promoted(tmp_path: Path) -> None:
    def score(spec: Any, epoch: int) -> float | None:
        return None if spec.train.optim.lr > 1e-4 else quality(spec, epoch)

    trials = search(study(tmp_path, "automl.max_trials=12"), Pretended(score=score))[1]  # type: ignore[arg-type]
    failed = [t for t in trials if t["values"]["train.optim.lr"] > 1e-4]
    assert failed and all(t["state"] == "failed" and not t["rungs"] for t in failed)
    assert all(math.isfinite(s) for t in trials for s in t["rungs"].values())


def test_a_spec_that_cannot_be_trained_ends_the_search(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the spec itself cannot be trained: request: it was told to"):
        search(study(tmp_path / "a"), Pretended(kinds={0: "request"}))
    with pytest.raises(WorkError, match="3 trials have ended and none has a score"):
        search(study(tmp_path / "b"), Pretended(kinds=dict.fromkeys(range(9), "diverged")))


def test_the_metric_decides_the_direction(tmp_path: Path) -> None:
    def loss(spec: Any, epoch: int) -> float:
        return 100 - quality(spec, epoch)

    up = search(study(tmp_path / "up", "automl.max_trials=9", "automl.metric=PQ"), Pretended())[1]
    place = Pretended(score=loss)
    down = search(study(tmp_path / "down", "automl.max_trials=9", "automl.metric=loss"), place)[1]
    assert place.metrics == {"train_loss"}
    assert [(t["values"], list(t["rungs"])) for t in up] == [(t["values"], list(t["rungs"])) for t in down]


def test_other_settings_need_another_folder(tmp_path: Path) -> None:
    search(study(tmp_path, "automl.max_trials=2", "automl.algorithm=random"), Pretended())
    with pytest.raises(UserError, match="train.optim.momentum: 0.9 -> 0.8"):
        search(study(tmp_path, "automl.algorithm=random", "train.optim.momentum=0.8"), Pretended())


def test_a_file_asks_the_search_to_stop(tmp_path: Path) -> None:
    found = study(tmp_path)
    (found.folder / controller.STOP).touch()
    place = Pretended()
    assert search(found, place) == ("stopped", []) and not place.started
    with pytest.raises(UserError, match="no process runs this search"):
        commands.stop(found.spec)


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oneformer.automl.executor.Local", lambda share: Pretended())
    words = [*WORDS, f"results_dir={tmp_path}", "automl.max_trials=9"]
    assert cli.main(["automl", "status", *words]) == cli.WRONG_REQUEST
    assert "there is no search" in capsys.readouterr().err
    assert cli.main(["automl", "plan", *words]) == cli.DONE
    plan = capsys.readouterr().out
    assert "9, 1 at a time" in plan and "epochs 1, 3, 9" in plan and "known after the first trial" in plan
    assert not (tmp_path / "automl").exists()
    assert cli.main(["train", *words, "automl_policy=on"]) == cli.DONE
    shown = capsys.readouterr().out
    assert "9 of 9 trials" in shown and "the spec's own values: PQ" in shown
    assert cli.main(["automl", "status", *words, "--json"]) == cli.DONE
    import json

    said = json.loads(capsys.readouterr().out)
    assert said["progress"]["total"] == 9 and len(said["recommendations"]) == 9 and not said["active"]
    assert said["direction"] == "maximize" and said["metric"] == "PQ" and said["best"]["epoch"] == 9
    assert cli.main(["automl", "plan", *words, "--json"]) == cli.DONE
    later = json.loads(capsys.readouterr().out)
    assert later["eta_seconds"] == 0 and later["epochs"]["done"] <= later["epochs"]["at_most"]
    assert json.loads((tmp_path / "automl" / "status.json").read_text().splitlines()[-1])["status"] == "SUCCESS"


def test_a_missing_library_is_told_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oneformer.automl.propose.find_spec", lambda name: None)
    words = [*WORDS, f"results_dir={tmp_path}"]
    assert cli.main(["automl", "run", *words]) == cli.WRONG_REQUEST
    assert 'pip install "oneformer[automl]"' in capsys.readouterr().err
    assert not (tmp_path / "automl").exists()
    place = Pretended()
    search(study(tmp_path, "automl.sampler=random", "automl.max_trials=3"), place)
    assert len(place.started) >= 3, "chance needs no library"


def test_algorithms_that_are_not_here_are_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["automl", "run", *WORDS, "automl.algorithm=smac"]) == cli.WRONG_REQUEST
    said = capsys.readouterr().err
    assert "automl.algorithm is the text 'smac'" in said and "one of asha, hyperband" in said


def test_the_policy_of_tao(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert [cli._by_policy(policy) for policy in ("on", "auto")] == ["automl run", "automl run"]
    monkeypatch.setattr("oneformer.runs.editor.schema_file", lambda action: tmp_path / "oneformer.schema.json")
    assert cli._by_policy("auto") == "train"
    assert "enabled for this model but cannot run" in caplog.text
