"""An action and its spec -> a job: a folder with a record, a log and results, run when its turn comes.

What one job keeps in `<jobs folder>/<id>/`:

| file | content | written by |
|---|---|---|
| `job.json` | the record: state, what it waits for and needs, its process, what became of it | `Store`, always whole |
| `asked.yaml` | the spec as it was submitted, overrides included, secrets left out | `submit` |
| `spec.yaml` | the spec that ran, with the fields that were filled in | `worker` |
| `secrets.json` | values that no other file may hold; only its owner can read it | `submit` |
| `log.txt` | what the action said | the action |
| `results/` | its results folder, and no other job's | the action |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["Job", "create_job"]

if TYPE_CHECKING:
    from oneformer.jobs.job import Job
    from oneformer.jobs.submit import create_job

# Loaded when first used: each worker is a process of its own, and needs neither.
_HOMES = {"Job": "oneformer.jobs.job", "create_job": "oneformer.jobs.submit"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'oneformer.jobs' has no attribute {name!r}")
