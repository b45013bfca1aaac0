"""A pending job -> a batch script for Slurm, submitted with sbatch, its dependencies as Slurm's own.

The folder of jobs, the Python environment and the data have to lie on storage that the nodes share, at the same paths.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from oneformer.errors import SpecError, UserError, WorkError
from oneformer.jobs.executors.base import check_options, open_dependencies, run_tool, worker_command
from oneformer.jobs.record import PENDING, Record
from oneformer.jobs.store import LOG, Store
from oneformer.runs.atomic import write_text

SCRIPT = "slurm.sh"
_GONE = "Invalid job id"


class Slurm:
    """sbatch, squeue and scancel."""

    options: Mapping[str, str] = MappingProxyType(
        {
            "partition": "queue to run in",
            "account": "who pays",
            "qos": "quality of service",
            "time": "longest time, such as 08:00:00",
            "mem": "memory of the node, such as 64G",
            "constraint": "features of the node",
        }
    )
    chains = True

    def check(self, store: Store, record: Record) -> None:
        """Raises UserError for options that it does not have, or values and paths that a script cannot hold."""
        check_options(self, record)
        for name, value in record.options.items():
            if not value or any(sign.isspace() or sign in "\"'\\" for sign in value):
                raise SpecError(f"{value!r} is no value for {name}", where="--options")
        if any(sign in str(store.root) for sign in "\n\"'\\"):
            raise UserError("Slurm cannot write a log into a folder of this name", where=str(store.root))
        open_dependencies(store, record)

    def submit(self, store: Store, record: Record) -> None:
        """Write the script into the job's folder and hand it to sbatch."""
        after = [other.external for other in open_dependencies(store, record) if other.external]
        path = write_text(store.folder(record.id) / SCRIPT, script(store, record, after))
        said = run_tool(["sbatch", "--parsable", str(path)])
        number = said.splitlines()[-1].partition(";")[0] if said else ""
        if not number.isdecimal():
            raise WorkError(f"sbatch did not say the number of the job but {said[:200]!r}")
        store.change(record.id, lambda r: setattr(r, "external", number))

    def gone(self, record: Record) -> str:
        """Why no worker will end the job any more: Slurm does not know it."""
        if not record.external:
            return "it was not handed to Slurm: its submitter was killed"
        try:
            state = run_tool(["squeue", "--noheader", f"--jobs={record.external}", "--format=%T"])
        except WorkError as error:
            return f"Slurm does not know its job {record.external}" if _GONE in error.what else ""
        except UserError:  # no squeue here: it cannot be told
            return ""
        return "" if state else f"Slurm's job {record.external} has ended without a word"

    def cancel(self, record: Record) -> None:
        """Take a waiting job back; a running one is ended by its worker, which sees the request."""
        if record.external and record.run is None:
            run_tool(["scancel", record.external])


def script(store: Store, record: Record, after: Sequence[str] = ()) -> str:
    """The batch script: what is needed, what comes first, and the worker.

    Args:
        store: where the jobs lie.
        record: the job.
        after: numbers of the jobs that have to succeed first.
    """
    log = str(store.folder(record.id) / LOG).replace("%", "%%")  # a percent sign stands for a pattern
    asked = {
        "job-name": record.id,
        "output": f'"{log}"',
        "open-mode": "append",
        "nodes": str(record.nodes),
        "ntasks": str(record.nodes),
        "cpus-per-task": str(record.cpus),
        **({"gres": f"gpu:{record.gpus}"} if record.gpus else {}),
        **record.options,
        **({"dependency": f"afterok:{':'.join(after)}", "kill-on-invalid-dep": "yes"} if after else {}),
    }
    lines = [f"#SBATCH --{name}={value}" for name, value in asked.items()]
    # Slurm would start it again after the failure of a node, and nobody asked for that.
    lines.append("#SBATCH --no-requeue")
    assert record.state == PENDING
    # A task for each machine; when one of them fails, the others end too.
    step = ["srun", "--kill-on-bad-exit=1"] if record.nodes > 1 else []
    return "\n".join(["#!/bin/sh", *lines, f"exec {shlex.join([*step, *worker_command(store, record)])}", ""])
