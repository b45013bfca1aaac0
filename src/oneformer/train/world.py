"""Variables of torchrun, Slurm or an orchestrator -> the machines and processes of a run, and this process among them.

Two meanings of WORLD_SIZE are about: torch counts processes, NVIDIA TAO counts machines. A process that knows its
LOCAL_RANK is one of torch's; one that does not stands for its whole machine and starts the others itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from oneformer.errors import SpecError

DEFAULT_PORT = 29500  # torchrun's and TAO's
HINT = "docs/guides/several-machines.md says which variables belong together"
_PER_MACHINE = ("NUM_GPU_PER_NODE", "NPROC_PER_NODE")


@dataclass(frozen=True)
class World:
    """Machines and processes of a run, each machine with equally many."""

    nodes: int = 1
    per_node: int = 1
    """Processes of each machine."""
    node: int = 0
    """This machine, from 0."""
    local: int | None = None
    """This process on its machine; None for one that starts the others of its machine and is the first itself."""
    address: str = "127.0.0.1"
    """Of the first machine."""
    port: int = 0
    """Where the first process listens; 0 takes a free one."""
    launcher: str = ""
    """What has started this process; empty for nothing that matters."""

    @property
    def size(self) -> int:
        """Processes in all."""
        return self.nodes * self.per_node

    @property
    def rank(self) -> int:
        """This process among all."""
        return self.node * self.per_node + (self.local or 0)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and tells."""
        return self.rank == 0

    def variables(self, local: int, port: int) -> dict[str, str]:
        """What torch reads, for a process of this machine."""
        return {
            "RANK": str(self.node * self.per_node + local),
            "LOCAL_RANK": str(local),
            "WORLD_SIZE": str(self.size),
            "LOCAL_WORLD_SIZE": str(self.per_node),
            "NODE_RANK": str(self.node),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(port),
        }


def world(count: int, nodes: int, *, key: str, told: Mapping[str, str] | None = None) -> World:
    """The world that a spec and the environment describe together.

    Args:
        count: devices of each machine by the spec; 1 also stands for nothing said.
        nodes: machines by the spec; 1 also stands for nothing said.
        key: the action's section, for messages.
        told: variables; those of this process where left out.

    Raises:
        SpecError: variables are missing, are no numbers, or contradict each other or the spec.
    """
    given = _Told(os.environ if told is None else told)
    if "LOCAL_RANK" in given.variables:
        found = _of_rank(given, count)
    elif given.number("SLURM_STEP_NUM_TASKS", 1) > 1:
        found = _of_slurm(given, count)
    elif given.number("WORLD_SIZE", 1) > 1 or given.number("NNODES", 1) > 1:
        found = _of_machine(given, count, nodes)
    elif nodes > 1:
        raise SpecError(
            f"{nodes} machines are asked for, but no launcher started this process",
            where=f"{key}.num_nodes",
            hint=f"on every machine: torchrun --nnodes={nodes} --nproc-per-node={count} ... -m oneformer {key} -e ..., "
            "or WORLD_SIZE, NODE_RANK, MASTER_ADDR and MASTER_PORT in its environment",
        )
    else:
        return World(per_node=count)
    return _agreed(found, count, nodes, key=key)


