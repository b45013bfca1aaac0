"""A search -> `oneformer automl verify, report, export-best`: its best trial measured again, told, and handed over."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneformer.actions.plan import Plan
from oneformer.automl.ledger import Ledger
from oneformer.automl.study import Study, digest_of, study_of, tao_record
from oneformer.automl.thresholds import thresholds_of
from oneformer.errors import UserError, WorkError
from oneformer.runs.atomic import write_json, write_text
from oneformer.spec.tree import with_value
from oneformer.spec.write import changed_from_default, to_yaml

if TYPE_CHECKING:
    from oneformer.automl.brain import Brain
    from oneformer.automl.trial import Checkpoint, Rung, Trial
    from oneformer.spec import ExperimentSpec

REPORT, BEST, MIRROR = "report.html", "best", "optuna.journal"
NOT_OF_A_RUN = ("results_dir", "automl", "automl_policy")  # what a spec that is handed over leaves to its reader


@dataclass(frozen=True)
class Winner:
    """The best trial, and the file that its score belongs to."""

    study: Study
    ledger: Ledger
    brain: Brain
    trial: Trial
    record: Checkpoint

    @property
    def rung(self) -> Rung:
        """Where its score was measured."""
        return self.trial.rungs[self.trial.epochs]

    @property
    def file(self) -> Path:
        """The checkpoint."""
        return self.study.folder / self.record.path


@contextmanager
def winner_of(spec: ExperimentSpec) -> Iterator[Winner]:
    """The best trial so far, its checkpoint untouched since its score was recorded.

    Raises:
        UserError: there is no search, or no trial has a score yet.
        WorkError: the checkpoint is gone or has changed.
    """
    study = study_of(spec)
    with Ledger(study.folder, read_only=True) as ledger:
        brain = study.brain(ledger.facts().get("metric", ""))
        best = brain.best(list(ledger.trials.values()))
        if best is None:
            hint = "oneformer automl status shows them"
            raise UserError("no trial has a score yet", where=str(study.folder), hint=hint)
        record = ledger.checkpoint(best)
        path = study.folder / record.path if record else None
        if record is None or path is None or not path.is_file():
            raise WorkError(f"the checkpoint of trial {best.id} is gone", where=str(study.trial_folder(best)))
        if digest_of(path) != record.digest:
            raise WorkError(f"the checkpoint of trial {best.id} is not what was recorded", where=str(path))
        yield Winner(study, ledger, brain, best, record)


@dataclass(frozen=True)
class Verified:
    """A recorded score and the one that the same file has now."""

    trial: int
    metric: str
    recorded: float
    measured: float | None
    file: Path

    @property
    def exit_code(self) -> int:
        """1 when they differ, else 0."""
        return int(self.recorded != self.measured)

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "trial": self.trial, "metric": self.metric, "recorded": self.recorded, "measured": self.measured,
            "equal": not self.exit_code, "checkpoint": str(self.file),
        }  # fmt: skip

    def table(self) -> str:
        """In words."""
        verdict = "equal to the last bit" if not self.exit_code else "they differ"
        measured = "nothing" if self.measured is None else repr(self.measured)
        return (
            f"trial {self.trial}: {self.metric} {self.recorded!r} recorded, {measured} measured: {verdict}\n{self.file}"
        )


def verify(spec: ExperimentSpec, *, dry_run: bool = False) -> Verified | Plan:
    """Score the best trial's checkpoint on the validation images again.

    Raises:
        UserError: no trial has a score, or it is the training loss, which only a training gives.
        WorkError: the file has changed since it was recorded.
    """
    from oneformer.actions.evaluate import run as evaluate

    with winner_of(spec) as winner:
        goal = winner.brain.goal
        metric, recorded = goal.metric, winner.rung.metrics[goal.metric] if goal.parts else winner.rung.score
        if metric == "train_loss":
            raise UserError("a training loss cannot be measured again", where="automl.metric")
        again = to_evaluate(winner, "verify")
        if dry_run:
            return Plan({"checkpoint": str(winner.file)}, [again.evaluate.results_dir])
        done = evaluate(again)
        measured = done.scores.kpi().get(metric) if done is not None and not isinstance(done, Plan) else None
        return Verified(winner.trial.id, metric, recorded, measured, winner.file)


def to_evaluate(winner: Winner, folder: str) -> ExperimentSpec:
    """The spec that scores the best checkpoint on the validation images as its training has, results in `folder`."""
    again = winner.study.trial_spec(winner.trial)
    again.dataset.test = again.dataset.val
    again.evaluate.results_dir = str(winner.study.folder / folder)
    again.evaluate.checkpoint = str(winner.file)
    again.evaluate.accelerator, again.evaluate.precision = again.train.accelerator, again.train.precision
    again.evaluate.batch_size, again.evaluate.report_images = -1, 0
    again.evaluate.threads = again.train.num_threads
    return again


@dataclass(frozen=True)
class Exported:
    """What was handed over."""

    folder: Path
    metric: str
    score: float
    trial: int

    def to_dict(self) -> dict[str, Any]:
        """Paths and score."""
        names = {"checkpoint": "model.pth", "spec": "spec.yaml", "record": "best_rec.json"}
        files = {name: str(self.folder / file) for name, file in names.items()}
        return {"trial": self.trial, "metric": self.metric, "score": self.score, **files}

    def table(self) -> str:
        """One line each."""
        head = f"trial {self.trial}: {self.metric} {self.score:.4g}"
        return "\n".join([head, *(f"  {self.folder / n}" for n in ("model.pth", "spec.yaml", "best_rec.json"))])


def export_best(spec: ExperimentSpec, *, dry_run: bool = False) -> Exported | Plan:
    """Copy the best trial's checkpoint and write its spec and TAO's record of it, all into `best/`."""
    with winner_of(spec) as winner:
        folder = winner.study.folder / BEST
        if dry_run:
            files = ("model.pth", "spec.yaml", "best_rec.json")
            return Plan({"checkpoint": str(winner.file)}, [str(folder / n) for n in files])
        folder.mkdir(exist_ok=True)
        part = folder / ".model.part"
        shutil.copyfile(winner.file, part)
        part.replace(folder / "model.pth")
        best = winner.study.trial_spec(winner.trial)
        for key, value in thresholds_of(winner.study.folder, winner.record.digest).items():
            best = with_value(best, key, value)
        best.train.keep_checkpoints = spec.train.keep_checkpoints
        keys = [k for k in changed_from_default(best) if k.split(".")[0] not in NOT_OF_A_RUN]
        write_text(folder / "spec.yaml", to_yaml(best, keys=keys, comments=False)).chmod(0o600)
        write_json(folder / "best_rec.json", best_rec(winner))
        return Exported(folder, winner.brain.goal.name, winner.rung.score, winner.trial.id)


def best_rec(winner: Winner) -> dict[str, Any]:
    """The best trial and all others in the form of TAO's `best_rec.json`."""
    trial, brain = winner.trial, winner.brain
    records = [tao_record(t, brain, t.values) for t in winner.ledger.trials.values()]
    return {
        "schema_version": 1,
        "experiment_id": str(winner.study.folder),
        "metric_name": brain.goal.name,
        "direction": "maximize" if brain.goal.more else "minimize",
        "best": {
            "rec_id": trial.id,
            "score": winner.rung.score,
            "specs": {**trial.values, **thresholds_of(winner.study.folder, winner.record.digest)},
            "observed_budget": winner.rung.epoch,
            "checkpoint_uri": str(winner.file),
            "checkpoint_epoch": _at(winner)[0],
            "checkpoint_step": _at(winner)[1],
        },
        "all_recs": records,
    }


