"""A claimed job -> the spec that it runs on, with its results in its own folder, and the command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oneformer.jobs.record import Record
from oneformer.jobs.store import RESULTS, Store
from oneformer.runs.atomic import write_text


@contextmanager
def prepared(store: Store, record: Record) -> Iterator[Sequence[str]]:
    """Write the job's `spec.yaml` and give the command that runs it.

    A secret goes to the action by a file that only its owner can read, and that is gone when this closes.

    Raises:
        UserError: a field cannot be filled in, or the spec is no longer right.
    """
    from oneformer.spec.load import load
    from oneformer.spec.tree import get
    from oneformer.spec.write import to_yaml

    folder = store.folder(record.id)
    values = own_values(store, record)
    loaded = load(
        folder / "asked.yaml", [f"{key}={word(value)}" for key, value in values.items()], action=record.action
    )
    keys = [key for key in loaded.set_keys if get(loaded.spec, key) != "" or key not in values]
    path = write_text(folder / "spec.yaml", to_yaml(loaded.spec, keys=keys, comments=False))
    private = folder / ".spec.yaml"
    secret = store.secret(record.id)
    try:
        if secret:
            path = _private(private, path.read_text(encoding="utf-8"), secret)
        yield [record.python or sys.executable, "-P", "-m", "oneformer", record.action, "-e", str(path)]
    finally:
        private.unlink(missing_ok=True)


def own_values(store: Store, record: Record) -> dict[str, Any]:
    """Key -> value of what belongs to the job and the machine: its results folder, and its GPUs, counted from 0."""
    from oneformer.spec.tree import leaves

    values: dict[str, Any] = {"results_dir": str(store.folder(record.id) / RESULTS)}
    values[f"{record.action}.results_dir"] = ""
    if record.gpus:
        own = {"gpu_ids": list(range(record.gpus)), "num_gpus": record.gpus, "gpu_id": 0}
        values |= {f"{record.action}.{name}": v for name, v in own.items() if f"{record.action}.{name}" in leaves()}
    return values


def word(value: Any) -> str:
    """A value as an override spells it."""
    from oneformer.spec.write import value_text

    return value_text(value) if value != "" else '""'


def _private(path: Path, text: str, secret: Mapping[str, str]) -> Path:
    from oneformer.spec.write import value_text

    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text + "".join(f"{key}: {value_text(value)}\n" for key, value in secret.items()))
    return path
