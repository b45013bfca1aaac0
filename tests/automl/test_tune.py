"""`oneformer automl tune`: the scores are those of `evaluate`, and what is found reaches whoever uses the network."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from oneformer import cli
from oneformer.actions.evaluate import run as evaluate
from oneformer.automl import tune as tuning
from oneformer.automl.ledger import Ledger
from oneformer.automl.results import to_evaluate, winner_of
from oneformer.automl.study import digest_of, recorded_as, study_of
from oneformer.automl.trial import Checkpoint, Finished
from oneformer.spec.load import load_spec
from oneformer.spec.tree import with_value
from tiny import TinyDataset
from train.small import small_data, train_small, words

LONG_ENOUGH = ("train.num_epochs=10", "train.validation_interval=10", "train.optim.lr=3e-3")
SHORT = (*LONG_ENOUGH, "automl.max_trials=1", "automl.metric=PQ", "model.test.object_mask_threshold=0.9")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    return small_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def searched(data: TinyDataset, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A search of one trial, whose record is written by hand beside a real checkpoint; its words."""
    folder = tmp_path_factory.mktemp("search")
    given = words(data, folder, *SHORT)
    train_small(data, folder / "made", *LONG_ENOUGH)
    study = study_of(load_spec(None, given, action="automl run"))
    study.folder.mkdir(parents=True)
    with Ledger(study.folder) as ledger:
        study.agree(ledger)
        ledger.set_facts({"metric": "PQ"})
        trial = ledger.add(study.space.own(), source="own")
        record = study.trial_folder(trial) / recorded_as(10)
        record.parent.mkdir(parents=True)
        record.hardlink_to((folder / "made" / "train" / "oneformer_model_best.pth").resolve())
        ledger.lease(trial, 10, owner="me", until=0)
        file = Checkpoint(str(record.relative_to(study.folder)), digest_of(record), record.stat().st_size)
        ledger.finish(trial, Finished(0.0, 1.0, {"PQ": 0.0}, {10: 0.0}, file), last=True)
    return given


def test_both_halves_together_are_what_evaluate_counts(searched: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_spec(None, searched, action="automl tune")
    test = dataclasses.replace(spec.model.test, object_mask_threshold=0.1, mask_threshold=0.45)
    with winner_of(spec) as winner:
        kept = tuning._kept(winner)
        again = to_evaluate(winner, "again")
    assert kept.images == 6 and kept.tasks == ("instance", "panoptic")
    halves = [kept.scored(test, kept.tasks, half) for half in (0, 1)]
    assert halves[0] != halves[1]
    monkeypatch.setattr(tuning.Kept, "scored", _all)
    done = evaluate(with_value(again, "model.test", test))
    kpi = done.scores.kpi()  # type: ignore[union-attr]
    assert kept.scored(test, kept.tasks, 0) == {"panoptic": kpi["PQ"], "instance": kpi["AP"]}


def _all(kept: tuning.Kept, test: object, tasks: tuple[str, ...], half: int) -> dict[str, float]:
    from oneformer.metrics.evaluator import Evaluator

    evaluator = Evaluator(kept.labels, tasks=tasks, test=test)  # type: ignore[arg-type]
    for batch, outputs in kept.batches:
        for task in tasks:
            evaluator.update(task, outputs[task], batch)
    found = evaluator.compute().kpi()
    return {task: found[kept.metric(task)] for task in tasks}


def test_what_is_found_is_told_kept_and_handed_over(searched: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(next(w for w in searched if w.startswith("results_dir=")).partition("=")[2]) / "automl"
    assert cli.main(["automl", "tune", *searched, "--json"]) == cli.DONE
    told = json.loads(capsys.readouterr().out)
    assert told["images"] == {"chosen_by": 3, "told_by": 3} and told["scores"] == {"instance": "AP", "panoptic": "PQ"}
    assert told["own"]["model.test.object_mask_threshold"] == 0.9
    for task in ("panoptic", "instance"):
        assert told["after"]["chosen_by"][task] >= told["before"]["chosen_by"][task]
    assert told["seconds"] < 60, "goal G11"
    file = folder / "thresholds.json"
    found = {"model.test.object_mask_threshold": 0.25, "model.test.test_topk_per_image": 50}
    file.write_text(json.dumps({**told, "found": found, "handed_over": True}))  # whatever this small network gives
    assert cli.main(["automl", "export-best", *searched]) == cli.DONE
    handed = yaml.safe_load((folder / "best" / "spec.yaml").read_text())
    assert handed["model"]["test"] == {"object_mask_threshold": 0.25, "test_topk_per_image": 50}
    specs = json.loads((folder / "best" / "best_rec.json").read_text())["best"]["specs"]
    assert specs.items() >= found.items()
    assert cli.main(["automl", "report", *searched]) == cli.DONE
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<h2>Thresholds</h2>" in page and "object_mask_threshold" in page and "chosen by 3 of the validation" in page
    assert cli.main(["automl", "tune", *searched, "--dry-run"]) == cli.DONE
    assert "thresholds.json" in capsys.readouterr().out


def test_as_many_images_are_looked_at_as_can_be_kept(searched: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "KEPT_BYTES", 1)
    with winner_of(load_spec(None, searched, action="automl tune")) as winner:
        assert tuning._kept(winner).images == 3, "one batch, for two images at least are needed"
