"""A pending job -> a container of this machine, started with `docker run` and left to itself.

The folder of jobs and the folder that the job was submitted from are mounted at their own paths, so that paths in specs
and records mean the same inside. What is secret travels in the job's folder or by the name of a variable, never as a
word of the command, which every user of the machine can read.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
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

_VARIABLE, _SIZE, _USER = re.compile(r"[A-Za-z_]\w*"), re.compile(r"\d+[bkmgBKMG]?"), re.compile(r"\d+(:\d+)?")
_GONE = ("no such object", "no such container")
SHARED = "2g"
STOP_S = 45
"""Seconds between `docker stop` and a kill: longer than a worker gives its action."""


class Docker:
    """The docker command, with the daemon that it is set up for."""

    options: Mapping[str, str] = MappingProxyType(
        {
            "image": "container image with the package",
            "mounts": "further folders it reads, with : between; each lies at its own path",
            "env": "names of variables that it gets from here, with : between",
            "user": "UID:GID it runs as; yours where left out",
            "network": "network it joins; none keeps it from all",
            "memory": "most memory, such as 64g",
            "shm": f"size of /dev/shm, which loader processes share ({SHARED} where left out)",
            "devices": "GPUs by number, with : between; the first ones where left out",
        }
    )
    chains = False

    def check(self, store: Store, record: Record) -> None:
        """Raises UserError for options that are missing or wrong, folders and variables that are not there."""
        check_options(self, record)
        check_one_machine(record)
        asked = record.options
        if not asked.get("image"):
            raise SpecError("docker needs image", where="--options", hint=f"image: {self.options['image']}")
        for name, shape in (("user", _USER), ("memory", _SIZE), ("shm", _SIZE)):
            if name in asked and not shape.fullmatch(asked[name]):
                raise SpecError(f"{asked[name]!r} is no value for {name}", where="--options")
        if asked.get("network") == "host":
            # With the machine's own name, its processes would be taken for processes of this machine.
            raise SpecError("a container of a job has a name of its own", where="--options network=host")
        _check_words(record)
        _check_folders(store, record)
        if open_dependencies(store, record):
            raise no_order(record)

    def submit(self, store: Store, record: Record) -> None:
        """Start the container; its name says which job and which attempt it is."""
        # The path of an interpreter here says nothing about the image.
        record = store.change(record.id, lambda r: setattr(r, "python", ""))
        run_tool(run_command(store, record))
        store.change(record.id, lambda r: setattr(r, "external", container_name(record)))

    def gone(self, record: Record) -> str:
        """Why no worker will end the job any more: the daemon does not have the container, or says that it ended."""
        if not record.external:
            return "it was not handed to docker: its submitter was killed"
        try:
            state = json.loads(run_tool(["docker", "inspect", "--format", "{{json .State}}", record.external]))
        except WorkError as error:
            unknown = any(word in error.what.lower() for word in _GONE)
            return f"docker has no container {record.external} any more" if unknown else ""
        except (UserError, ValueError):  # no answer: it cannot be told
            return ""
        if not isinstance(state, dict) or state.get("Status") not in ("exited", "dead"):
            return ""
        why = "it ran out of memory" if state.get("OOMKilled") else f"exit code {state.get('ExitCode')}"
        return f"its container {record.external} ended: {': '.join(filter(None, [why, last_line(record.external)]))}"

    def cancel(self, record: Record) -> None:
        """Remove a container whose worker has not begun; ask one that runs to end."""
        if not record.external:
            return
        if record.run is None:
            run_tool(["docker", "rm", "--force", record.external])
            return
        with suppress(WorkError):  # it may have ended meanwhile; its worker sees the request in the record too
            run_tool(["docker", "kill", "--signal", "TERM", record.external])


def _check_words(record: Record) -> None:
    """Raises SpecError for names of variables and numbers of GPUs that do not fit."""
    for name in _listed(record, "env"):
        if not _VARIABLE.fullmatch(name):
            raise SpecError(f"{name!r} is no name of a variable", where="--options env", hint="give names alone")
        if name not in os.environ:
            raise SpecError(f"there is no variable {name}", where="--options env")
    devices = _listed(record, "devices")
    if devices and (len(devices) != record.gpus or not all(part.isdecimal() for part in devices)):
        raise SpecError(f"devices names {len(devices)}, the job needs {record.gpus} GPUs", where="--options")


def _check_folders(store: Store, record: Record) -> None:
    """Raises UserError for folders that cannot be mounted."""
    for path in (store.root, *map(Path, (record.cwd, *_listed(record, "mounts")))):
        if "," in str(path) or '"' in str(path) or not path.is_absolute():
            raise UserError("docker cannot mount a folder of this name", where=str(path))
    for path in map(Path, _listed(record, "mounts")):
        if not path.is_dir():
            raise UserError("there is no such folder", where=f"--options mounts, {path}")


def _listed(record: Record, name: str) -> list[str]:
    return [part for part in record.options.get(name, "").split(":") if part]


def container_name(record: Record) -> str:
    """The container's name; each attempt has its own."""
    return f"oneformer-{record.id}-{record.attempt}"


def run_command(store: Store, record: Record) -> list[str]:
    """`docker run` for a job: detached, as the user who submits it, with its folders, GPUs and processors."""
    asked = record.options
    words = {
        "--name": container_name(record),
        "--hostname": container_name(record)[:63],
        "--label": f"oneformer-job={record.id}",
        "--user": asked.get("user") or f"{os.getuid()}:{os.getgid()}",
        "--workdir": record.cwd,
        "--cpus": str(record.cpus),
        "--shm-size": asked.get("shm", SHARED),
        "--stop-timeout": str(STOP_S),
        **({"--memory": asked["memory"]} if "memory" in asked else {}),
        **({"--network": asked["network"]} if "network" in asked else {}),
    }
    if record.gpus:
        devices = _listed(record, "devices")
        words["--gpus"] = f'"device={",".join(devices)}"' if devices else str(record.gpus)
    command = ["docker", "run", "--detach", "--init", *(word for pair in words.items() for word in pair)]
    # Only the folder of jobs can be written to: results lie nowhere else.
    read_only = dict.fromkeys(path for path in (record.cwd, *_listed(record, "mounts")) if path != str(store.root))
    for path, end in [*((path, ",readonly") for path in read_only), (str(store.root), "")]:
        command += ["--mount", f"type=bind,source={path},target={path}{end}"]
    for name in _listed(record, "env"):
        command += ["--env", name]
    return [*command, asked["image"], *worker_command(store, record, log=True)]


def last_line(container: str) -> str:
    """What a container said last, for one that ended before its worker could write a log; empty without an answer."""
    with suppress(UserError):
        said = [line for line in run_tool(["docker", "logs", "--tail", "5", container]).splitlines() if line.strip()]
        return said[-1][:300] if said else ""
    return ""
