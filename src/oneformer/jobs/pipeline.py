"""A YAML file of steps -> jobs that follow one another, each working on the model of the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from oneformer.errors import SpecError, UserError, UserErrors
from oneformer.jobs.executors import executor_of
from oneformer.jobs.executors.base import no_order
from oneformer.jobs.fields import check_reads
from oneformer.jobs.job import Job
from oneformer.jobs.models import MAKES, Model, expected
from oneformer.jobs.store import Store
from oneformer.jobs.submit import ACTIONS, Draft, Wish, drafted, submitted

ROOT_KEYS = ("spec", "steps")
STEP_KEYS = (
    "name",
    "action",
    "spec",
    "set",
    "parent",
    "after",
    "checkpoint",
    "ptm",
    "infer",
    "executor",
    "options",
    "gpus",
    "cpus",
)


@dataclass(frozen=True)
class Step:
    """One job of a pipeline."""

    name: str
    action: str
    spec: str
    words: tuple[str, ...] = ()
    parent: str = ""
    """Name of an earlier step."""
    after: tuple[str, ...] = ()
    wishes: Mapping[str, Any] = field(default_factory=dict)


def read_pipeline(path: Path) -> list[Step]:
    """The steps of a file.

    Raises:
        UserErrors: everything that is wrong with it.
    """
    from oneformer.spec.node import read_yaml

    told = read_yaml(path).plain()
    errors: list[UserError] = [_unknown(key, ROOT_KEYS, str(path)) for key in told if key not in ROOT_KEYS]
    rows = told.get("steps")
    if not isinstance(rows, list) or not rows:
        errors.append(
            SpecError("a pipeline needs a list of steps", where=f"{path}: steps", hint="steps: [train, evaluate]")
        )
        raise UserErrors(errors)
    steps: list[Step] = []
    for number, row in enumerate(rows):
        try:
            steps.append(_step(row, steps, where=f"{path}: step {number + 1}", spec=str(told.get("spec") or "")))
        except UserError as error:
            errors.append(error)
    if errors:
        raise UserErrors(errors)
    return steps


def _step(row: Any, before: Sequence[Step], *, where: str, spec: str) -> Step:
    table = {"action": row} if isinstance(row, str) else row
    if not isinstance(table, dict):
        raise SpecError(
            "a step is an action or a table", where=where, hint="- {action: train, set: {train.num_epochs: 3}}"
        )
    for key in table:
        if key not in STEP_KEYS:
            raise _unknown(key, STEP_KEYS, where)
    action = str(table.get("action", ""))
    if action not in ACTIONS:
        raise _unknown(action, ACTIONS, where)
    names = [step.name for step in before]
    count = sum(step.action == action for step in before)
    name = str(table.get("name") or (f"{action}-{count + 1}" if count else action))
    if name in names:
        raise SpecError(f"there are two steps {name}", where=where, hint="give one of them a name of its own")
    parent = table.get("parent", names[-1] if names else "")
    parents = [str(parent)] if parent else []
    after = table.get("after") or []
    after = [str(other) for other in (after if isinstance(after, list) else [after])]
    for other in (*parents, *after):
        if other not in names:
            raise SpecError(
                f"there is no step {other} before it", where=where, hint=f"there are {', '.join(names) or 'none'}"
            )
    wishes = {
        key: table[key] for key in ("checkpoint", "ptm", "infer", "executor", "options", "gpus", "cpus") if key in table
    }
    _check_wishes(wishes, where)
    own = str(table.get("spec") or spec)
    return Step(name, action, own, _words(table.get("set"), where), "".join(parents), tuple(after), wishes)


def _check_wishes(wishes: Mapping[str, Any], where: str) -> None:
    kinds = {"infer": dict, "options": dict, "gpus": int, "cpus": int}
    for key, value in wishes.items():
        if not isinstance(value, kinds.get(key, str)) or isinstance(value, bool):
            raise SpecError(f"{key} cannot be {value!r}", where=where)


def _words(told: Any, where: str) -> tuple[str, ...]:
    """Overrides, written as a table `key: value` or a list of `key=value`."""
    from oneformer.spec.write import value_text

    if told is None:
        return ()
    if isinstance(told, dict):
        return tuple(f"{key}={value_text(value)}" for key, value in told.items())
    if isinstance(told, list) and all(isinstance(word, str) for word in told):
        return tuple(told)
    raise SpecError("set takes a table of keys and values", where=where, hint="set: {train.num_epochs: 3}")


def _unknown(key: Any, known: Sequence[str], where: str) -> SpecError:
    near = get_close_matches(str(key), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    return SpecError(f"there is no {key or 'action without a name'} here", where=where, hint=hint)


@dataclass(frozen=True)
class Pipeline:
    """Checked steps that are not on the disk yet."""

    store: Store
    steps: Sequence[Step]
    drafts: Sequence[Draft]

    def submit(self) -> list[Job]:
        """Put all of them on the disk, in their order."""
        jobs: dict[str, Job] = {}
        secrets: dict[str, Mapping[str, str]] = {}
        for step, draft in zip(self.steps, self.drafts, strict=True):
            record = draft.record
            record.parent = jobs[step.parent].id if step.parent else ""
            record.after = [jobs[name].id for name in step.after]
            secrets[step.name] = {**secrets.get(step.parent, {}), **draft.secret}
            whole = Draft(record, draft.asked, secrets[step.name], draft.warnings, draft.spec)
            jobs[step.name] = submitted(self.store, whole)
        return list(jobs.values())


def checked(file: str | Path, words: Sequence[str], jobs: str | Path = "") -> Pipeline:
    """Check all steps before the first of them is on the disk.

    Args:
        file: the YAML file.
        words: overrides of every step, behind its own.
        jobs: the folder of jobs.

    Raises:
        UserErrors: everything that is wrong with any of them.
    """
    store = Store(jobs)
    steps = read_pipeline(Path(file))
    drafts: dict[str, Draft] = {}
    errors: list[UserError] = []
    for step in steps:
        try:
            wish = Wish(jobs=jobs, **step.wishes)
            drafts[step.name] = drafted(store, step.action, step.spec or None, [*step.words, *words], wish)
            _check_order(step, drafts)
            _check_parent(step, steps, drafts)
        except UserErrors as several:
            errors += [_of_step(step, error) for error in several.errors]
        except UserError as error:
            errors.append(_of_step(step, error))
    if errors:
        raise UserErrors(errors)
    return Pipeline(store, steps, [drafts[step.name] for step in steps])


def _check_order(step: Step, drafts: Mapping[str, Draft]) -> None:
    """Raises UserError when a step's executor cannot let it wait for what comes first."""
    record = drafts[step.name].record
    for name in filter(None, [step.parent, *step.after]):
        if not executor_of(record.executor).chains:
            raise no_order(record)
        if name in drafts and record.executor not in ("local", drafts[name].record.executor):
            raise UserError(f"{record.executor} cannot wait for {name}, which is no job of its own")


def _check_parent(step: Step, steps: Sequence[Step], drafts: Mapping[str, Draft]) -> None:
    """Raises SpecError when the model that a step will get is none that it can read."""
    named = {other.name: other for other in steps}
    maker = named.get(step.parent)
    while maker and maker.action not in MAKES:
        maker = named.get(maker.parent)
    spec = drafts[step.name].spec
    made = drafts.get(maker.name) if maker else None
    if maker and made and made.spec and spec:
        check_reads(drafts[step.name].record, spec, Model(Path(), expected(maker.action, made.spec), maker.name))


def _of_step(step: Step, error: UserError) -> UserError:
    where = f"step {step.name}: {error.where}" if error.where else f"step {step.name}"
    return type(error)(error.what, where=where, hint=error.hint)
