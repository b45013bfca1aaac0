"""What torchrun, Slurm and orchestrators say is understood, and contradictions are refused by name."""

from __future__ import annotations

import pytest

from oneformer.errors import SpecError
from oneformer.train.world import World, first_host, world

MEETING = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "4000"}
TORCHRUN = {**MEETING, "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
TAO = {**MEETING, "WORLD_SIZE": "3", "NODE_RANK": "2", "NUM_GPU_PER_NODE": "8"}
SRUN = {
    "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "6", "SLURM_NODEID": "1",
    "SLURM_LOCALID": "2", "SLURM_STEP_NODELIST": "gpu[007,012]", "SLURM_JOB_ID": "41234567",
}  # fmt: skip


def of(told: dict[str, str], count: int = 1, nodes: int = 1) -> World:
    return world(count, nodes, key="train", told=told)


def test_without_variables_it_is_one_machine() -> None:
    assert of({}) == World() and of({}).first and of({}).size == 1
    assert of({}, count=4) == World(per_node=4)
    assert of({"WORLD_SIZE": "1", "RANK": "0"}) == World()


def test_torchrun_counts_processes() -> None:
    found = of(TORCHRUN)
    assert found == World(2, 4, 1, 1, "10.0.0.1", 4000, "torchrun")
    assert (found.rank, found.size, found.first) == (5, 8, False)
    assert of(TORCHRUN, count=4, nodes=2) == found


def test_an_orchestrator_counts_machines() -> None:
    found = of(TAO)
    assert found == World(3, 8, 2, None, "10.0.0.1", 4000, "the environment")
    assert (found.rank, found.size, found.first) == (16, 24, False)
    assert of({**TAO, "NODE_RANK": "0"}).first
    assert of({**TAO, "MASTER_PORT": ""}).port == 29500
    by_rank = {**MEETING, "WORLD_SIZE": "2", "RANK": "1"}  # one process on each machine: both meanings are one
    assert (of(by_rank).nodes, of(by_rank).rank) == (2, 1)


def test_world_size_may_count_processes_where_the_machines_are_known() -> None:
    kubeflow = {**MEETING, "WORLD_SIZE": "16", "RANK": "1", "NNODES": "2", "NPROC_PER_NODE": "8"}
    assert (
        of(kubeflow) == of({**kubeflow, "WORLD_SIZE": "2"}) == World(2, 8, 1, None, "10.0.0.1", 4000, "the environment")
    )
    spec_says = {**MEETING, "WORLD_SIZE": "8", "NODE_RANK": "1"}
    assert of(spec_says, count=4, nodes=2) == of({**spec_says, "WORLD_SIZE": "2"}, count=4, nodes=2)


def test_tasks_of_slurm() -> None:
    assert of(SRUN) == World(2, 4, 1, 2, "gpu007", 20000 + 41234567 % 20000, "Slurm")
    each = {**SRUN, "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}
    assert of(each, count=4) == World(2, 4, 1, None, "gpu007", 20000 + 41234567 % 20000, "Slurm")
    assert of({**SRUN, "SLURM_STEP_NUM_TASKS": "1"}, count=2) == World(per_node=2)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu[007-012,20],x", "gpu007"), ("a", "a"), ("a,b[1-2]", "a"), ("r[1-2]-ib", "r1-ib"), ("", "")],
)
def test_the_first_of_slurms_nodes(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


@pytest.mark.parametrize(
    ("told", "count", "nodes", "message"),
    [
        ({}, 1, 2, "no launcher started this process"),
        ({**TAO, "MASTER_ADDR": ""}, 1, 1, "MASTER_ADDR is not set"),
        ({**TAO, "NODE_RANK": ""}, 1, 1, "NODE_RANK is not set"),
        ({**TAO, "NODE_RANK": "3"}, 1, 1, "NODE_RANK=3 is not below WORLD_SIZE=3"),
        ({**TAO, "NODE_RANK": "one"}, 1, 1, "NODE_RANK is 'one', which is no number"),
        ({**TAO, "WORLD_SIZE": "-2"}, 1, 1, "WORLD_SIZE is '-2'"),
        ({**TAO, "RANK": "1"}, 1, 1, "NODE_RANK=2 and RANK=1 name different machines"),
        ({**TAO, "NNODES": "4"}, 1, 1, "WORLD_SIZE=3 is neither 4 machines (NNODES=4) nor the 32 processes"),
        ({**TAO}, 4, 1, "the environment says 8 processes on each machine, but train.num_gpus is 4"),
        ({**TAO}, 1, 2, "WORLD_SIZE=3 is neither 2 machines (num_nodes=2) nor the 16 processes"),
        ({**MEETING, "WORLD_SIZE": "4", "RANK": "1"}, 2, 1, "WORLD_SIZE=4 may count machines or processes"),
        ({**TORCHRUN, "RANK": ""}, 1, 1, "RANK is not set"),
        ({**TORCHRUN, "RANK": "8"}, 1, 1, "RANK=8 is not below WORLD_SIZE=8"),
        ({**TORCHRUN, "RANK": "6"}, 1, 1, "RANK=6 is process 2 of its machine at LOCAL_WORLD_SIZE=4, but LOCAL_RANK=1"),
        ({**TORCHRUN, "WORLD_SIZE": "7"}, 1, 1, "WORLD_SIZE=7 processes cannot be 4 on each machine"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": ""}, 1, 1, "LOCAL_WORLD_SIZE is not set"),
        (TORCHRUN, 2, 1, "torchrun says 4 processes on each machine, but train.num_gpus is 2"),
        (TORCHRUN, 4, 3, "torchrun says 2 machines, but train.num_nodes is 3"),
        ({"LOCAL_RANK": "0"}, 1, 1, "WORLD_SIZE is not set"),
        ({"WORLD_SIZE": "1", "LOCAL_RANK": "0"}, 2, 1, "torchrun says 1 processes on each machine"),
        ({**SRUN, "SLURM_STEP_NUM_TASKS": "7"}, 1, 1, "7 tasks on 2 machines"),
        ({**SRUN, "SLURM_PROCID": "5"}, 1, 1, "--distribution=block"),
        ({**SRUN, "SLURM_STEP_NODELIST": ""}, 1, 1, "MASTER_ADDR is not set"),
    ],
)  # fmt: skip
def test_what_is_missing_or_contradicts_is_refused_by_name(
    told: dict[str, str], count: int, nodes: int, message: str
) -> None:
    with pytest.raises(SpecError) as error:
        of(told, count, nodes)
    assert message in error.value.what
    assert error.value.where


def test_a_process_tells_torch_its_place() -> None:
    assert of(TAO).variables(1, 4000) == {
        **MEETING, "RANK": "17", "LOCAL_RANK": "1", "WORLD_SIZE": "24", "LOCAL_WORLD_SIZE": "8", "NODE_RANK": "2",
    }  # fmt: skip
    assert of(of(TAO).variables(1, 4000)) == World(3, 8, 2, 1, "10.0.0.1", 4000, "torchrun")
