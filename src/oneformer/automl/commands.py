"""A spec -> what `oneformer automl space, plan, run, status, stop` show and do."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneformer.actions.plan import Plan
from oneformer.automl.ledger import FILE, Ledger, held, is_held
from oneformer.automl.propose import proposers
from oneformer.automl.retention import MIB, Need, check, need_of
from oneformer.automl.space import Space, space_of
from oneformer.automl.study import Study, folder_of, study_of, tao_record
from oneformer.errors import UserError

if TYPE_CHECKING:
    from oneformer.automl.brain import Brain
    from oneformer.automl.dimension import Dimension
    from oneformer.automl.executor import Executor
    from oneformer.automl.schedule import Expected
    from oneformer.automl.trial import Trial
    from oneformer.spec import ExperimentSpec

log = logging.getLogger(__name__)

DRAWS = 10_000
PERCENTILES = (10, 50, 90)


@dataclass(frozen=True)
class SpaceShown:
    """The searched keys and what random draws of them look like."""

    space: Space
    draws: Mapping[str, list[Any]]

    def to_dict(self) -> dict[str, Any]:
        """Every key with its range, percentiles or shares of its draws, and what was left out."""
        keys = {d.key: {**d.to_dict(), "draws": self._draws(d)} for d in self.space.dimensions}
        return {"searched": keys, "left_out": dict(self.space.left_out)}

    def _draws(self, dimension: Dimension) -> dict[str, float]:
        drawn = self.draws[dimension.key]
        if dimension.kind == "choice":
            return {str(choice): drawn.count(choice) / len(drawn) for choice in dimension.choices}
        ordered = sorted(drawn)
        return {f"P{p}": ordered[(len(ordered) - 1) * p // 100] for p in PERCENTILES}

    def table(self) -> str:
        """One line for each key, then what was left out and why."""
        from oneformer.report.tables import align

        rows = []
        for d in self.space.dimensions:
            draws = self._draws(d)
            shares = ", ".join(f"{name} {share:.0%}" for name, share in draws.items()) if d.kind == "choice" else ""
            numbers = [f"{draws[f'P{p}']:.4g}" for p in PERCENTILES] if d.kind != "choice" else ["", "", ""]
            limits = [f"{d.low:.4g}", f"{d.high:.4g}"] if d.kind != "choice" else [shares, ""]
            rows.append((d.key, d.scale, _shown(d.own), *limits, *numbers))
        head = ("key", "scale", "own value", "lowest", "highest", *(f"P{p}" for p in PERCENTILES))
        lines = [align(head, rows, text_columns=2)]
        bound = [f"{d.key} has to be {d.bound.words}" for d in self.space.dimensions if d.bound]
        lines += ["", *bound] if bound else []
        if self.space.left_out:
            lines += ["", *(f"not searched: {key} ({why})" for key, why in self.space.left_out.items())]
        return "\n".join(lines)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def space(spec: ExperimentSpec, *, dry_run: bool = False) -> SpaceShown:  # noqa: ARG001  # nothing is read or written
    """Every key that would be searched, with percentiles of 10 000 random draws."""
    import numpy as np

    found = space_of(spec)
    places = np.random.default_rng(0).random((len(found.dimensions), DRAWS))
    draws = {d.key: [d.at(float(p)) for p in row] for d, row in zip(found.dimensions, places, strict=True)}
    if any(d.bound for d in found.dimensions):
        points = [found.settled({key: drawn[n] for key, drawn in draws.items()}) for n in range(DRAWS)]
        draws = {key: [point[key] for point in points] for key in draws}
    return SpaceShown(found, draws)


@dataclass(frozen=True)
class SearchPlan:
    """How much a search takes, told before anything runs."""

    study: Study
    expected: Expected
    need: Need
    eta_s: float | None
    """By the epochs that were measured so far; None while there are none."""
    done_epochs: int
    repeated: int = 0
    """Epochs that may be trained once more where checkpoints have to make room."""

    def to_dict(self) -> dict[str, Any]:
        """Numbers, and the keys that are searched."""
        expected, automl = self.expected, self.study.spec.automl
        return {
            "folder": str(self.study.folder),
            "algorithm": automl.algorithm,
            "searched": self.study.space.to_dict(),
            "trials": expected.trials,
            "asked_for": self._asks(),
            "jobs": expected.jobs,
            "epochs": {
                "expected": expected.epochs,
                "at_most": expected.most + self.repeated,
                "repeated_at_most": self.repeated,
                "done": self.done_epochs,
            },
            "rungs": list(self.study.brain().schedule.rungs),
            "disk_peak_mib": round(min(self.need.peak, automl.max_disk_mib * MIB or self.need.peak) / MIB, 1),
            "disk_mib": {"without_a_limit": round(self.need.peak / MIB, 1), "least": round(self.need.least / MIB, 1)},
            "eta_seconds": None if self.eta_s is None else round(self.eta_s),
        }

    def table(self) -> str:
        """One line for each number."""
        expected, automl = self.expected, self.study.spec.automl
        whole = expected.trials * self.study.spec.train.num_epochs
        again = f", and at most {self.repeated} once more after checkpoints made room" if self.repeated else ""
        eta = "known after the first trial" if self.eta_s is None else str(timedelta(seconds=round(self.eta_s)))
        rows = [
            ("folder", str(self.study.folder)),
            ("algorithm", f"{automl.algorithm}, new trials by {self.study.brain().proposer.sampler}"),
            ("searched", ", ".join(d.key for d in self.study.space.dimensions)),
            ("first trial", "the spec's own values"),
            ("trials", f"{expected.trials}, {automl.max_concurrent} at a time"),
            ("rungs", "epochs " + ", ".join(map(str, self.study.brain().schedule.rungs))),
            ("trainings", f"{expected.jobs}, counted from pause to pause"),
            ("epochs", f"{expected.epochs}, never more than {expected.most}{again}; {whole} if all trained to the end"),
            ("disk", self._disk()),
            ("time left", eta),
        ]
        if minutes := self.study.spec.train.max_minutes:
            note = f"train.max_minutes ({minutes:g}) is not applied: trials are compared after equal epochs"
            rows.append(("time limit", note))
        if asks := self._asks():
            rows.insert(2, ("asked", f"{automl.llm.model} at {automl.llm.endpoint} for at most {asks} trials"))
        return "\n".join(f"{name:<12} {value}" for name, value in rows)

    def _asks(self) -> int:
        """Trials that a language model proposes, at most; those that are repeated are not asked for."""
        proposer, automl = self.study.brain().proposer, self.study.spec.automl
        new = self.expected.trials - automl.finalists * automl.fresh_seeds
        return sum(proposer.turn(number) == "llm" for number in range(1, new))

    def _disk(self) -> str:
        need, automl = self.need, self.study.spec.automl
        peak = f"at most {need.peak / MIB:.0f} MiB of checkpoints"
        if limit := automl.max_disk_mib:
            held = f"{peak}, so that the limit of {limit} MiB changes nothing"
            peak = held if limit * MIB >= need.peak else f"at most {limit} MiB of checkpoints as asked, {peak} without"
        each = " for each of the front" if automl.combine == "pareto" else ""
        return f"{peak}; {need.kept / MIB:.0f}{each} at the end"


def plan(spec: ExperimentSpec, *, dry_run: bool = False) -> SearchPlan:  # noqa: ARG001  # it changes nothing anyway
    """The size of the search, and the time it takes by what was measured so far."""
    from oneformer.automl.schedule import repeated_at_most

    study = study_of(spec)
    study.brain().proposer.need()
    expected = study.brain().schedule.expected()
    need = _checked(study)
    done, again, seconds = 0, 0, 0.0
    if (study.folder / FILE).is_file():
        with Ledger(study.folder, read_only=True) as ledger:
            done = sum(t.spent for t in ledger.trials.values())
            again = sum(t.repeated for t in ledger.trials.values())
            seconds = sum(r.seconds for t in ledger.trials.values() for r in t.rungs.values())
    left = max(expected.epochs - (done - again), 0) / spec.automl.max_concurrent
    eta = seconds / done * left if done else None
    tight = 0 < spec.automl.max_disk_mib * MIB < need.peak and spec.automl.algorithm != "pbt"
    return SearchPlan(study, expected, need, eta, done, repeated_at_most(study.brain().schedule) if tight else 0)


def _checked(study: Study) -> Need:
    """The disk space that the search takes. Raises SpecError when the limit on it cannot hold."""
    schedule = study.brain().schedule
    need = need_of(study.spec, schedule.expected(), whole_only=len(schedule.rungs) == 1)
    check(study.spec.automl, need)
    return need


@dataclass(frozen=True)
class Progress:
    """How far a search is."""

    study: Study
    brain: Brain
    trials: Mapping[int, Trial]
    active: bool
    ended: str = ""

    @property
    def best(self) -> Trial | None:
        """The trial to take."""
        return self.brain.best(list(self.trials.values()))

    def to_dict(self) -> dict[str, Any]:
        """Progress, best, trials and running jobs, in the shape of TAO's `query_status`."""
        best, trials = self.best, list(self.trials.values())
        records = [tao_record(t, self.brain, t.values) for t in trials]
        count = {state: sum(t.state == state for t in trials) for state in dict.fromkeys(t.state for t in trials)}
        return {
            "experiment_id": str(self.study.folder),
            "active": self.active,
            "metric": self.brain.goal.name,
            "direction": "maximize" if self.brain.goal.more else "minimize",
            "progress": {
                "total": self.brain.schedule.expected().trials,
                "completed": sum(t.ended for t in trials),
                "states": count,
                "epochs": sum(t.spent for t in trials),
                "epochs_repeated": sum(t.repeated for t in trials),
                "proposed_by": proposers(trials),
            },
            "best": records[best.id] | {"epoch": best.epochs} if best else None,
            "recommendations": records,
            "active_jobs": [f"{t.id:04d}" for t in trials if t.state == "running"],
        }

    def table(self) -> str:
        """Every trial, the first and the best of them marked."""
        from oneformer.report.tables import align

        best, goal = self.best, self.brain.goal
        keys = [d.key for d in self.study.space.dimensions]
        rows = []
        for t in self.trials.values():
            score = f"{t.rungs[t.epochs].score:.4g}" if t.rungs else "-"
            mark = "best" if best and t.id == best.id else ""
            rows.append(
                (str(t.id), t.source, t.state, str(t.epochs), score, mark, *(_shown(t.values[k]) for k in keys))
            )
        head = ("trial", "from", "state", "epochs", goal.name, "", *(k.rpartition(".")[2] for k in keys))
        lines = [align(head, rows, text_columns=3)] if rows else ["no trial yet"]
        whole = self.brain.schedule.expected()
        spent = sum(t.spent for t in self.trials.values())
        again = sum(t.repeated for t in self.trials.values())
        room = f", {again} of them once more because checkpoints had made room" if again else ""
        lines += ["", f"{len(self.trials)} of {whole.trials} trials, {spent} of about {whole.epochs} epochs{room}"]
        if self.trials:
            said = ", ".join(f"{name} {count}" for name, count in proposers(list(self.trials.values())).items())
            lines.append(f"proposed by: {said}")
        if self.ended != "done":
            lines.append("running" if self.active else "not running; oneformer automl run goes on")
        broken = [t for t in self.trials.values() if t.broken]
        lines += [f"trial {t.id} is {t.state}: {t.reason.splitlines()[0]}" for t in broken[:5]]
        for found in self.brain.verdicts(list(self.trials.values())):
            spread = "" if found.spread is None else f" +- {found.spread:.2g}"
            lost = f", {found.broken} broke" if found.broken else ""
            seeds = f"{len(found.scores)} fresh seeds{lost}"
            lines.append(f"trial {found.trial.id} again: {goal.name} {found.mean:.4g}{spread} ({seeds})")
        own = self.trials.get(0)
        if best and own and own.rungs and best.id:
            ours = own.rungs[own.epochs]
            lines.append(f"the spec's own values: {goal.name} {ours.score:.4g} after {ours.epoch} epochs")
        return "\n".join(lines)


