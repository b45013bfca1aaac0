"""Gradients and the clipping settings -> clipped gradients, and the norm they had before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from oneformer.train.shares import local, tensor_norms

if TYPE_CHECKING:
    from oneformer.spec.train import TrainSpec

TINY = 1e-6  # in the divisor, as in torch's own clipping


def clip_gradients(parameters: Iterable[nn.Parameter], train: TrainSpec) -> Tensor:
    """Clip in place by `clip_gradients`, then by `clip_grad_norm`; returns the L2 norm of all gradients before (0-d).

    Both limits act one after the other, so the smaller wins. Call after unscaling and once per optimiser step. Norms
    are those of whole gradients: where these are split over processes, all of them have to call.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return torch.zeros(())
    norms = tensor_norms(grads, 2.0)
    before = torch.linalg.vector_norm(norms)
    spec = train.clip_gradients
    if spec.enabled:
        known = norms if spec.norm_type == 2.0 else None
        _limit(grads, spec.clip_type, spec.clip_value, norm_type=spec.norm_type, known=known)
    if train.clip_grad_norm:
        _limit(grads, train.clip_grad_type, train.clip_grad_norm, norm_type=train.clip_grad_norm_type)
    return before


def _limit(grads: list[Tensor], kind: str, limit: float, *, norm_type: float, known: Tensor | None = None) -> None:
    """Limit the norm of all gradients together (`full_model`, `full`), of each tensor (`norm`), numbers (`value`)."""
    shares = [local(grad) for grad in grads]
    if kind == "value":
        torch._foreach_clamp_min_(shares, -limit)
        torch._foreach_clamp_max_(shares, limit)
        return
    norms = tensor_norms(grads, norm_type) if known is None else known
    if kind == "norm":
        factors = (limit / (norms + TINY)).clamp(max=1.0)
        torch._foreach_mul_(shares, list(factors.unbind()))
    else:
        factor = (limit / (torch.linalg.vector_norm(norms, norm_type) + TINY)).clamp(max=1.0)
        torch._foreach_mul_(shares, factor)