class _Told:
    """Variables that should be numbers."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = variables

    def number(self, name: str, missing: int | None = None) -> int:
        """One of them. Raises SpecError when it is no number, or missing without a value in its place."""
        text = self.variables.get(name, "").strip()
        if not text and missing is not None:
            return missing
        if not text:
            raise SpecError(f"the variable {name} is not set", where="distributed run", hint=HINT)
        if not text.isdecimal():
            raise SpecError(f"the variable {name} is {text!r}, which is no number", where="distributed run", hint=HINT)
        return int(text)

    def one_of(self, *names: str) -> tuple[str, int]:
        """The first of these that is set, and its value; ("", 0) when none is."""
        name = next((name for name in names if self.variables.get(name, "").strip()), "")
        return name, self.number(name) if name else 0

    def address(self) -> str:
        """Of the first machine. Raises SpecError."""
        found = self.variables.get("MASTER_ADDR", "").strip()
        if not found:
            raise SpecError("the variable MASTER_ADDR is not set", where="distributed run", hint=HINT)
        return found


def _contradiction(what: str) -> SpecError:
    return SpecError(what, where="distributed run", hint=HINT)


def _of_rank(told: _Told, count: int) -> World:
    """torchrun's process: LOCAL_RANK says that WORLD_SIZE counts processes."""
    local, size = told.number("LOCAL_RANK"), told.number("WORLD_SIZE")
    if size == 1:
        return World(local=0, launcher="torchrun")
    rank = told.number("RANK")
    name, per_node = told.one_of("LOCAL_WORLD_SIZE", *_PER_MACHINE)
    if not name:
        if count == 1:
            told.number("LOCAL_WORLD_SIZE")  # which is missing
        name, per_node = "num_gpus", count
    if rank >= size:
        raise _contradiction(f"RANK={rank} is not below WORLD_SIZE={size}")
    if not per_node or size % per_node:
        raise _contradiction(f"WORLD_SIZE={size} processes cannot be {per_node} on each machine ({name}={per_node})")
    node, at = divmod(rank, per_node)
    if at != local:
        what = f"RANK={rank} is process {at} of its machine at {name}={per_node}, but LOCAL_RANK={local}"
        raise _contradiction(what)
    port = told.number("MASTER_PORT", DEFAULT_PORT)
    return World(size // per_node, per_node, node, local, told.address(), port, "torchrun")


def _of_machine(told: _Told, count: int, nodes: int) -> World:
    """A process for each machine, as TAO's orchestrators start it: WORLD_SIZE counts machines, unless NNODES says so.

    With NNODES or num_nodes known, a WORLD_SIZE that counts all processes of those machines is understood too.
    """
    name, per_node = told.one_of(*_PER_MACHINE)
    per_node = per_node or count
    size = told.number("WORLD_SIZE", 0)
    counted, machines = told.one_of("NNODES")
    if not counted and nodes > 1:
        counted, machines = "num_nodes", nodes
    own, node = told.one_of("NODE_RANK", "RANK")
    if not own:
        told.number("NODE_RANK")  # which is missing
    if not counted:
        if per_node > 1 and not name and own == "RANK":
            raise _contradiction(
                f"WORLD_SIZE={size} may count machines or processes: set NODE_RANK, or NUM_GPU_PER_NODE={per_node}"
            )
        machines = size
    elif size and size not in (machines, machines * per_node):
        raise _contradiction(
            f"WORLD_SIZE={size} is neither {machines} machines ({counted}={machines}) nor the "
            f"{machines * per_node} processes of {per_node} each"
        )
    if own == "NODE_RANK" and "RANK" in told.variables and told.number("RANK") not in (node, node * per_node):
        raise _contradiction(f"NODE_RANK={node} and RANK={told.variables['RANK']} name different machines")
    if node >= machines:
        raise _contradiction(f"{own}={node} is not below {counted or 'WORLD_SIZE'}={machines}, the number of machines")
    port = told.number("MASTER_PORT", DEFAULT_PORT)
    return World(machines, per_node, node, None, told.address(), port, "the environment")


def _of_slurm(told: _Told, count: int) -> World:
    """A task of srun: one for each process, or one for each machine."""
    tasks, machines = told.number("SLURM_STEP_NUM_TASKS"), told.number("SLURM_STEP_NUM_NODES", 1)
    rank, node, local = (told.number(f"SLURM_{name}") for name in ("PROCID", "NODEID", "LOCALID"))
    if tasks % machines:
        raise _contradiction(f"srun started {tasks} tasks on {machines} machines, which is not equally many on each")
    per_node = tasks // machines
    if rank != node * per_node + local:
        raise _contradiction(
            f"srun put task {rank} at place {local} of machine {node}, which needs --distribution=block:*"
        )
    address = told.variables.get("MASTER_ADDR") or first_host(told.variables.get("SLURM_STEP_NODELIST", ""))
    if not address:
        told.address()
    # Two jobs of one machine must not meet: the port follows from the number of the job.
    port = told.number("MASTER_PORT", 20000 + told.number("SLURM_JOB_ID", 0) % 20000)
    found = World(machines, per_node, node, local, address, port, "Slurm")
    return replace(found, per_node=count, local=None) if per_node == 1 and count > 1 else found


def first_host(nodes: str) -> str:
    """The first name of Slurm's list of nodes: `gpu[007-012,20],other` -> `gpu007`."""
    match = re.match(r"([^\[,]+)(?:\[([0-9]+)[^\]]*\])?([^\[,]*)", nodes.strip())
    return f"{match[1]}{match[2] or ''}{match[3]}" if match else ""


def _agreed(found: World, count: int, nodes: int, *, key: str) -> World:
    """The world, if it is what the spec asks for where that says anything. Raises SpecError."""
    for name, asked, started in (("num_gpus", count, found.per_node), ("num_nodes", nodes, found.nodes)):
        if asked not in (1, started):
            each = "processes on each machine" if name == "num_gpus" else "machines"
            raise SpecError(
                f"{found.launcher} says {started} {each}, but {key}.{name} is {asked}",
                where=f"{key}.{name}",
                hint=f"start as many as it says, or set {key}.{name}={started}",
            )
    return found
