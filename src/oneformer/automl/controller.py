"""A search and a place to train -> trials started, collected, put back and ended, until the schedule has no more."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from oneformer.automl.advise import Advisor, advisor_of
from oneformer.automl.brain import Brain, sampler_of
from oneformer.automl.executor import Executor, Running
from oneformer.automl.ledger import Ledger
from oneformer.automl.propose import ADVISED
from oneformer.automl.retention import MIB, RUNNING, checkpoint_bytes, making_room, used
from oneformer.automl.schedule import Step
from oneformer.automl.study import RECORDS, Study, digest_of, recorded_as
from oneformer.automl.trial import Checkpoint, Finished, Trial
from oneformer.automl.worker import OUTCOME, SPEC
from oneformer.errors import UserError, WorkError
from oneformer.runs.atomic import write_text

log = logging.getLogger(__name__)

STOP = "stop"
BEST, STATES = "oneformer_model_best.pth", "model_epoch_*.pth"  # what a training calls its checkpoints
LEASE_S, RENEW_S = 180.0, 45.0
POLL_S = 0.2
GIVE_UP = 3  # trials that end without a score before any has one
ROOM = 2**20  # bytes of a disk below which a training that left no word is taken to have found no place for it
KEPT = "everything that was finished is kept; free some space and start again"
TIDY = 100  # proposals in a row that the spec's own rules forbid


class _Stopped(Exception):
    """Somebody has asked to stop while a language model was waited for."""


@dataclass
class Controller:
    """Runs one search; the caller holds its folder."""

    study: Study
    ledger: Ledger
    executor: Executor
    running: dict[int, Running] = field(default_factory=dict)
    _renewed: float = 0.0
    _brains: dict[str, Brain] = field(default_factory=dict)

    def run(self) -> str:
        """Go on until all is done or somebody asks to stop; why it ended: "done" or "stopped".

        Raises:
            UserError: the spec itself cannot be trained.
            WorkError: nothing that was tried could be trained, or the disk is full.
            KeyboardInterrupt: the user stopped it; what ran is saved and goes on with the next start.
        """
        self.ledger.reclaim()
        try:
            for trial in self.trials:
                self._drop_older(trial)
            if not self.trials:
                self.brain().proposer.greet()
            while True:
                self._collect()
                if (self.study.folder / STOP).exists():
                    return "stopped"
                self._start()
                if not self.running:
                    self._drop(self.brain(), over=True)
                    return "done"
                self._renew()
                time.sleep(POLL_S)
        except _Stopped:
            return "stopped"
        except OSError as error:  # of a file or a process; those of the record are told by itself
            what = f"the search cannot go on: {error.strerror or error}"
            raise WorkError(what, where=str(error.filename or self.study.folder), hint=KEPT) from error
        finally:
            self._stop()

    @property
    def trials(self) -> list[Trial]:
        """All trials by number."""
        return list(self.ledger.trials.values())

    def brain(self) -> Brain:
        """The brain, with the metric if it is known already."""
        metric = self.ledger.facts().get("metric", "")
        if metric not in self._brains:
            self._brains[metric] = self.study.brain(metric, self.advisor)
        return self._brains[metric]

    @cached_property
    def advisor(self) -> Advisor | None:
        """The language model that is asked for trials, where one is."""
        study, name = self.study, sampler_of(self.study.spec.automl)
        if name not in ADVISED:
            return None
        return advisor_of(
            study.spec.automl.llm,
            needed_for=name,
            faults=lambda values: study.space.faults(study.spec, values),
            tell=self.ledger.tell,
            wait=self._patience,
        )

    def _patience(self, seconds: float) -> None:
        """Let time pass until the language model is asked again."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if (self.study.folder / STOP).exists():
                raise _Stopped
            self._renew()
            time.sleep(min(max(POLL_S, 0.01), left))

    def _start(self) -> None:
        automl = self.study.spec.automl
        while len(self.running) < automl.max_concurrent:
            brain = self.brain()
            step = brain.schedule.next(self.trials)
            if step is None:
                return
            trial = step.trial
            if trial is None:
                trial = self._new(brain, step)
                if trial.ended:
                    continue
            folder = self.study.trial_folder(trial)
            folder.mkdir(parents=True, exist_ok=True)
            self._make_room(trial)
            self._inherit(trial, folder / "train")
            _write_spec(folder / SPEC, self.study, trial)
            (folder / OUTCOME).unlink(missing_ok=True)
            owner = f"{socket.gethostname()}:{os.getpid()}"
            self.ledger.lease(trial, step.epoch, owner=owner, until=time.time() + LEASE_S)
            whole = self.study.spec.train.num_epochs
            log.info("trial %d (%s): epoch %d to %d of %d", trial.id, trial.source, trial.epochs, step.epoch, whole)
            self.running[trial.id] = self.executor.start(folder, self.study.epoch_for(step.epoch))

    def _make_room(self, trial: Trial) -> None:
        """Remove the least promising checkpoints where another training would not fit below the limit."""
        limit = self.study.spec.automl.max_disk_mib * MIB
        if not limit:
            return
        brain, training = self.brain(), {*self.running, trial.id}
        files = {t.id: used(self._files(t)) for t in self.trials}
        largest = max((size for found in files.values() for size in found.values()), default=0)
        room = limit - RUNNING * max(largest, self.checkpoint_bytes) * len(training)
        resting = {number: sum(found.values()) for number, found in files.items() if number not in training}
        keep = brain.wanted(self.trials, over=self.study.spec.automl.algorithm != "pbt")
        for other in making_room(self.trials, resting, keep=keep, ranks=brain.goal.ranks, room=room):
            log.info("trial %d makes room: if it is promoted after all, it starts from the beginning", other.id)
            self._drop_files(other)

    @cached_property
    def checkpoint_bytes(self) -> int:
        """Of one checkpoint, before there is any."""
        return checkpoint_bytes(self.study.spec)

    def _inherit(self, trial: Trial, folder: Path) -> None:
        """Give a trial that goes on from another one's weights second names of its checkpoints, once."""
        if not trial.begun or any(folder.glob(STATES)):
            return
        assert trial.origin is not None
        parent = self.ledger.trials[trial.origin.trial]
        source = self.study.trial_folder(parent)
        record = self.ledger.checkpoint(parent)
        best = [(self.study.folder / record.path, BEST)] if record else []
        folder.mkdir(exist_ok=True)
        # The state last: while it is missing, this is done again.
        for path, name in [*best, *((p, p.name) for p in sorted(source.glob(f"train/{STATES}"))[-1:])]:
            if path.is_file():
                _linked(path, folder / name)

    def _new(self, brain: Brain, step: Step) -> Trial:
        proposal = brain.proposal(self.trials, step)
        trial = self.ledger.add(
            proposal.values, source=proposal.source, bracket=step.bracket, origin=step.origin, note=proposal.note
        )
        if trial.id and (faults := self.study.space.faults(self.study.spec, proposal.values)):
            self.ledger.end(trial, "infeasible", faults[0])
            log.info("trial %d cannot be trained: %s", trial.id, faults[0])
            if all(t.state == "infeasible" for t in self.trials[-TIDY:]) and len(self.trials) > TIDY:
                raise UserError(f"no setting that is tried can be trained: {faults[0]}", where="automl.ranges")
        return trial

    def _collect(self) -> None:
        for number, running in list(self.running.items()):
            if running.over():
                running.stop()
                del self.running[number]
                self._take(self.ledger.trials[number])

    def _take(self, trial: Trial) -> None:
        """What a training has left -> the ledger."""
        folder = self.study.trial_folder(trial)
        outcome = self._outcome(trial, folder)
        kind, reason = outcome["kind"], outcome.get("reason", "")
        if kind == "done":
            self._finish(trial, outcome, folder)
        elif kind in ("interrupted", "disk"):
            self.ledger.put_back(trial, reason, retry=False)
            if kind == "disk":
                raise WorkError(reason, where=str(folder), hint=KEPT)
        elif kind in ("memory", "shape", "request"):
            self._end(trial, "infeasible", f"{kind}: {reason}")
        elif kind == "diverged":
            self._end(trial, "failed", reason)
        elif trial.retries < self.study.spec.automl.retries:
            log.warning("trial %d broke off and is tried again: %s", trial.id, reason)
            self.ledger.put_back(trial, reason, retry=True)
        else:
            self._end(trial, "failed", f"{trial.retries + 1} tries broke off, the last: {reason}")

    def _outcome(self, trial: Trial, folder: Path) -> dict[str, Any]:
        """What the training has said at its end; one that was cut off says nothing, or something of an older start."""
        try:
            found = json.loads((folder / OUTCOME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
        if found.get("epoch") == self.study.epoch_for(trial.target):
            return dict(found)
        if shutil.disk_usage(folder).free < ROOM:
            return {"kind": "disk", "reason": "no space left on the disk, not even for what a training says at its end"}
        return {"kind": "fault", "reason": "the process was ended from outside, and left nothing"}

    def _finish(self, trial: Trial, outcome: dict[str, Any], folder: Path) -> None:
        result = outcome["result"]
        value, metric = result["best"]["value"], result["best"]["metric"]
        metrics = {k: v for k, v in result["metrics"].items() if isinstance(v, int | float) and math.isfinite(v)}
        score = None if value is None else self.brain().goal.score(value, metrics)
        if score is None:
            wanted = [part.metric for part in self.brain().goal.parts] or [metric]
            missing = [name for name in wanted if value is None or name not in metrics]
            self._end(trial, "failed", f"no validation has given a {' and a '.join(missing or [metric])}")
            return
        if "metric" not in self.ledger.facts():
            self.ledger.set_facts({"metric": metric})
        curve = {int(epoch): value for epoch, value in outcome["curve"].items()}
        done = Finished(score, outcome["seconds"], metrics, curve, self._keep(folder, trial.target))
        brain = self.brain()
        self.ledger.finish(trial, done, last=trial.target == brain.schedule.rungs[-1])
        self._drop_older(trial)
        log.info("trial %d: %s %.4g after %d epochs", trial.id, brain.goal.name, score, trial.epochs)
        self._drop(brain, over=False)

    def _keep(self, folder: Path, epoch: int) -> Checkpoint | None:
        """A second name for the best checkpoint, which later parts of the training leave alone."""
        best, record = folder / "train" / BEST, folder / recorded_as(epoch)
        if not best.is_file():
            return None
        _linked(best, record)
        return Checkpoint(str(record.relative_to(self.study.folder)), digest_of(record), record.stat().st_size)

    def _end(self, trial: Trial, state: str, reason: str) -> None:
        self.ledger.end(trial, state, reason)
        log.warning("trial %d is %s: %s", trial.id, state, reason)
        if trial.source == "own" and state == "infeasible":
            hint = f"{self.study.trial_folder(trial)} holds its log"
            raise UserError(f"the spec itself cannot be trained: {reason}", where="trial 0", hint=hint)
        ended = [t for t in self.trials if t.broken]
        if len(ended) >= GIVE_UP and not any(t.rungs for t in self.trials):
            hint = f"{self.study.trial_folder(trial)} holds its log"
            raise WorkError(f"{len(ended)} trials have ended and none has a score, the last: {reason}", hint=hint)
        self._drop_files(trial)

    def _drop(self, brain: Brain, *, over: bool) -> None:
        """Remove what will never be asked for again; any trial can be had again by training it, bit for bit."""
        wanted = brain.wanted(self.trials, over=over)
        for trial in self.trials:
            if trial.id not in wanted and trial.state != "running":
                self._drop_files(trial)

    def _drop_files(self, trial: Trial) -> None:
        files = self._files(trial)
        if not files:
            return
        self.ledger.drop_checkpoint(trial)
        for path in files:
            path.unlink(missing_ok=True)

    def _drop_older(self, trial: Trial) -> None:
        """Remove the files of scores that the record no longer names, or does not name yet."""
        found = list(self.study.trial_folder(trial).glob(RECORDS))
        named = self.ledger.checkpoint(trial) if found else None
        for path in found:
            if named is None or path != self.study.folder / named.path:
                path.unlink(missing_ok=True)

    def _files(self, trial: Trial) -> list[Path]:
        folder = self.study.trial_folder(trial)
        ends, places = ("*.pth", "*.part"), (folder, folder / "train")
        return [path for place in places for end in ends for path in place.glob(end)]

    def _renew(self) -> None:
        if time.monotonic() - self._renewed > RENEW_S:
            self._renewed = time.monotonic()
            for number in self.running:
                self.ledger.renew(self.ledger.trials[number], until=time.time() + LEASE_S)

    def _stop(self) -> None:
        """Let everything that runs save its last step, all at the same time, and put it back."""
        stopping: list[Callable[[], None]] = [running.stop for running in self.running.values()]
        if not stopping:
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(len(stopping)) as pool:
            list(pool.map(lambda stop: stop(), stopping))
        for number in list(self.running):
            trial = self.ledger.trials[number]
            del self.running[number]
            if trial.state == "running":
                self.ledger.put_back(trial, "the search was stopped", retry=False)


def _linked(source: Path, target: Path) -> None:
    """A second name for a file, a copy where the disk has none."""
    part = target.with_suffix(".part")
    part.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), part)
    except OSError:
        shutil.copyfile(source, part)
    part.replace(target)


def _write_spec(path: Path, study: Study, trial: Trial) -> None:
    """What the trial's spec says beyond the defaults, for nobody else to read: addresses of data may carry logins."""
    from oneformer.spec.write import changed_from_default, to_yaml

    spec = study.trial_spec(trial)
    write_text(path, to_yaml(spec, keys=changed_from_default(spec), comments=False))
    path.chmod(0o600)