def run(spec: ExperimentSpec, *, dry_run: bool = False, **on: str) -> Progress | Plan:
    """Start the search in its folder, or go on with it.

    Args:
        spec: what is asked for.
        dry_run: tell the files and stop.
        on: `cluster`, `trial_cpus` and `trial_gpus`: the Ray cluster that trains, and each trial's share of it.

    Raises:
        UserError: another process runs it, it has other settings, the limit on disk space is too low, or the spec
            itself cannot be trained.
        WorkError: nothing could be trained, or the disk is full.
        KeyboardInterrupt: stopped; the same command goes on.
    """
    study = study_of(spec)
    if dry_run:
        folder = study.folder
        return Plan({"spec": "(as above)"}, [str(folder / FILE), str(folder / "trials"), str(folder / "status.json")])
    study.brain().proposer.need()
    if spec.automl.max_disk_mib:
        _checked(study)
    from oneformer.automl.controller import STOP, Controller
    from oneformer.runs import RunFolder, StatusLog
    from oneformer.spec.tree import to_dict

    place = _place(spec, on)
    kept = RunFolder(spec.results_dir, "automl", section_dir=spec.automl.results_dir)
    with held(kept.path), Ledger(kept.path) as ledger, StatusLog(kept.status, "automl") as status:
        study.agree(ledger)
        kept.write_experiment(to_dict(spec), seed=spec.automl.seed)
        (kept.path / STOP).unlink(missing_ok=True)
        controller = Controller(study, ledger, place)
        try:
            ended = controller.run()
        except KeyboardInterrupt:
            raise KeyboardInterrupt("stopped; what ran is saved, and the same command goes on") from None
        done = Progress(study, controller.brain(), ledger.trials, active=False, ended=ended)
        best = done.best
        kpi = {done.brain.goal.name: best.rungs[best.epochs].score} if best else {}
        status.running(f"{len(ledger.trials)} trials.", kpi=kpi)
    return done


