"""One of the processes that split a network: how far its gradients, norms and averages are from those of a whole one.

`python split_run.py NAME ...` prints, on the first process, a JSON object of the largest differences for each backbone.
torch's variables (RANK, ...) tell the process its place. All is computed in float64.
"""

from __future__ import annotations

import copy
import json
import sys
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from model.specs import TASK_IDS, section_of, tiny_spec
from oneformer.model.oneformer import OneFormer, build_model
from oneformer.train.ema import Average
from oneformer.train.sharded import put_together, split, take_apart
from oneformer.train.shares import share_of, tensor_norms, whole


def network(name: str) -> OneFormer:
    """A tiny network, the same in every process; `NAME+` recomputes activations in the backward pass."""
    torch.manual_seed(0)
    spec = tiny_spec(name.removesuffix("+"))
    again = name.endswith("+")
    section_of(spec).use_checkpoint = again
    model = build_model(spec).double()
    model.set_activation_checkpointing(again)
    return model


def loss(model: OneFormer, rank: int) -> Tensor:
    """Of images that each process has its own of."""
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)
    tokens = torch.zeros(1, 77, dtype=torch.float64)
    tokens[0, : len(TASK_IDS)] = torch.tensor(TASK_IDS, dtype=torch.float64) / 50_000
    decoded = model.decode(model.features(images), tokens)
    return decoded.class_logits.square().mean() + decoded.mask_logits.square().mean() + decoded.queries.abs().mean()


def farthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference, as a share of the largest number."""
    assert one.keys() == other.keys()
    largest = max(float(value.abs().max()) for value in one.values())
    return max(float((value - other[name]).abs().max()) for name, value in one.items()) / largest


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """By name, split or not."""
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def compare(name: str) -> dict[str, float]:
    """The differences for one backbone."""
    rank, size = dist.get_rank(), dist.get_world_size()
    alone = network(name)
    parts = copy.deepcopy(alone)
    scale = nn.Linear(1, 1).double()  # in the place of the criterion, whose parameters stay whole
    split(parts, scale, init_device_mesh("cpu", (size,)))
    found: dict[str, float] = {}
    loss(alone, rank).backward()
    for gradient in gradients(alone).values():
        dist.all_reduce(gradient.div_(size))
    loss(parts, rank).backward()
    found["gradients"] = farthest(gradients(alone), whole(gradients(parts), keep=True))
    for order in (1.0, 2.0, float("inf")):
        norms = [tensor_norms(list(gradients(model).values()), order) for model in (alone, parts)]
        found[f"norm {order}"] = float((norms[0] - norms[1]).abs().max() / norms[0].max())
    averages = [Average(model, 0.9) for model in (alone, parts)]
    for model, average in zip((alone, parts), averages, strict=True):
        torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True).step()
        average.update()
        average.swap()
    with torch.no_grad():
        put_together(parts)
        found["scored"] = float((loss(alone, rank) - loss(parts, rank)).abs())
        if rank == 0:  # one that has more to score than the others
            loss(parts, 5)
        take_apart(parts)
    for average in averages:
        average.swap()
    found["average"] = farthest(averages[0].state_dict(), whole(averages[1].state_dict(), keep=True))
    found["weights"] = farthest(alone.state_dict(), whole(parts.state_dict(), keep=True))
    again = {key: share_of(alone.state_dict()[key], value) for key, value in parts.state_dict().items()}
    found["shares"] = farthest(alone.state_dict(), whole(again, keep=True))
    return found


def main(names: list[str]) -> None:
    """All backbones, one after the other."""
    dist.init_process_group("gloo")
    torch.set_default_dtype(torch.float64)
    with mock.patch.object(Tensor, "float", Tensor.double):  # what is float32 on purpose is no part of this
        found: dict[str, Any] = {name: compare(name) for name in names}
    if dist.get_rank() == 0:
        sys.stdout.write(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
