"""An action, a spec and what it goes on from -> a job that waits for its turn."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from oneformer.errors import UserError
from oneformer.jobs import slots
from oneformer.jobs.fields import check_infer, check_own_files, check_reads, takes_parent
from oneformer.jobs.job import Job
from oneformer.jobs.models import Model, check_choice, expected, made, maker
from oneformer.jobs.record import CANCELED, COMPLETE, ENDED, Record
from oneformer.jobs.resolve import load_asked
from oneformer.jobs.seal import sealed
from oneformer.jobs.store import Store
from oneformer.runs.key import reading_key

if TYPE_CHECKING:
    from oneformer.spec import ExperimentSpec

ACTIONS = ("train", "evaluate", "inference", "export", "quantize", "gen_trt_engine")


@dataclass(frozen=True)
class Wish:
    """What is asked for beside action and spec."""

    jobs: str | Path = ""
    """The folder of jobs; empty takes that of ONEFORMER_JOBS, else `jobs`."""
    parent: str = ""
    """Job whose model this one works on, and which has to be complete first."""
    after: Sequence[str] = ()
    """Jobs that have to be complete first."""
    checkpoint: str = "best"
    """Which checkpoint of a training it works on: `best`, `latest`, `epoch:N` or `step:N`."""
    ptm: str = ""
    """Weights to start from, for the fields that `ptm` fills in."""
    infer: Mapping[str, Any] = field(default_factory=dict)
    """Key -> function, literal value, or `{link: ADDRESS, destination_path: PATH}`, beside the table of `fields`."""
    executor: str = "local"
    options: Mapping[str, str] = field(default_factory=dict)
    """What is said to the executor, such as `partition` to Slurm."""
    gpus: int | None = None
    """GPUs it needs; None takes what the spec says."""
    cpus: int | None = None
    """Processors it needs; None takes all for work on the CPU, and one for each GPU."""
    command: Sequence[str] = field(default_factory=tuple)
    """What to run in place of the action, which is then only a name."""


def create_job(action: str, spec: str | Path | None = None, words: Sequence[str] = (), **wishes: Any) -> Job:
    """Submit a job.

    Args:
        action: `train`, `evaluate`, `inference`, `export`, `quantize` or `gen_trt_engine`.
        spec: YAML file; None starts from the defaults.
        words: `section.key=value` overrides; what they set is never replaced by what a parent gives.
        wishes: fields of `Wish`.

    Raises:
        UserError: the spec is wrong, a job it waits for does not exist or has failed, or nobody could run it.
    """
    wish = Wish(**wishes)
    store = Store(wish.jobs)
    return submitted(store, drafted(store, action, spec, words, wish))


@dataclass(frozen=True)
class Draft:
    """A checked job that is not on the disk yet."""

    record: Record
    asked: str
    """The spec as it was asked for, without secrets."""
    secret: Mapping[str, str]
    warnings: Sequence[str] = ()
    spec: ExperimentSpec | None = None
    """The spec, without secrets; None for a command."""


def submitted(store: Store, draft: Draft) -> Job:
    """Put a checked job on the disk and tell its executor."""
    from oneformer.jobs.executors import executor_of

    record = store.create(draft.record, {"asked.yaml": draft.asked}, draft.secret)
    try:
        executor_of(record.executor).submit(store, record)
    except UserError as error:
        message = error.message
        store.change(record.id, lambda r: r.end(CANCELED, message))
        raise
    return Job(record.id, store.root)


def drafted(store: Store, action: str, spec: str | Path | None, words: Sequence[str], wish: Wish) -> Draft:
    """Check everything that can be said before the job's turn comes."""
    from oneformer.jobs.executors import executor_of

    parent = waited_for(store, wish.parent) if wish.parent else ""
    record = Record(
        id="",
        action=action,
        order=0,
        parent=parent,
        after=[waited_for(store, job) for job in wish.after],
        executor=wish.executor,
        options=dict(wish.options),
        checkpoint=wish.checkpoint,
        ptm=wish.ptm,
        infer=dict(wish.infer),
        python=sys.executable,
        cwd=os.getcwd(),  # noqa: PTH109 - kept as text
        command=list(wish.command),
    )
    if wish.command:
        record.seal = sealed(record)
        record.gpus, record.cpus = wish.gpus or 0, 1 if wish.cpus is None else wish.cpus
        executor_of(wish.executor).check(store, record)
        return Draft(record, "", {})
    if action not in ACTIONS:
        raise UserError(f"{action} cannot be a job", where="oneformer jobs submit", hint=f"{', '.join(ACTIONS)} can")
    check_choice(wish.checkpoint)
    check_infer(wish.infer)
    if wish.ptm and "://" not in wish.ptm and not Path(wish.ptm).exists():
        raise UserError("there are no such weights", where=f"--ptm {wish.ptm}")
    return on_spec(store, record, Asked(spec, words), wish)


