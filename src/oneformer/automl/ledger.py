"""Everything that happens in a search -> one SQLite file that survives a kill at any moment, and the trials out of it.

One process writes (`held`); others may read meanwhile. Each change is one transaction that is on disk before the call
returns: write-ahead log, full synchronisation. SQLite's own checksums drop a transaction that was torn.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from oneformer.automl.trial import STATES, Checkpoint, Finished, Origin, Rung, Trial
from oneformer.errors import UserError, WorkError
from oneformer.runs.atomic import plain

FILE, LOCK = "study.sqlite", "controller.lock"
CURVE = "curve"  # the name under which the searched metric of every epoch is kept
PROPOSED = "proposed"  # the event that keeps what came with the values of a trial
DROPPED, FINISHED = "checkpoint dropped", "finished"  # those that tell which epochs were trained once more
_OF_THE_DISK = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
_TABLES = """
CREATE TABLE IF NOT EXISTS study (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trial (
  id INTEGER PRIMARY KEY, point TEXT NOT NULL, source TEXT NOT NULL, bracket INTEGER NOT NULL,
  state TEXT NOT NULL, reason TEXT NOT NULL, retries INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS origin (
  trial INTEGER PRIMARY KEY REFERENCES trial, parent INTEGER NOT NULL REFERENCES trial, epoch INTEGER NOT NULL,
  seed INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS lease (
  trial INTEGER PRIMARY KEY REFERENCES trial, epoch INTEGER NOT NULL, owner TEXT NOT NULL, until REAL NOT NULL);
CREATE TABLE IF NOT EXISTS rung (
  place INTEGER PRIMARY KEY, trial INTEGER NOT NULL REFERENCES trial, epoch INTEGER NOT NULL, score REAL NOT NULL,
  seconds REAL NOT NULL, UNIQUE (trial, epoch));
CREATE TABLE IF NOT EXISTS metric (
  trial INTEGER NOT NULL REFERENCES trial, epoch INTEGER NOT NULL, name TEXT NOT NULL, value REAL NOT NULL,
  PRIMARY KEY (trial, epoch, name));
CREATE TABLE IF NOT EXISTS checkpoint (
  trial INTEGER PRIMARY KEY REFERENCES trial, epoch INTEGER NOT NULL, path TEXT NOT NULL, digest TEXT NOT NULL,
  size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS event (
  id INTEGER PRIMARY KEY, at REAL NOT NULL, what TEXT NOT NULL, trial INTEGER, detail TEXT NOT NULL);
"""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """While open, this process is the only one that may change the search in `folder`; a killed one lets go at once.

    Raises:
        UserError: another process holds it.
        WorkError: the disk is full or fails.
    """
    lock = sqlite3.connect(folder / LOCK, timeout=0, isolation_level=None)
    with closing(lock):
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in _OF_THE_DISK:
                raise WorkError(f"the search cannot be held: {error}", where=str(folder), hint=_free(folder)) from error
            what = "another process is running this search"
            hint = "oneformer automl status shows it, oneformer automl stop ends it"
            raise UserError(what, where=str(folder), hint=hint) from error
        yield


def _free(folder: Path) -> str:
    """What to do about a disk that took nothing: SQLite does not always say that it is full."""
    free = shutil.disk_usage(folder).free >> 20
    return f"{free} MiB are free there; everything that was recorded is kept, and the same command goes on"


def is_held(folder: Path) -> bool:
    """Whether a process runs the search in `folder`."""
    if not (folder / LOCK).is_file():
        return False
    try:
        with held(folder):
            return False
    except WorkError:
        return False  # whoever held it would have been told of first
    except UserError:
        return True


class Ledger:
    """The record of one search.

    Args:
        folder: where the file lies; with `read_only` it has to be there.
        read_only: look only; whoever runs the search is not disturbed.

    Raises:
        UserError: there is no search, or the file is not one of ours.
        WorkError: the disk is full or fails; what was there before is untouched.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.path = folder / FILE
        hint = "oneformer automl run starts one"
        no_search = UserError("there is no search in this folder", where=str(folder), hint=hint)
        if read_only and not self.path.is_file():
            raise no_search
        address = f"{self.path.resolve().as_uri()}{'?mode=ro' if read_only else ''}"
        self._base = sqlite3.connect(address, uri=True, isolation_level=None, timeout=10)
        try:
            if not read_only:
                self._base.execute("PRAGMA journal_mode=WAL")
                self._base.execute("PRAGMA synchronous=FULL")
                self._base.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")
            elif not self._base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise no_search  # one that was cut off before it began
            self._base.execute("BEGIN")  # so that all of it is of one moment, while another process writes
            self.trials = self._read()
            self._base.execute("COMMIT")
        except (sqlite3.DatabaseError, UserError) as error:
            self._base.close()
            if isinstance(error, UserError):
                raise
            if error.sqlite_errorcode & 0xFF in _OF_THE_DISK:
                raise self._refused(f"the record cannot be opened: {error}") from error
            hint = "another folder (automl.results_dir) starts anew"
            raise UserError(f"this is no record of a search: {error}", where=str(self.path), hint=hint) from error

    def _refused(self, what: str) -> WorkError:
        return WorkError(what, where=str(self.path), hint=_free(self.path.parent))

    def close(self) -> None:
        """No more changes."""
        self._base.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> dict[int, Trial]:
        found: dict[int, Trial] = {}
        for number, point, source, bracket, *more in self._base.execute(
            "SELECT id, point, source, bracket, state, reason, retries FROM trial ORDER BY id"
        ):
            found[number] = Trial(number, json.loads(point), source, bracket, None, *more)
        for number, *origin in self._base.execute("SELECT trial, parent, epoch, seed FROM origin"):
            found[number].origin = Origin(*origin)
        measured: dict[tuple[int, int], dict[str, float]] = {}
        for number, epoch, name, value in self._base.execute(
            "SELECT trial, epoch, name, value FROM metric ORDER BY epoch"
        ):
            if name == CURVE:
                found[number].curve[epoch] = value
            else:
                measured.setdefault((number, epoch), {})[name] = value
        for place, number, epoch, score, seconds in self._base.execute(
            "SELECT place, trial, epoch, score, seconds FROM rung ORDER BY place"
        ):
            found[number].rungs[epoch] = Rung(epoch, score, seconds, place, measured.get((number, epoch), {}))
        self._read_lost(found)
        for number, epoch in self._base.execute("SELECT trial, epoch FROM lease"):
            found[number].target = epoch
        for number, note in self._base.execute("SELECT trial, detail FROM event WHERE what = ?", (PROPOSED,)):
            found[number].note = json.loads(note)
        return found

    def _read_lost(self, found: Mapping[int, Trial]) -> None:
        """What was trained once more, and will have to be, by the order of what happened."""
        reached = {number: trial.begun for number, trial in found.items()}
        for number, what, detail in self._base.execute(
            "SELECT trial, what, detail FROM event WHERE what IN (?, ?) ORDER BY id", (DROPPED, FINISHED)
        ):
            trial = found[number]
            if what == DROPPED:
                trial.lost = reached[number] - trial.begun
                continue
            reached[number] = epoch = json.loads(detail)["epoch"]
            trial.rungs[epoch] = replace(trial.rungs[epoch], again=trial.lost)
            trial.lost = 0

    @contextmanager
    def _change(self, what: str, trial: int | None, detail: object = "") -> Iterator[sqlite3.Connection]:
        """One transaction with its event: all of it is written, or nothing."""
        try:
            self._base.execute("BEGIN IMMEDIATE")
            yield self._base
            self._base.execute(
                "INSERT INTO event (at, what, trial, detail) VALUES (?, ?, ?, ?)",
                (time.time(), what, trial, detail if isinstance(detail, str) else _json(detail)),
            )
            self._base.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):
                self._base.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError):
                raise self._refused(f"the search cannot be recorded: {error}") from error
            raise

    def facts(self) -> dict[str, Any]:
        """What the search stands on: space, settings, seed."""
        return {key: json.loads(value) for key, value in self._base.execute("SELECT key, value FROM study")}

    def set_facts(self, facts: Mapping[str, Any]) -> None:
        """Write down what the search stands on."""
        rows = [(key, _json(value)) for key, value in facts.items()]
        with self._change("facts", None, sorted(facts)) as base:
            base.executemany("INSERT OR REPLACE INTO study (key, value) VALUES (?, ?)", rows)

    def add(
        self,
        values: Mapping[str, Any],
        *,
        source: str,
        bracket: int = 0,
        origin: Origin | None = None,
        note: Mapping[str, Any] | None = None,
    ) -> Trial:
        """A new trial, numbered on from 0; `note` is what came with its values."""
        made = Trial(len(self.trials), dict(values), source, bracket, origin, note=dict(note or {}))
        with self._change("added", made.id, source) as base:
            row = (made.id, _json(made.values), source, bracket, made.state, "", 0)
            base.execute("INSERT INTO trial VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            if made.note:
                event = (time.time(), PROPOSED, made.id, _json(made.note))
                base.execute("INSERT INTO event (at, what, trial, detail) VALUES (?, ?, ?, ?)", event)
            if origin:
                base.execute(
                    "INSERT INTO origin VALUES (?, ?, ?, ?)", (made.id, origin.trial, origin.epoch, origin.seed)
                )
        self.trials[made.id] = made
        return made

    def tell(self, what: str, detail: object, *, trial: int | None = None) -> None:
        """Something that happened and changes no trial."""
        with self._change(what, trial, detail):
            pass

    def lease(self, trial: Trial, epoch: int, *, owner: str, until: float) -> None:
        """The trial runs to `epoch` in the hands of `owner`, who renews the lease before `until` (seconds, Unix)."""
        assert epoch > trial.epochs, f"trial {trial.id} has finished epoch {epoch} already"
        with self._moved(trial, "running", "leased", detail={"epoch": epoch, "owner": owner}) as base:
            base.execute("INSERT INTO lease VALUES (?, ?, ?, ?)", (trial.id, epoch, owner, until))
        trial.target = epoch

    def renew(self, trial: Trial, *, until: float) -> None:
        """The trial is still being worked on."""
        with self._change("renewed", trial.id) as base:
            base.execute("UPDATE lease SET until = ? WHERE trial = ?", (until, trial.id))

    def finish(self, trial: Trial, done: Finished, *, last: bool) -> None:
        """The trial has reached the epoch it was leased for; with `last` it is complete."""
        epoch = trial.target
        with self._moved(trial, "done" if last else "paused", FINISHED, detail={"epoch": epoch}) as base:
            entry = (trial.id, epoch, done.score, done.seconds)
            place = base.execute("INSERT INTO rung (trial, epoch, score, seconds) VALUES (?, ?, ?, ?)", entry).lastrowid
            metrics = [(trial.id, epoch, name, value) for name, value in done.metrics.items()]
            metrics += [(trial.id, at, CURVE, value) for at, value in done.curve.items()]
            base.executemany("INSERT OR REPLACE INTO metric VALUES (?, ?, ?, ?)", metrics)
            if done.checkpoint:
                file = done.checkpoint
                row = (trial.id, epoch, file.path, file.digest, file.size)
                base.execute("INSERT OR REPLACE INTO checkpoint VALUES (?, ?, ?, ?, ?)", row)
        assert place is not None, "SQLite numbers what is inserted"
        trial.rungs[epoch] = Rung(epoch, done.score, done.seconds, place, dict(done.metrics), trial.lost)
        trial.lost = 0
        trial.curve |= done.curve

    def end(self, trial: Trial, state: str, reason: str) -> None:
        """The trial ends as `failed` or `infeasible`."""
        with self._moved(trial, state, state, detail=reason) as base:
            base.execute("UPDATE trial SET reason = ? WHERE id = ?", (reason, trial.id))
        trial.reason = reason

    def put_back(self, trial: Trial, reason: str, *, retry: bool) -> None:
        """A running trial waits again, at its last rung; with `retry` this counts as a try that failed."""
        with self._moved(trial, "paused" if trial.rungs else "waiting", "put back", detail=reason) as base:
            counted = trial.retries + retry
            base.execute("UPDATE trial SET reason = ?, retries = ? WHERE id = ?", (reason, counted, trial.id))
        trial.reason, trial.retries = reason, counted

    def reclaim(self) -> list[Trial]:
        """Put back what a process that is gone was running. Call it while `held`: no other can be alive."""
        found = [trial for trial in self.trials.values() if trial.state == "running"]
        for trial in found:
            self.put_back(trial, "the search was interrupted", retry=False)
        return found

    @contextmanager
    def _moved(self, trial: Trial, state: str, what: str, *, detail: object) -> Iterator[sqlite3.Connection]:
        assert state in STATES[trial.state], f"trial {trial.id} cannot go from {trial.state} to {state}"
        with self._change(what, trial.id, detail) as base:
            base.execute("UPDATE trial SET state = ? WHERE id = ?", (state, trial.id))
            if trial.state == "running":
                base.execute("DELETE FROM lease WHERE trial = ?", (trial.id,))
            yield base
        trial.state, trial.target = state, 0

    def checkpoint(self, trial: Trial) -> Checkpoint | None:
        """The file of the trial's score."""
        row = self._base.execute("SELECT path, digest, size FROM checkpoint WHERE trial = ?", (trial.id,)).fetchone()
        return Checkpoint(*row) if row else None

    def drop_checkpoint(self, trial: Trial) -> None:
        """The file is about to be removed."""
        with self._change(DROPPED, trial.id) as base:
            base.execute("DELETE FROM checkpoint WHERE trial = ?", (trial.id,))
        trial.lost = trial.epochs - trial.begun

    def metrics(self, trial: Trial) -> dict[int, dict[str, float]]:
        """Epoch -> scores by name, of every rung; `curve` is the searched metric at any epoch."""
        found: dict[int, dict[str, float]] = {}
        rows = self._base.execute("SELECT epoch, name, value FROM metric WHERE trial = ? ORDER BY epoch", (trial.id,))
        for epoch, name, value in rows:
            found.setdefault(epoch, {})[name] = value
        return found

    def events(self) -> list[tuple[float, str, int | None, str]]:
        """(Unix time, what, trial, detail) in order."""
        return list(self._base.execute("SELECT at, what, trial, detail FROM event ORDER BY id"))


def _json(value: Any) -> str:
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
