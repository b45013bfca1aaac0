"""Tensors that may be split over processes -> this process's shares, whole tensors, and the norms of whole tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def local(tensor: Tensor) -> Tensor:
    """This process's share of a tensor, on the same memory; a tensor that is not split is its own share."""
    return tensor._local_tensor if isinstance(tensor, DTensor) else tensor


def share_of(whole: Tensor, like: Tensor) -> Tensor:
    """This process's share of a whole tensor, split as `like` is. No process waits for another."""
    if not isinstance(like, DTensor):
        return whole
    moved = whole.to(device=like.device)
    return distribute_tensor(moved, like.device_mesh, like.placements, src_data_rank=None)


def with_share(like: Tensor, share: Tensor) -> Tensor:
    """A tensor of this process's share (and the others' theirs), split as `like` is."""
    if not isinstance(like, DTensor):
        return share
    return DTensor.from_local(share, like.device_mesh, like.placements, shape=like.shape, stride=like.stride())


def whole(value: Any, *, keep: bool) -> Any:
    """Nested content with its split tensors put together, on the CPU; to be called by all processes at once.

    One tensor at a time is whole; where `keep` is false (all processes but the one that writes) it is let go at once.
    """
    if isinstance(value, DTensor):
        full: Tensor = value.full_tensor().detach()
        return full.cpu() if keep else None
    if isinstance(value, Mapping):
        return {key: whole(item, keep=keep) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(whole(item, keep=keep) for item in value)
    return value


def tensor_norms(tensors: Sequence[Tensor], order: float) -> Tensor:
    """The norm of each tensor, (n,), of split ones over all their shares."""
    shares = [local(tensor) for tensor in tensors]
    zero = torch.zeros((), dtype=shares[0].dtype, device=shares[0].device)
    filled = iter(torch._foreach_norm([share for share in shares if share.numel()], order))
    norms = torch.stack([next(filled) if share.numel() else zero for share in shares])
    split_ones = [isinstance(tensor, DTensor) for tensor in tensors]
    if not any(split_ones):
        return norms
    if order == float("inf"):
        dist.all_reduce(norms, op=dist.ReduceOp.MAX)
        return norms
    weights = [1.0 if one else 1 / dist.get_world_size() for one in split_ones]
    powers = norms**order * torch.tensor(weights, dtype=norms.dtype, device=norms.device)
    dist.all_reduce(powers)
    return powers ** (1 / order)
