"""A trial's folder and an epoch -> a training on some machine of a Ray cluster: the seam's other side of it.

Each training is a process that an actor of the cluster starts and watches, as `Local` does on this machine; the actor
holds the trial's share of GPUs and processors. When the actor or its machine is lost, so is the end of the process's
standard input: it saves its last step and ends, and the trial is tried again from there. Every machine sees the folder
of the search and the data at the same paths.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oneformer.automl.executor import Local, LocalProcess
from oneformer.automl.worker import GRACE_S
from oneformer.errors import SpecError
from oneformer.runs.key import environment as key_environment

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Share:
    """What one training holds."""

    cpus: float = 1.0
    gpus: float = 0.0
    """A fraction below 1 lets several trainings share a GPU; above it a whole number."""


def share_of(cpus: str, gpus: str, there: Mapping[str, float]) -> Share:
    """What was asked for, as far as the cluster can give it to one training.

    Args:
        cpus: processors, as text; empty is one.
        gpus: GPUs, as text; empty is one where the cluster has any.
        there: what the cluster has.

    Raises:
        SpecError: it is no number, a fraction above one GPU, or more than there is.
    """
    found = {}
    for name, text, usual in (("cpus", cpus, 1.0), ("gpus", gpus, float(there.get("GPU", 0) >= 1))):
        try:
            found[name] = float(text) if text else usual
        except ValueError:
            raise SpecError(f"{text!r} is no number", where=f"--trial-{name}") from None
        has = there.get(name[:-1].upper(), 0.0)
        if not 0 <= found[name] <= has:
            raise SpecError(f"{text} are asked for, the cluster has {has:g}", where=f"--trial-{name}")
    if found["gpus"] > 1 and found["gpus"] % 1:
        raise SpecError(f"{gpus} is neither a part of a GPU nor a whole number", where="--trial-gpus")
    if not found["cpus"]:
        raise SpecError("a training needs a processor", where="--trial-cpus")
    return Share(found["cpus"], found["gpus"])


class TrialActor:
    """What runs on the cluster."""

    def __init__(self, folder: str, epoch: int, program: tuple[str, ...], key: Mapping[str, str]) -> None:
        os.environ.update(key)
        self.process: LocalProcess = Local(1, program or Local.program).start(Path(folder), epoch)

    def over(self) -> bool:
        """Whether the training has ended."""
        return self.process.over()

    def stop(self) -> bool:
        """Let it save its last step and end."""
        self.process.stop()
        return True


@dataclass
class OnCluster:
    """A training that an actor has started, or will when there is room for it."""

    ray: Any
    actor: Any
    asked: Any = None
    """The answer that is waited for."""
    ended: bool = False

    def over(self) -> bool:
        """Whether it has ended, or its actor is gone."""
        if self.ended:
            return True
        if self.asked is None:
            self.asked = self.actor.over.remote()
        ready, _ = self.ray.wait([self.asked], timeout=0)
        if ready:
            self.ended = self._answer(self.asked)
            self.asked = None
        return self.ended

    def _answer(self, reference: Any, timeout_s: float | None = None) -> bool:
        """What the actor says; True when it is gone."""
        try:
            return bool(self.ray.get(reference, timeout=timeout_s))
        except self.ray.exceptions.RayActorError:
            log.warning("a training's place on the cluster is lost")
            return True
        except self.ray.exceptions.GetTimeoutError:
            return False

    def stop(self) -> None:
        """Ask it to save its last step; after a while, or where it never began, it is given up."""
        ready, _ = self.ray.wait([self.actor.over.remote()], timeout=0 if self.ended else 5)
        if ready:
            self._answer(self.actor.stop.remote(), GRACE_S + 10)
        self.ray.kill(self.actor)


@dataclass(frozen=True)
class OnRay:
    """The machines of a Ray cluster."""

    ray: Any
    share: Share = field(default_factory=Share)
    program: tuple[str, ...] = ()
    """What is run in place of a training's own process."""

    def start(self, folder: Path, epoch: int) -> OnCluster:
        """An actor; Ray chooses its machine."""
        kind = self.ray.remote(num_cpus=self.share.cpus, num_gpus=self.share.gpus)(TrialActor)
        return OnCluster(self.ray, kind.remote(str(folder.absolute()), epoch, self.program, key_environment()))


def on_ray(cluster: str, *, cpus: str = "", gpus: str = "") -> OnRay:
    """The machines of a cluster, `auto` for the one this machine belongs to. Raises UserError."""
    from oneformer.actions.cluster import connected

    ray = connected(cluster)
    return OnRay(ray, share_of(cpus, gpus, ray.cluster_resources()))
