"""Gradients and the clipping settings -> clipped gradients, and the norm they had before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from oneformer.spec.train import TrainSpec


def clip_gradients(parameters: Iterable[nn.Parameter], train: TrainSpec) -> Tensor:
    """Clip in place by `clip_gradients`, then by `clip_grad_norm`; returns the L2 norm of all gradients before (0-d).

    Both limits act one after the other, so the smaller wins. Call after unscaling and once per optimiser step.
    """
    held = [p for p in parameters if p.grad is not None]
    grads = [p.grad for p in held if p.grad is not None]
    if not grads:
        return torch.zeros(())
    before = torch.nn.utils.get_total_norm(grads)
    spec = train.clip_gradients
    if spec.enabled:
        known = before if spec.norm_type == 2.0 else None
        _limit(held, spec.clip_type, spec.clip_value, norm_type=spec.norm_type, known=known)
    if train.clip_grad_norm:
        _limit(held, train.clip_grad_type, train.clip_grad_norm, norm_type=train.clip_grad_norm_type)
    return before


def _limit(
    held: Sequence[nn.Parameter], kind: str, limit: float, *, norm_type: float, known: Tensor | None = None
) -> None:
    """Limit the norm of all gradients together (`full_model`, `full`), of each tensor (`norm`), numbers (`value`)."""
    if kind == "norm":
        for parameter in held:
            torch.nn.utils.clip_grad_norm_(parameter, limit, norm_type)
    elif kind == "value":
        torch.nn.utils.clip_grad_value_(held, limit)
    else:
        grads = [p.grad for p in held if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads, norm_type) if known is None else known
        torch.nn.utils.clip_grads_with_norm_(held, limit, norm)
