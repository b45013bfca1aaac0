"""A pending job -> a Kubernetes Job, applied with kubectl; one that runs on several machines is an Indexed Job.

The folder of jobs and the folder that the job was submitted from have to lie on a volume that the cluster mounts at the
same path; `--options claim=` names it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from oneformer.errors import SpecError, UserError
from oneformer.jobs.executors.base import check_options, no_order, open_dependencies, run_tool, worker_command
from oneformer.jobs.record import Record
from oneformer.jobs.store import Store
from oneformer.runs.atomic import write_text

MANIFEST = "kubernetes.json"
_NEEDED = ("image", "claim")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
KEPT_S = 3600
SERVICE = "oneformer-jobs"
"""One headless service for all jobs of a namespace: it only gives the pods names that they find each other by."""
PORT = 29500
_INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


class Kubernetes:
    """kubectl, with the cluster that it is set up for."""

    options: Mapping[str, str] = MappingProxyType(
        {
            "image": "container image with the package",
            "claim": "persistent volume claim that holds the folder of jobs and the data",
            "mount": "where it is mounted; the folder that the job is submitted from where left out",
            "namespace": "namespace of the job",
        }
    )
    chains = False

    def check(self, store: Store, record: Record) -> None:
        """Raises UserError for options that are missing or wrong, and paths outside of the volume."""
        check_options(self, record)
        missing = [name for name in _NEEDED if not record.options.get(name)]
        if missing:
            told = "; ".join(f"{name}: {self.options[name]}" for name in missing)
            raise SpecError(f"kubernetes needs {' and '.join(missing)}", where="--options", hint=told)
        for name in ("claim", "namespace"):
            if not _NAME.fullmatch(record.options.get(name, "x")):
                raise SpecError(f"{record.options[name]!r} is no name for a {name}", where="--options")
        mount = Path(mount_of(record))
        for path in (store.root, Path(record.cwd)):
            if not path.is_relative_to(mount):
                raise UserError(f"{path} does not lie in {mount}, where the volume is mounted", where="--options mount")
        if open_dependencies(store, record):
            raise no_order(record)

    def submit(self, store: Store, record: Record) -> None:
        """Write the manifest into the job's folder and apply it."""
        # The path of an interpreter here says nothing about the image.
        record = store.change(record.id, lambda r: setattr(r, "python", ""))
        told: dict[str, Any] = manifest(store, record)
        if record.nodes > 1:
            told = {"apiVersion": "v1", "kind": "List", "items": [service(record), told]}
        text = json.dumps(told, indent=2) + "\n"
        path = write_text(store.folder(record.id) / MANIFEST, text)
        run_tool(["kubectl", "apply", "--filename", str(path)])
        store.change(record.id, lambda r: setattr(r, "external", job_name(record)))

    def gone(self, record: Record) -> str:
        """Why no worker will end the job any more: the cluster does not have it, or says that it failed."""
        if not record.external:
            return "it was not handed to the cluster: its submitter was killed"
        try:
            said = run_tool(
                ["kubectl", "get", "job", record.external, *_namespace(record), "--ignore-not-found", "--output=json"]
            )
        except UserError:  # no answer: it cannot be told
            return ""
        if not said:
            return f"the cluster has no job {record.external} any more"
        try:
            failed = json.loads(said).get("status", {}).get("failed", 0)
        except (ValueError, AttributeError):
            return ""
        return f"the pod of {record.external} failed" if failed else ""

    def cancel(self, record: Record) -> None:
        """Remove a job whose worker has not begun; a running one is ended by its worker, which sees the request."""
        if record.external and record.run is None:
            run_tool(["kubectl", "delete", "job", record.external, *_namespace(record), "--ignore-not-found"])


def job_name(record: Record) -> str:
    """The job's name in the cluster, where names have no underscores; each attempt has its own."""
    return f"oneformer-{record.id.replace('_', '-')}-{record.attempt}"


def mount_of(record: Record) -> str:
    """Where the volume is mounted."""
    return record.options.get("mount") or record.cwd


def _namespace(record: Record) -> list[str]:
    return ["--namespace", record.options["namespace"]] if record.options.get("namespace") else []


def together(record: Record) -> list[dict[str, Any]]:
    """Variables by which the pods of a job form one run, as NVIDIA TAO has them: WORLD_SIZE counts machines."""
    rank = {"name": "NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": _INDEX}}}
    told = {
        "WORLD_SIZE": str(record.nodes),
        # Kubernetes calls the pod of an index so, and the service makes the name one of the network.
        "MASTER_ADDR": f"{job_name(record)}-0.{SERVICE}",
        "MASTER_PORT": str(PORT),
        **({"NUM_GPU_PER_NODE": str(record.gpus)} if record.gpus else {}),
    }
    return [rank, *({"name": name, "value": value} for name, value in told.items())]


def service(record: Record) -> dict[str, Any]:
    """The headless service; pods have to find each other before any of them counts as ready."""
    spaced = {"namespace": record.options["namespace"]} if record.options.get("namespace") else {}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SERVICE, "labels": {"app": "oneformer"}, **spaced},
        "spec": {"clusterIP": "None", "selector": {"app": "oneformer"}, "publishNotReadyAddresses": True},
    }


def manifest(store: Store, record: Record) -> dict[str, Any]:
    """The Job: one pod, run once, with the volume at its path and shared memory for the loader processes."""
    name, labels = job_name(record), {"app": "oneformer", "oneformer-job": record.id}
    limits: dict[str, Any] = {"cpu": str(record.cpus)}
    if record.gpus:
        limits["nvidia.com/gpu"] = str(record.gpus)
    container: dict[str, Any] = {
        "name": "worker",
        "image": record.options["image"],
        "command": worker_command(store, record, log=True),
        "workingDir": record.cwd,
        "resources": {"limits": limits},
        "volumeMounts": [
            {"name": "work", "mountPath": mount_of(record)},
            {"name": "memory", "mountPath": "/dev/shm"},  # noqa: S108 - a mount point, no file of ours
        ],
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [
            {"name": "work", "persistentVolumeClaim": {"claimName": record.options["claim"]}},
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
        ],
    }
    spaced = {"namespace": record.options["namespace"]} if record.options.get("namespace") else {}
    several: dict[str, Any] = {}
    if record.nodes > 1:
        container["env"] = together(record)
        pod["subdomain"] = SERVICE
        several = {"completionMode": "Indexed"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels, **spaced},
        "spec": {
            "backoffLimit": 0,
            "completions": record.nodes,
            "parallelism": record.nodes,
            **several,
            "ttlSecondsAfterFinished": KEPT_S,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
