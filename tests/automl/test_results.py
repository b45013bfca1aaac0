"""What is told and handed over at the end of a search; the trainings are pretended."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from automl.pretended import Pretended
from oneformer import cli
from oneformer.automl import controller, results

WORDS = ("preset=swin_t", "train.num_epochs=9", "automl.parameters=[train.optim.lr,train.optim.weight_decay]")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A search that is done."""
    folder = tmp_path_factory.mktemp("search")
    given = [*WORDS, f"results_dir={folder}", "automl.max_trials=12"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controller, "POLL_S", 0.0)
        patch.setattr("oneformer.automl.executor.Local", lambda share: Pretended(kinds={3: "diverged"}))
        assert cli.main(["automl", "run", *given]) == cli.DONE
    return given


def folder_of(words: list[str]) -> Path:
    return Path(next(w for w in words if w.startswith("results_dir=")).partition("=")[2]) / "automl"


def test_the_report_opens_offline_and_begins_with_the_specs_own_values(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["automl", "report", *words]) == cli.DONE
    page = (folder_of(words) / "report.html").read_text(encoding="utf-8")
    assert str(folder_of(words) / "report.html") in capsys.readouterr().out
    assert "default-src 'none'" in page and not re.search(r'(src|href)="?https?:', page)
    headings = re.findall(r"<h2>(.+?)</h2>", page)
    assert headings[0] == "Before and after" and {"Progress", "Learning curves", "All trials"} <= set(headings)
    assert page.index("the spec&#x27;s own values") < page.index("the best (trial")
    facts = dict(re.findall(r"<dt>(.+?)</dt><dd>(.+?)</dd>", page))
    assert facts["trials"] == "12 of 12, 1 without a score" and facts["ended"] == "the schedule has nothing left"
    assert re.fullmatch(r"[1-9]\d* of 12", facts["proposed by a model"])
    assert int(facts["epochs"].split(";")[0]) < 12 * 9 and "it was told to" in page


def test_the_best_is_handed_over_in_the_form_of_tao(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_at", lambda winner: (8, 1))  # a pretended training writes no real file
    assert cli.main(["automl", "export-best", *words, "--json"]) == cli.DONE
    told = json.loads(capsys.readouterr().out)
    folder = folder_of(words) / "best"
    record = json.loads((folder / "best_rec.json").read_text())
    assert set(record) == {"schema_version", "experiment_id", "metric_name", "direction", "best", "all_recs"}
    assert set(record["best"]) == {
        "rec_id", "score", "specs", "observed_budget", "checkpoint_uri", "checkpoint_epoch", "checkpoint_step",
    }  # fmt: skip
    assert (record["best"]["score"], record["best"]["rec_id"]) == (told["score"], told["trial"])
    assert record["best"]["observed_budget"] == 9 and len(record["all_recs"]) == 12
    assert (folder / "model.pth").read_text() == f"{told['trial']} 9"
    from oneformer.spec.load import load_spec

    handed = load_spec(folder / "spec.yaml", action="train")
    assert handed.train.optim.lr == record["best"]["specs"]["train.optim.lr"]
    assert handed.automl_policy == "off" and handed.results_dir == "" and handed.train.num_epochs == 9


def test_a_checkpoint_that_has_changed_is_not_believed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = folder_of(words).glob("trials/*/record_*.pth")
    before = file.read_bytes()
    try:
        file.unlink()
        file.write_bytes(before + b"x")
        for verb in ("verify", "export-best"):
            assert cli.main(["automl", verb, *words]) == cli.FAILED
            assert "is not what was recorded" in capsys.readouterr().err
        file.unlink()
        assert cli.main(["automl", "verify", *words]) == cli.FAILED
        assert "is gone" in capsys.readouterr().err
    finally:
        file.write_bytes(before)


def test_repetitions_and_fronts_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "POLL_S", 0.0)
    place = Pretended(more=lambda spec: {"size_mib": spec.train.optim.lr * 1e4})
    monkeypatch.setattr("oneformer.automl.executor.Local", lambda share: place)
    common = [*WORDS, "automl.algorithm=random", "automl.max_trials=6"]
    again = [*common, f"results_dir={tmp_path / 'again'}", "automl.finalists=2"]
    two = "automl.objectives={PQ: {direction: maximize}, size_mib: {direction: minimize}}"
    front = [*common, f"results_dir={tmp_path / 'front'}", two, "automl.combine=pareto"]
    for words, heading in ((again, "Trained again with fresh seeds"), (front, "Front")):
        assert cli.main(["automl", "run", *words]) == cli.DONE
        assert cli.main(["automl", "report", *words]) == cli.DONE
        page = (folder_of(words) / "report.html").read_text(encoding="utf-8")
        assert f"<h2>{heading}</h2>" in page and "Before and after" in page
