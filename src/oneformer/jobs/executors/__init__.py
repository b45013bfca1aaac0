"""A pending job -> its worker, started when its turn comes by whoever has the machines.

Every executor ends in the same worker (`jobs/worker.py`), which claims the job: what
is started twice runs once.
"""

from oneformer.jobs.executors.base import Executor
from oneformer.jobs.executors.local import Local

EXECUTORS: dict[str, Executor] = {"local": Local()}

__all__ = ["EXECUTORS", "Executor"]
