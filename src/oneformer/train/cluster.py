"""A world -> what Lightning asks a cluster: who is who, and that all processes are there already."""

from __future__ import annotations

import os

from lightning.fabric.plugins.environments import ClusterEnvironment
from typing_extensions import override

from oneformer.train.world import World


class Cluster(ClusterEnvironment):
    """The processes that `launch.ranks` or an outer launcher has started.

    Lightning's own guesses (Slurm, torchrun, ...) each read other variables, and could find another world than the one
    that was checked.
    """

    def __init__(self, world: World) -> None:
        self.world = world

    @property
    @override
    def creates_processes_externally(self) -> bool:
        return True

    @property
    @override
    def main_address(self) -> str:
        return self.world.address

    @property
    @override
    def main_port(self) -> int:
        return int(os.environ.get("MASTER_PORT", self.world.port))  # `launch.ranks` may have chosen a free one

    @staticmethod
    @override
    def detect() -> bool:
        return False

    @override
    def world_size(self) -> int:
        return self.world.size

    @override
    def set_world_size(self, size: int) -> None:
        assert size == self.world.size, f"{size} processes are wanted, {self.world.size} were started"

    @override
    def global_rank(self) -> int:
        return self.world.rank

    @override
    def set_global_rank(self, rank: int) -> None:
        assert rank == self.world.rank, f"this process would be {rank}, it was started as {self.world.rank}"

    @override
    def local_rank(self) -> int:
        return self.world.local or 0

    @override
    def node_rank(self) -> int:
        return self.world.node
