"""What actions share: files by role -> the answer to `--dry-run`; a spec on stdin -> one process of several."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneformer.errors import without_secrets
from oneformer.runs.secrets import masked


@dataclass(frozen=True)
class Plan:
    """Files by role, before anything is done."""

    reads: Mapping[str, str]
    writes: Sequence[str]
    fetches: Sequence[str] = ()
    """Addresses that would be fetched, unless the cache has them."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        fetches = {"fetches": list(self.fetches)} if self.fetches else {}
        told: dict[str, Any] = masked({"reads": dict(self.reads), "writes": list(self.writes), **fetches})
        return told

    def table(self) -> str:
        """One line per file."""
        wide = max((len(name) for name in self.reads), default=0)
        reads = [
            f"would read   {name:<{wide}}  {value or '(not named)'}{'' if is_there(value) else '  (is not there)'}"
            for name, value in self.reads.items()
        ]
        fetches = [f"would fetch  {address}" for address in self.fetches]
        lines = [*fetches, *reads, *(f"would write  {path}" for path in self.writes)]
        return "\n".join(without_secrets(line) for line in lines)


def is_there(value: str) -> bool:
    """Whether a path exists; nothing, lists, addresses and remarks in brackets are taken at their word."""
    if not value or value.startswith(("(", "[")) or "://" in value:
        return True
    return any(Path(path).exists() for path in (value, value.partition(" (")[0]))


def run_as_rank(run: Callable[[Any], object]) -> None:
    """Run an action as one of several processes of one machine: the first one sends the resolved spec as JSON."""
    from oneformer.errors import UserError
    from oneformer.spec import ExperimentSpec
    from oneformer.spec.tree import from_dict

    try:
        run(from_dict(ExperimentSpec, json.load(sys.stdin)))
    except UserError as error:
        sys.exit(error.message)
    except KeyboardInterrupt:
        sys.exit(130)  # which is no failure of its own
