"""A training that was a search (`automl_policy`) -> its best checkpoint, checked and handed over within the same job.

After the search its worker runs `oneformer automl verify`, which scores the best checkpoint again, and `export-best`,
which copies it once more against its checksum. Jobs that follow take that copy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from oneformer.errors import CheckpointError
from oneformer.jobs.store import RESULTS

SEARCH, RECORD = "automl", "study.sqlite"
BEST, VERIFIED = "best/model.pth", "verified.json"
NEAR = 0.1
"""Points by which a score that is measured again may differ: GPUs do not add up in the same order each time."""


def folder_of(folder: Path) -> Path:
    """Where the search of the job in `folder` lies."""
    return folder / RESULTS / SEARCH


def is_search(folder: Path, action: str) -> bool:
    """Whether what ran in a job's folder was a search."""
    return action == "train" and (folder_of(folder) / RECORD).is_file()


def handed_over(folder: Path) -> bool:
    """Whether the best checkpoint was handed over."""
    return (folder_of(folder) / BEST).is_file()


def closing(command: Sequence[str], *, json_out: bool) -> list[str]:
    """The command of a training -> one that looks after the search that it was: verify as JSON, or export-best."""
    at = list(command).index("oneformer") + 1
    words = ["verify", "--json"] if json_out else ["export-best"]
    return [*command[:at], "automl", words[0], *command[at + 1 :], *words[1:]]


def best_of(folder: Path, *, job: str, choice: str) -> tuple[Path, str]:
    """The verified best checkpoint of a search, and what is known of it.

    Raises:
        CheckpointError: it was not handed over, its score was not found again, or another than the best is asked for.
    """
    where = str(folder_of(folder))
    if choice != "best":
        raise CheckpointError("a search hands on its best checkpoint only", where=job, hint="leave --checkpoint out")
    if not handed_over(folder):
        hint = f"oneformer automl export-best -e {folder / 'spec.yaml'} hands it over"
        raise CheckpointError("the search has handed over no checkpoint", where=where, hint=hint)
    told = _verified(folder)
    metric, recorded, measured = told.get("metric"), told.get("recorded"), told.get("measured")
    if measured is None:  # a training loss, which only a training gives: the copy's checksum has to do
        return folder_of(folder) / BEST, "best of the search, by its checksum"
    if recorded is None or abs(recorded - measured) > NEAR:
        what = f"the best checkpoint of the search had {metric} {recorded} when it was recorded and has {measured} now"
        raise CheckpointError(what, where=where, hint="the validation images may have changed since")
    return folder_of(folder) / BEST, f"best of the search, trial {told['trial']}: {metric} {measured:.4g} found again"


def _verified(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads((folder_of(folder) / VERIFIED).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}
