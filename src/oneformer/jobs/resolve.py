"""A claimed job -> the spec that it runs on, with its fields filled in, and the command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneformer.errors import MASK
from oneformer.jobs.fields import Context, filled
from oneformer.jobs.record import Record
from oneformer.jobs.store import PRIVATE, Store
from oneformer.runs.atomic import write_json, write_text

if TYPE_CHECKING:
    from oneformer.spec import ExperimentSpec

ASKED, RESOLVED = "asked.yaml", "spec.yaml"
START = "start.json"
"""Tells the further machines of a job which run has begun, and the name of its spec."""


@contextmanager
def prepared(store: Store, record: Record) -> Iterator[Sequence[str]]:
    """Write the job's `spec.yaml`, note what was filled in, and give the command that runs it.

    A secret goes to the action by a file that only its owner can read, and that is gone when this closes.

    Raises:
        UserError: a field cannot be filled in, or the spec is no longer right.
    """
    folder = store.folder(record.id)
    asked = load_asked(folder, record, {})
    fields = filled(Context(store, record, asked[0]))
    secret = {key: field.value for key, field in fields.items() if field.function == "key"}
    values = {key: field.value for key, field in fields.items() if key not in secret}
    spec, keys = load_asked(folder, record, values | of_machine(record))
    told = {key: field.to_dict() | ({"value": MASK} if key in secret else {}) for key, field in fields.items()}
    store.change(record.id, lambda r: setattr(r, "inferred", told))
    path = write_text(folder / RESOLVED, as_yaml(spec, keys))
    try:
        if secret:
            path = _private(folder / PRIVATE, path.read_text(encoding="utf-8"), secret)
        if record.nodes > 1:
            assert record.run, "a claimed job has a run"
            write_json(folder / START, {"token": record.run.token, "spec": path.name})
        yield [sys.executable, "-P", "-m", "oneformer", record.action, "-e", str(path)]
    finally:
        (folder / PRIVATE).unlink(missing_ok=True)
        (folder / START).unlink(missing_ok=True)


def load_asked(folder: Path, record: Record, values: Mapping[str, Any]) -> tuple[ExperimentSpec, list[str]]:
    """The spec as it was asked for with these values over it, and the keys that are set in it."""
    from oneformer.spec.load import load
    from oneformer.spec.write import value_text

    words = [f"{key}={value_text(value)}" for key, value in values.items()]
    loaded = load(folder / ASKED, words, action=record.action)
    return loaded.spec, list(loaded.set_keys)


def as_yaml(spec: ExperimentSpec, keys: Sequence[str]) -> str:
    """These keys of a spec."""
    from oneformer.spec.write import to_yaml

    return to_yaml(spec, keys=keys, comments=False) if keys else ""


def of_machine(record: Record) -> dict[str, Any]:
    """Key -> value of what the machine decides: no other results folder, and the job's GPUs, counted from 0."""
    from oneformer.spec.tree import leaves

    own: dict[str, Any] = {"results_dir": ""}
    if record.gpus:
        own |= {"gpu_ids": list(range(record.gpus)), "num_gpus": record.gpus, "gpu_id": 0}
    return {key: value for name, value in own.items() if (key := f"{record.action}.{name}") in leaves()}


def _private(path: Path, text: str, secret: Mapping[str, str]) -> Path:
    from oneformer.spec.write import value_text

    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text + "".join(f"{key}: {value_text(value)}\n" for key, value in secret.items()))
    return path
