"""A spec and a folder -> one search: its facts, its trials' folders and specs, and what it may not change."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneformer import __version__
from oneformer.automl.advise import Advisor
from oneformer.automl.brain import Brain, brain_of
from oneformer.automl.ledger import Ledger
from oneformer.automl.objective import goal_of
from oneformer.automl.space import Space, space_of
from oneformer.automl.trial import Trial
from oneformer.errors import UserError
from oneformer.runs import run_path
from oneformer.runs.atomic import plain
from oneformer.spec import AutomlSpec, ExperimentSpec
from oneformer.spec.tree import get, leaves

RECORDS = "record*.pth"
WATCHED = ("model", "dataset", "train", "automl")
# What may change between two parts of one search.
FREE = (
    "automl.max_trials", "automl.max_concurrent", "automl.retries", "automl.results_dir", "automl.max_disk_mib",
    "train.num_threads",
    "train.max_minutes",
    "train.results_dir", "train.resume_training_checkpoint_path", "train.overwrite", "train.stop_at_epoch",
    "automl.llm.endpoint", "automl.llm.model", "automl.llm.auth_variable", "automl.llm.temperature",
    "automl.llm.max_tokens", "automl.llm.timeout_s", "automl.llm.retries", "automl.llm.fallback", "automl.llm.notes",
    "train.verbose", "train.log_interval", "dataset.train.num_workers", "dataset.val.num_workers", "dataset.test",
)  # fmt: skip


@dataclass(frozen=True)
class Study:
    """One search and the folder that is its identity."""

    spec: ExperimentSpec
    folder: Path
    space: Space

    def trial_folder(self, trial: Trial) -> Path:
        """Where a trial's training keeps its files."""
        return self.folder / "trials" / f"{trial.id:04d}"

    def trial_spec(self, trial: Trial) -> ExperimentSpec:
        """The spec of a trial: an ordinary training, as long as the search's longest."""
        spec = self.space.applied(self.spec, trial.values)
        spec.results_dir, spec.train.results_dir = str(self.trial_folder(trial)), ""
        kept_by: Any = goal_of(self.spec.automl).metric
        spec.train.best_metric = kept_by
        spec.train.seed = (spec.train.seed + (trial.origin.seed if trial.origin else 0)) % 2**32
        spec.train.keep_checkpoints = 1
        spec.train.max_minutes = 0.0  # the clock would decide the schedule, differently after each pause
        spec.train.overwrite = False
        measured = {name: dict(said) for name, said in self.spec.automl.objectives.items()}
        spec.automl, spec.automl_policy = AutomlSpec(objectives=measured, combine=self.spec.automl.combine), "off"
        spec.preset = ""  # all of its values are in the spec already
        spec.encryption_key = ""  # it is written nowhere: trainings get it by their environment
        return spec

    def epoch_for(self, epoch: int) -> int:
        """What `train.stop_at_epoch` has to be for a trial to reach a rung."""
        return 0 if epoch >= self.spec.train.num_epochs else epoch

    def brain(self, metric: str = "", advisor: Advisor | None = None) -> Brain:
        """The brain, for the metric that the first trial has shown (`auto` leaves it to the labels)."""
        goal = goal_of(self.spec.automl, metric)
        return brain_of(self.spec.automl, self.space, goal=goal, whole=self.spec.train.num_epochs, advisor=advisor)

    def facts(self) -> dict[str, Any]:
        """What the search stands on, in plain types."""
        values = {k: get(self.spec, k) for k in leaves() if k.split(".")[0] in WATCHED and not _free(k)}
        return {"space": self.space.to_dict(), "settings": plain(values), "version": __version__}

    def agree(self, ledger: Ledger) -> None:
        """Write the facts of a new search down; of one that is there compare them.

        Raises:
            UserError: the folder holds a search with other settings; all differences are told.
        """
        before, now = ledger.facts(), self.facts()
        if not before:
            ledger.set_facts(now)
            return
        # A key that is newer than the search had its default.
        then = {k: plain(leaves()[k].default) for k in now["settings"]} | before["settings"]
        changed = [f"{k}: {then[k]!r} -> {v!r}" for k, v in now["settings"].items() if then[k] != v]
        if changed:
            shown = changed[:8] + ([f"and {len(changed) - 8} more"] if len(changed) > 8 else [])
            raise UserError(
                "the folder holds a search with other settings:\n    " + "\n    ".join(shown),
                where=str(self.folder),
                hint="restore them, or start another with automl.results_dir=FOLDER",
            )


def _free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def folder_of(spec: ExperimentSpec) -> Path:
    """The folder of the search that a spec describes."""
    return run_path(spec.results_dir, "automl", section_dir=spec.automl.results_dir)


def study_of(spec: ExperimentSpec) -> Study:
    """The search that a spec describes. Raises UserErrors when its space makes no sense."""
    return Study(spec, folder_of(spec), space_of(spec))


def recorded_as(epoch: int) -> str:
    """The name of the file that a trial's score at a rung belongs to.

    Each rung has another, so that what was recorded before stays as it was until the new score is in the record.
    """
    return f"record_{epoch:04d}.pth"


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tao_record(trial: Trial, brain: Brain, specs: Mapping[str, Any]) -> dict[str, Any]:
    """A trial as TAO's controller keeps it."""
    state = {"waiting": "pending", "paused": "success", "done": "success", "infeasible": "failure"}
    score = trial.rungs[trial.epochs].score if trial.rungs else None
    return {
        "id": trial.id,
        "specs": dict(specs),
        "job_id": f"{trial.id:04d}",
        "status": {**state, "failed": "failure"}.get(trial.state, trial.state),
        "result": score,
        "metric": brain.goal.name,
        "early_stop_epoch": trial.epochs or None,
        "failure_reason": trial.reason if trial.broken else None,
        "resume_from_job_id": f"{trial.origin.trial:04d}" if trial.begun and trial.origin else None,
        "resume_from_epoch": trial.begun or None,
        "objective_values": _objectives(trial, brain),
    }


def _objectives(trial: Trial, brain: Brain) -> dict[str, float] | None:
    if not (brain.goal.parts and trial.rungs):
        return None
    return {part.metric: trial.rungs[trial.epochs].metrics[part.metric] for part in brain.goal.parts}