@dataclass(frozen=True)
class Asked:
    """A spec file and overrides."""

    spec: str | Path | None
    words: Sequence[str]


def on_spec(store: Store, record: Record, asked: Asked, wish: Wish) -> Draft:
    """The draft of a job that runs an action on a spec. Raises UserErrors with everything that is wrong with it."""
    from oneformer.jobs.executors import executor_of
    from oneformer.spec.load import load
    from oneformer.spec.write import to_yaml

    loaded = load(asked.spec, asked.words, action=record.action)
    record.named = keys_of(asked.words, record.action)
    check_own_files(record, loaded.spec)
    hidden = {key: value for key in secret_keys() if (value := getattr(loaded.spec, key))}
    if "encryption_key" not in hidden and (key := reading_key()):  # the queue has another environment
        hidden["encryption_key"] = key
    for key in hidden:
        setattr(loaded.spec, key, "")
    kept = [key for key in loaded.set_keys if key not in hidden]
    text = to_yaml(loaded.spec, keys=kept, comments=False) if kept else ""
    gpus, cpus = (needs if record.executor == "local" else needs_elsewhere)(loaded.spec, record.action)
    record.gpus = gpus if wish.gpus is None else wish.gpus
    record.cpus = cpus if wish.cpus is None else wish.cpus
    record.nodes = getattr(getattr(loaded.spec, record.action), "num_nodes", 1)
    executor_of(record.executor).check(store, record)
    warnings = list(loaded.warnings)
    if record.parent:
        check_reads(record, loaded.spec, foreseen(store, record))
        hidden = store.secret(record.parent) | hidden
        if not takes_parent(record):
            what = f"{record.action} takes nothing from {record.parent} and only waits for it"
            warnings.append(f"{what}; --infer train.pretrained_model=parent_model starts from its weights")
    return Draft(record, text, hidden, warnings, loaded.spec)


def foreseen(store: Store, record: Record) -> Model:
    """The model that a job will find: the parent's where that is complete, else one of the kind that it will make."""
    first = maker(store, record.parent)
    if first.state == COMPLETE:
        return made(store, first, record.checkpoint)
    spec, _ = load_asked(store.folder(first.id), first, {})
    return Model(store.folder(first.id), expected(first.action, spec), first.id)


def waited_for(store: Store, name: str) -> str:
    """The whole id of a job that another one is to wait for. Raises UserError for one that cannot become complete."""
    record = store.find(name)
    if record.state in ENDED and record.state != COMPLETE:
        hint = f"oneformer jobs retry {record.id}"
        raise UserError(f"{record.id} ended as {record.state}, so nothing can follow it", where=name, hint=hint)
    return record.id


def keys_of(words: Sequence[str], action: str) -> list[str]:
    """The keys that overrides set."""
    from oneformer.spec.flat import flatten
    from oneformer.spec.node import Mark, Node
    from oneformer.spec.override import SOURCE, apply_overrides

    return list(flatten(apply_overrides(Node({}, Mark(SOURCE)), words, action=action)[0])[0])


def secret_keys() -> list[str]:
    """Root keys of the spec whose values no file but `secrets.json` may hold."""
    from oneformer.spec import ExperimentSpec
    from oneformer.spec.field import Secret

    hints = get_type_hints(ExperimentSpec, include_extras=True)
    return [key for key, hint in hints.items() if any(isinstance(m, Secret) for m in getattr(hint, "__metadata__", ()))]


def needs(spec: ExperimentSpec, action: str) -> tuple[int, int]:
    """GPUs and processors that an action needs here: its `num_gpus` where there are GPUs, else every processor."""
    there = slots.machine()
    accelerator, gpus = _wanted(spec, action)
    if accelerator == "cpu" or (accelerator == "auto" and not there.gpus):
        return 0, there.cpus
    return gpus, min(gpus, there.cpus)


def needs_elsewhere(spec: ExperimentSpec, action: str) -> tuple[int, int]:
    """The same on a machine that is not known: GPUs unless the spec says CPU, a processor for each loader process."""
    accelerator, gpus = _wanted(spec, action)
    gpus = 0 if accelerator == "cpu" else gpus
    loaders = max(part.num_workers for part in (spec.dataset.train, spec.dataset.val, spec.dataset.test))
    return gpus, max(1, gpus) * (1 + loaders)


def _wanted(spec: ExperimentSpec, action: str) -> tuple[str, int]:
    """The accelerator that an action's section asks for, and how many."""
    section = getattr(spec, action)
    on_cpu = getattr(section, "on_cpu", False) or getattr(section, "device", "") == "cpu"
    accelerator = "cpu" if on_cpu else getattr(section, "accelerator", "auto")
    return accelerator, max(getattr(section, "num_gpus", 1), len(set(getattr(section, "gpu_ids", [0]))))
