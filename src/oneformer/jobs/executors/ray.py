"""A pending job -> a job of a Ray cluster, submitted with `ray job submit`.

The folder of jobs, the Python environment and the data have to lie at the same paths on the machines of the cluster.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType

from oneformer.errors import SpecError, UserError, WorkError
from oneformer.jobs.executors.base import (
    check_one_machine,
    check_options,
    no_order,
    open_dependencies,
    run_tool,
    worker_command,
)
from oneformer.jobs.record import Record
from oneformer.jobs.store import Store

_ENDED = ("FAILED", "STOPPED", "SUCCEEDED")
_UNKNOWN = "does not exist"


class Ray:
    """The ray command, with the cluster that it is set up for."""

    options: Mapping[str, str] = MappingProxyType(
        {
            "address": "of the cluster's job server, such as http://HOST:8265; the ray command's own where left out",
            "resources": "further resources it holds, NAME:COUNT, such as a100:1",
        }
    )
    chains = False

    def check(self, store: Store, record: Record) -> None:
        """Raises UserError for options that it does not have or that are no resources."""
        check_options(self, record)
        check_one_machine(record)
        if "resources" in record.options:
            _resources(record.options["resources"])
        if open_dependencies(store, record):
            raise no_order(record)

    def submit(self, store: Store, record: Record) -> None:
        """Hand it over; the cluster lets it wait until it has what the job needs."""
        run_tool(submit_command(store, record))
        store.change(record.id, lambda r: setattr(r, "external", submission(record)))

    def gone(self, record: Record) -> str:
        """Why no worker will end the job any more: the cluster does not know it, or says that it ended."""
        if not record.external:
            return "it was not handed to Ray: its submitter was killed"
        try:
            said = run_tool(["ray", "job", "status", *_address(record), record.external])
        except WorkError as error:
            return f"Ray has no job {record.external}" if _UNKNOWN in error.what else ""
        except UserError:  # no answer: it cannot be told
            return ""
        words = said.upper().replace("'", " ").split()
        ended = [state for state in _ENDED if state in words]
        return f"Ray's job {record.external} has {ended[0].lower()} without a word" if ended else ""

    def cancel(self, record: Record) -> None:
        """Stop a job whose worker has not begun; a running one is ended by its worker, which sees the request."""
        if record.external and record.run is None:
            with suppress(WorkError):  # it may have ended meanwhile
                run_tool(["ray", "job", "stop", "--no-wait", *_address(record), record.external])


def submission(record: Record) -> str:
    """The job's name in the cluster; each attempt has its own."""
    return f"oneformer-{record.id}-{record.attempt}"


def submit_command(store: Store, record: Record) -> list[str]:
    """`ray job submit` for a job: not waited for, with its processors and GPUs."""
    words = ["--no-wait", "--submission-id", submission(record), "--entrypoint-num-cpus", str(record.cpus)]
    if record.gpus:
        words += ["--entrypoint-num-gpus", str(record.gpus)]
    if "resources" in record.options:
        words += ["--entrypoint-resources", _resources(record.options["resources"])]
    return ["ray", "job", "submit", *words, *_address(record), "--", *worker_command(store, record, log=True)]


def _address(record: Record) -> list[str]:
    return ["--address", record.options["address"]] if record.options.get("address") else []


def _resources(text: str) -> str:
    """`NAME:COUNT` as the JSON that Ray reads. Raises SpecError."""
    name, _, count = text.partition(":")
    if not name or not re.fullmatch(r"\d+(\.\d+)?", count):
        raise SpecError(f"{text!r} is no NAME:COUNT", where="--options resources")
    return json.dumps({name: float(count)})