def _place(spec: ExperimentSpec, on: Mapping[str, str]) -> Executor:
    """Where trainings run: processes of this machine, or a cluster."""
    if on.get("cluster"):
        from oneformer.automl.on_ray import on_ray

        return on_ray(on["cluster"], cpus=on.get("trial_cpus", ""), gpus=on.get("trial_gpus", ""))
    if on:
        raise UserError("a share is of a cluster", where="--trial-cpus, --trial-gpus", hint="name it with --cluster")
    from oneformer.automl.executor import Local

    return Local(spec.automl.max_concurrent)


def status(spec: ExperimentSpec, *, dry_run: bool = False) -> Progress:  # noqa: ARG001  # nothing is written
    """Every trial, and how far the search is. Raises UserError when there is none."""
    study = study_of(spec)
    with Ledger(study.folder, read_only=True) as ledger:
        brain = study.brain(ledger.facts().get("metric", ""))
        return Progress(study, brain, ledger.trials, active=is_held(study.folder))


@dataclass(frozen=True)
class Stopped:
    """Whether the search has ended."""

    folder: Path
    over: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {"folder": str(self.folder), "stopped": self.over}

    def table(self) -> str:
        """In words."""
        return "stopped; oneformer automl run goes on" if self.over else "asked to stop; it has not ended yet"


def stop(spec: ExperimentSpec, *, dry_run: bool = False, wait_s: float = 120.0) -> Stopped | Plan:
    """Ask the process that runs the search to save what is under way and end, and wait until it has.

    Raises:
        UserError: no process runs it.
    """
    from oneformer.automl.controller import STOP

    folder = folder_of(spec)
    if dry_run:
        return Plan({}, [str(folder / STOP)])
    if not is_held(folder):
        raise UserError("no process runs this search", where=str(folder), hint="oneformer automl status shows it")
    (folder / STOP).touch()
    until = time.monotonic() + wait_s
    while is_held(folder) and time.monotonic() < until:
        time.sleep(0.2)
    return Stopped(folder, not is_held(folder))
