"""What is to be run -> jobs that wait, run and end without the terminal, and what became of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oneformer.errors import UserError

if TYPE_CHECKING:
    from oneformer.jobs.job import Job
    from oneformer.jobs.record import Record
    from oneformer.jobs.store import Store
    from oneformer.jobs.submit import Draft


@dataclass(frozen=True)
class Jobs:
    """Some jobs, one line for each."""

    told: Sequence[dict[str, Any]]
    none: str = "no jobs"
    end: str = ""
    """What to do next, below the table."""

    def to_dict(self) -> dict[str, Any]:
        """Their records."""
        return {"jobs": [*self.told]}

    def table(self) -> str:
        """State, action, what they wait for and why they are as they are."""
        from oneformer.report.tables import align

        if not self.told:
            return self.none
        rows = [
            (
                job["id"],
                job["state"],
                _when(job),
                ", ".join(filter(None, [job["parent"], *job["after"]])),
                _short(job),
            )
            for job in self.told
        ]
        text = align(("job", "state", "since", "after", "why"), rows, text_columns=5)
        return f"{text}\n\n{self.end}" if self.end else text


def _when(job: dict[str, Any]) -> str:
    return str(job["ended"] or job["started"])[:19].replace("T", " ")


def _short(job: dict[str, Any]) -> str:
    line = str(job["message"]).partition("\n")[0]
    return line if len(line) <= 100 else f"{line[:97]}..."


@dataclass(frozen=True)
class Planned:
    """What would be submitted."""

    drafts: Sequence[Draft]

    def to_dict(self) -> dict[str, Any]:
        """The records and their specs."""
        return {"jobs": [{**draft.record.to_dict(), "spec": draft.asked} for draft in self.drafts]}

    def table(self) -> str:
        """Each job's spec, what it needs and what it waits for."""
        return "\n\n".join(_plan(draft) for draft in self.drafts)


def _plan(draft: Draft) -> str:
    record = draft.record
    after = f", after {', '.join(record.waits_for)}" if record.waits_for else ""
    head = f"would submit {record.action} to {record.executor}: {record.gpus} GPUs, {record.cpus} processors{after}"
    return f"{draft.asked}\n{head}"


def submit(
    action: str, *, experiment_spec: str | None, words: Sequence[str], dry_run: bool, **options: str | None
) -> Jobs | Planned:
    """Check a spec and let its action wait for its turn.

    Raises:
        UserError: the spec is wrong, a job it is to follow does not exist or has failed, or it could never run.
    """
    from oneformer.jobs.store import Store
    from oneformer.jobs.submit import drafted, submitted

    wish = _wish(options)
    store = Store(wish.jobs)
    draft = drafted(store, action, experiment_spec, words, wish)
    for warning in draft.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    if dry_run:
        return Planned([draft])
    job = submitted(store, draft)
    return Jobs([job.to_dict()], end=f"its folder: {job.folder}\nfollow it: oneformer jobs logs -f {job.id}")


def pipeline(file: str, *, words: Sequence[str], dry_run: bool, jobs: str | None) -> Jobs | Planned:
    """Submit every step of a file, each after the one before and on its model.

    Raises:
        UserErrors: everything that is wrong with any step; then none is submitted.
    """
    from oneformer.jobs.pipeline import checked

    chain = checked(file, words, jobs or "")
    for warning in dict.fromkeys(warning for draft in chain.drafts for warning in draft.warnings):
        sys.stderr.write(f"warning: {warning}\n")
    if dry_run:
        return Planned(chain.drafts)
    made = chain.submit()
    return Jobs([job.to_dict() for job in made], end=f"follow the last: oneformer jobs logs -f {made[-1].id}")


def _wish(options: dict[str, str | None]) -> Any:
    """The options of the command line as fields of `Wish`."""
    from oneformer.jobs.submit import Wish

    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    for name in ("gpus", "cpus"):
        if name in given:
            given[name] = _count(given[name], name)
    if "after" in given:
        given["after"] = tuple(filter(None, given["after"].split(",")))
    if "options" in given:
        given["options"] = dict(part.partition("=")[::2] for part in given["options"].split(",") if part)
    if "infer" in given:
        given["infer"] = _functions(given["infer"])
    return Wish(**given)


