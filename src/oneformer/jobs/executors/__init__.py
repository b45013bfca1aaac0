"""A pending job -> its worker, started when its turn comes by whoever has the machines.

Every executor ends in the same worker (`jobs/worker.py`), which claims the job: what
is started twice runs once.
"""

from oneformer.errors import UserError
from oneformer.jobs.executors.base import Executor
from oneformer.jobs.executors.docker import Docker
from oneformer.jobs.executors.kubernetes import Kubernetes
from oneformer.jobs.executors.local import Local
from oneformer.jobs.executors.ray import Ray
from oneformer.jobs.executors.slurm import Slurm

EXECUTORS: dict[str, Executor] = {
    "local": Local(),
    "slurm": Slurm(),
    "kubernetes": Kubernetes(),
    "docker": Docker(),
    "ray": Ray(),
}

__all__ = ["EXECUTORS", "Executor", "executor_of"]


def executor_of(name: str) -> Executor:
    """The executor of that name. Raises UserError."""
    if name not in EXECUTORS:
        raise UserError(f"there is no executor {name!r}", hint=f"there are {', '.join(EXECUTORS)}")
    return EXECUTORS[name]
