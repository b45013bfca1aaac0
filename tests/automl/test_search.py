"""Searches with real trainings in processes of their own, on a data set and a network that take seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from oneformer import cli
from oneformer.automl.ledger import Ledger, is_held
from oneformer.automl.worker import OUTCOME, SPEC, kind_of, trained
from oneformer.errors import SpecError, WorkError
from oneformer.loss.total import Criterion
from oneformer.spec.load import load_spec
from oneformer.spec.write import changed_from_default, to_yaml
from tiny import TinyDataset
from train.small import load, small_data, train_small, unequal, words

SHORT = ("train.num_epochs=3", "train.iters_per_epoch=2", "automl.max_trials=4", "train.keep_checkpoints=1")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    return small_data(tmp_path_factory.mktemp("data"))


def test_a_worker_trains_to_its_rung_and_says_how_it_went(data: TinyDataset, tmp_path: Path) -> None:
    spec = load_spec(None, words(data, tmp_path, *SHORT, "train.best_metric=mIoU"), action="train")
    (tmp_path / SPEC).write_text(to_yaml(spec, keys=changed_from_default(spec), comments=False))
    outcome = trained(tmp_path, 1)
    assert outcome["kind"] == "done" and list(outcome["curve"]) == [1]
    assert outcome["result"]["best"] == {"metric": "mIoU", "value": pytest.approx(outcome["curve"][1], rel=1e-4)}
    assert outcome["result"]["stopped_by"] == "stop_at_epoch"


def test_a_rung_that_was_reached_before_a_kill_gives_the_same_words_again(data: TinyDataset, tmp_path: Path) -> None:
    """The process of the search may be gone when a training ends: the next one starts it again, and it says the same."""
    spec = load_spec(None, words(data, tmp_path, *SHORT, "train.best_metric=mIoU"), action="train")
    (tmp_path / SPEC).write_text(to_yaml(spec, keys=changed_from_default(spec), comments=False))
    first, again = trained(tmp_path, 1), trained(tmp_path, 1)
    assert again["kind"] == "done" and again["curve"] == first["curve"]
    assert (
        again["result"]["best"] == first["result"]["best"] and again["result"]["metrics"] == first["result"]["metrics"]
    )


def test_a_worker_measures_what_the_objectives_name(data: TinyDataset, tmp_path: Path) -> None:
    wanted = "{mIoU: {direction: maximize}, size_mib: {direction: minimize}, latency_ms: {direction: minimize}}"
    more = ("train.best_metric=mIoU", f"automl.objectives={wanted}")
    spec = load_spec(None, words(data, tmp_path, *SHORT, *more), action="train")
    (tmp_path / SPEC).write_text(to_yaml(spec, keys=changed_from_default(spec), comments=False))
    told = trained(tmp_path, 1)["result"]
    saved = load(tmp_path / "train" / "oneformer_model_best.pth")
    weights = [v for k, v in saved["state_dict"].items() if k.startswith("model.") and not k.startswith("model.text.")]
    assert told["metrics"]["mIoU"] == told["best"]["value"] == saved["oneformer"]["metrics"]["mIoU"]
    assert told["metrics"]["size_mib"] == pytest.approx(sum(4 * w.numel() for w in weights) / 2**20, rel=0.02)
    assert told["metrics"]["latency_ms"] > 0


def test_faults_have_their_kinds() -> None:
    with pytest.raises(WorkError) as error:
        Criterion.raise_if_not_finite({"loss": torch.tensor(float("nan"))}, ["a.png"])
    assert kind_of(error.value) == "diverged"
    with pytest.raises(RuntimeError) as shapes:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert kind_of(shapes.value) == "shape"
    assert kind_of(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")) == "memory"
    assert (
        kind_of(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")) == "memory"
    )
    assert [kind_of(e) for e in (MemoryError(), SpecError("x"), WorkError("disk full"), KeyError("x"))] == [
        "memory", "request", "fault", "fault",
    ]  # fmt: skip
    assert kind_of(KeyboardInterrupt()) == "interrupted"


def command(verb: str, given: list[str]) -> list[str]:
    return [sys.executable, "-m", "oneformer", "automl", verb, *given]


def scores(folder: Path) -> list[tuple]:
    with Ledger(folder / "automl", read_only=True) as ledger:
        return [(t.values, t.state, {e: r.score for e, r in t.rungs.items()}) for t in ledger.trials.values()]


@pytest.mark.slow
def test_a_search_that_is_killed_again_and_again_ends_like_a_quiet_one(data: TinyDataset, tmp_path: Path) -> None:
    quiet, loud = (words(data, tmp_path / name, *SHORT) for name in ("quiet", "loud"))
    assert subprocess.run(command("run", quiet), env=ENVIRONMENT, check=False).returncode == cli.DONE
    for wait in (9, 14, 19):
        child = subprocess.Popen(command("run", loud), env=ENVIRONMENT, stderr=subprocess.DEVNULL)
        time.sleep(wait)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not is_held(tmp_path / "loud" / "automl")
    assert subprocess.run(command("run", loud), env=ENVIRONMENT, check=False).returncode == cli.DONE
    assert scores(tmp_path / "loud") == scores(tmp_path / "quiet")
    with Ledger(tmp_path / "loud" / "automl", read_only=True) as ledger:
        assert not [t for t in ledger.trials.values() if t.state == "running"]


@pytest.fixture(scope="module")
def searched(data: TinyDataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A search that is done; its folder of results and its words."""
    folder = tmp_path_factory.mktemp("search")
    given = words(data, folder, *SHORT)
    assert subprocess.run(command("run", given), env=ENVIRONMENT, check=False).returncode == cli.DONE
    return folder, given