def _functions(text: str) -> dict[str, Any]:
    """`key=function,key=function`, or a YAML table with literal values and links too."""
    from oneformer.errors import SpecError
    from oneformer.spec.node import parse_yaml

    if text.lstrip().startswith("{"):
        found = parse_yaml(text, "--infer").plain()
    else:
        found = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    if not isinstance(found, dict) or not found:
        raise SpecError(
            f"{text!r} fills in nothing", where="--infer", hint="for example evaluate.checkpoint=parent_model"
        )
    return {str(key): value for key, value in found.items()}


def _count(text: str, name: str) -> int:
    if not text.isdecimal():
        raise UserError(f"{text!r} is no number", where=f"--{name}")
    return int(text)


def status(ids: Sequence[str], *, jobs: str | None) -> Jobs:
    """The state of some jobs."""
    return Jobs([job.to_dict() for job in _named(ids, jobs)])


def _named(ids: Sequence[str], jobs: str | None) -> tuple[Job, ...]:
    from oneformer.jobs.job import Job

    if not ids:
        raise UserError("no job is named", where="oneformer jobs", hint="oneformer jobs list shows them")
    return tuple(Job(name, jobs or "") for name in ids)


def logs(id: str, *, follow: bool, jobs: str | None) -> None:
    """Print what a job has said; with `follow` until it has ended.

    Raises:
        UserError: there is no such job.
    """
    (job,) = _named([id], jobs)
    if not follow:
        sys.stdout.write(job.log)
        return
    state = job.follow(_tell)
    sys.stderr.write(f"{job.id}: {state}{': ' if job.message else ''}{job.message}\n")


def _tell(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def cancel(ids: Sequence[str], *, jobs: str | None) -> Jobs:
    """Take jobs back, or ask those that run to end, and wait a little for that."""
    named = _named(ids, jobs)
    for job in named:
        job.cancel()
    for job in named:
        job.wait(timeout_s=5.0)
    return Jobs([job.to_dict() for job in named])


def retry(ids: Sequence[str], *, jobs: str | None) -> Jobs:
    """Let jobs that have ended without success run again, in their own folders."""
    named = _named(ids, jobs)
    for job in named:
        job.retry()
    return Jobs([job.to_dict() for job in named])


@dataclass(frozen=True)
class Shown:
    """One job in full."""

    told: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The record, what was filled in, and where the files are."""
        return self.told

    def table(self) -> str:
        """A line for each fact."""
        from oneformer.report.tables import align

        told, run = self.told, self.told["run"] or {}
        facts = {
            "state": told["state"],
            "why": told["message"],
            "parent": told["parent"],
            "after": ", ".join(told["after"]),
            "executor": " ".join(filter(None, [told["executor"], told["external"]])),
            "needs": f"{told['gpus']} GPUs, {told['cpus']} processors",
            "runs on": f"{run['process']['host']}, process {run['process']['pid']}" if run else "",
            "GPUs": ", ".join(run.get("gpus", [])),
            "attempt": str(told["attempt"]),
            "started": told["started"],
            "ended": told["ended"],
            "exit code": "" if told["exit_code"] is None else str(told["exit_code"]),
        }
        facts |= {
            key: f"{how['value']} ({' '.join(filter(None, [how['function'], how.get('job', '')]))})"
            for key, how in told["inferred"].items()
        }
        facts |= told["files"]
        rows = [(name, fact.replace("\n", " ")) for name, fact in facts.items() if fact]
        return align(("job", told["id"]), rows, text_columns=2)


def show(id: str, *, jobs: str | None) -> Shown:
    """Everything that is known of one job."""
    (job,) = _named([id], jobs)
    return Shown(job.to_dict())


def _told(store: Store, record: Record) -> dict[str, Any]:
    from oneformer.jobs.settle import state_of

    state, message = state_of(store, record)
    return {**record.to_dict(), "state": state, "message": message, "folder": str(store.folder(record.id))}


def list(*, jobs: str | None) -> Jobs:
    """Every job, as they were submitted."""
    from oneformer.jobs.job import all_refreshed
    from oneformer.jobs.store import Store

    store = Store(jobs or "")
    none = f"no jobs in {store.root}" if store.root.is_dir() else f"no jobs: there is no folder {store.root}"
    return Jobs([_told(store, record) for record in all_refreshed(store)], none)