def _at(winner: Winner) -> tuple[int, int]:
    """Epoch (from 0, as in the names of checkpoints) and step of the file."""
    from oneformer.train.checkpoint import read_training_state

    saved = read_training_state(winner.file)["oneformer"]
    return saved["epoch"], saved["step"]


@dataclass(frozen=True)
class Reported:
    """Where the report is, and the same trials for Optuna; None without Optuna."""

    file: Path
    mirror: Path | None

    def to_dict(self) -> dict[str, str | None]:
        """Their paths."""
        return {"report": str(self.file), "optuna": str(self.mirror) if self.mirror else None}

    def table(self) -> str:
        """Their paths."""
        optuna = f"{self.mirror} (optuna-dashboard opens it)" if self.mirror else "not written, it is not installed"
        return f"report: {self.file}\noptuna: {optuna}"


def report(spec: ExperimentSpec, *, dry_run: bool = False) -> Reported | Plan:
    """Write `report.html`: what was searched, what it cost, what it found; one file that opens without a network.

    Where Optuna is installed, the trials are written for it as well.
    """
    from oneformer.automl.page import page

    study = study_of(spec)
    file = study.folder / REPORT
    if dry_run:
        return Plan({}, [str(file), str(study.folder / MIRROR)])
    with Ledger(study.folder, read_only=True) as ledger:
        brain = study.brain(ledger.facts().get("metric", ""))
        write_text(file, page(study, brain, ledger))
        if not find_spec("optuna"):
            return Reported(file, None)
        from oneformer.automl.mirror import mirror

        return Reported(file, mirror(study, brain, ledger, study.folder / MIRROR))