@pytest.mark.slow
def test_the_best_is_what_one_training_without_pauses_gives(
    data: TinyDataset, searched: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, _ = searched
    with Ledger(folder / "automl", read_only=True) as ledger:
        best = next(t for t in ledger.trials.values() if t.state == "done")
        record = ledger.checkpoint(best)
    assert record is not None and sorted(best.rungs) == [1, 3]
    settings = [f"{key}={value}" for key, value in best.values.items()]
    done = train_small(data, tmp_path, *SHORT, *settings)
    assert done.fitted.best == best.rungs[3].score
    states = [load(path) for path in (folder / "automl" / record.path, tmp_path / "train" / "oneformer_model_best.pth")]
    for state in states:
        state["oneformer"]["training"].pop("elapsed_s")
    assert unequal(*states) == []


@pytest.mark.slow
def test_the_best_is_measured_again_to_the_last_bit_and_handed_over(searched: tuple[Path, list[str]]) -> None:
    folder, given = searched
    done = subprocess.run([*command("verify", given), "--json"], env=ENVIRONMENT, check=False, stdout=subprocess.PIPE)
    told = json.loads(done.stdout)
    assert done.returncode == cli.DONE and told["equal"] and told["recorded"] == told["measured"]
    assert subprocess.run(command("export-best", given), env=ENVIRONMENT, check=False).returncode == cli.DONE
    record = json.loads((folder / "automl" / "best" / "best_rec.json").read_text())
    assert record["best"]["score"] == told["recorded"] and record["best"]["checkpoint_step"] > 0
    assert load(folder / "automl" / "best" / "model.pth")["oneformer"]["epoch"] == record["best"]["checkpoint_epoch"]


@pytest.mark.slow
def test_a_population_of_real_trainings(data: TinyDataset, tmp_path: Path) -> None:
    """Children go on from the weights, the optimiser and the place of the better one, with their own settings."""
    more = (
        "automl.algorithm=pbt",
        "automl.max_trials=3",
        "automl.parameters=[train.optim.lr,train.optim.weight_decay]",
    )
    given = words(data, tmp_path, *SHORT, *more)
    assert subprocess.run(command("run", given), env=ENVIRONMENT, check=False).returncode == cli.DONE
    with Ledger(tmp_path / "automl", read_only=True) as ledger:
        trials = list(ledger.trials.values())
        children = [t for t in trials if t.origin]
        assert len(children) == 2 and {t.state for t in trials} <= {"done", "paused"}
        assert sum(3 in t.rungs for t in trials) == 3 and sum(t.spent for t in trials) == 9
    for child in children:
        assert child.origin is not None
        log_text = (tmp_path / "automl" / "trials" / f"{child.id:04d}" / "log.txt").read_text()
        assert f"(epoch {child.origin.epoch} finished" in log_text and "going on from" in log_text
        assert "changed since the checkpoint was written: train.optim.lr" in log_text
    assert subprocess.run(command("verify", given), env=ENVIRONMENT, check=False).returncode == cli.DONE


@pytest.mark.slow
def test_a_stop_saves_what_is_under_way(data: TinyDataset, tmp_path: Path) -> None:
    given = words(data, tmp_path, *SHORT, "train.num_epochs=50", "automl.algorithm=random")
    child = subprocess.Popen(command("run", given), env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    status = tmp_path / "automl" / "trials" / "0000" / "train" / "metrics.csv"
    until = time.monotonic() + 120
    while not (status.is_file() and len(status.read_text().splitlines()) > 3) and time.monotonic() < until:
        time.sleep(0.3)
    assert subprocess.run(command("stop", given), env=ENVIRONMENT, check=False).returncode == cli.DONE
    assert child.wait(60) == cli.DONE
    assert list((tmp_path / "automl" / "trials" / "0000" / "train").glob("model_epoch_*.pth"))
    assert json.loads((tmp_path / "automl" / "trials" / "0000" / OUTCOME).read_text())["kind"] == "interrupted"
    assert scores(tmp_path)[0][1] == "waiting"
