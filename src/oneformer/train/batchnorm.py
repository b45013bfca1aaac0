"""A network with batch normalisation -> the same one with statistics of the images of all processes.

torch's SyncBatchNorm does this on GPUs only; on processors `SharedBatchNorm` does.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from typing_extensions import override


def share_statistics(network: nn.Module, *, gpu: bool) -> None:
    """Exchange the batch normalisations of a network in place; parameters, statistics and their names stay.

    Frozen ones are not touched: they use the statistics that they were given.
    """
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d) and not isinstance(child, SharedBatchNorm):
                module.add_module(name, nn.SyncBatchNorm.convert_sync_batchnorm(child) if gpu else _shared(child))


def _shared(norm: nn.BatchNorm2d) -> SharedBatchNorm:
    shared = SharedBatchNorm(norm.num_features, eps=norm.eps, momentum=norm.momentum, affine=norm.affine)
    shared._parameters, shared._buffers = norm._parameters, norm._buffers
    return shared.train(norm.training)


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the mean and variance over the images of all processes, however many each has."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W); in evaluation, or with one process, what torch's own does."""
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(input)
        x = input if input.dtype == torch.float64 else input.float()
        normed, mean, variance, count = _Normalise.apply(x, self.eps)
        self._remember(mean, variance * (count / (count - 1)))
        if self.weight is not None:
            normed = normed * self.weight[:, None, None] + self.bias[:, None, None]
        return normed.to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, by `momentum` or, without one, to the mean of all batches."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        part = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), part)
        self.running_var.lerp_(variance.to(self.running_var.dtype), part)


class _Normalise(torch.autograd.Function):
    """Maps (B, C, H, W) of this process -> with mean 0 and variance 1 over all processes; mean, variance, count.

    The gradient is that of the sum of all processes' losses, as for torch's SyncBatchNorm.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        own = x.transpose(0, 1).flatten(1)  # (C, B*H*W)
        sums = torch.stack((own.sum(1), torch.full_like(own[:, 0], own.shape[1])))  # (2, C)
        dist.all_reduce(sums)
        mean, count = sums[0] / sums[1], sums[1, 0]
        # The squares of what is left, in a second round: those of x itself would lose the digits of a far mean.
        squares = (own - mean[:, None]).square().sum(1)
        dist.all_reduce(squares)
        variance = squares / count
        scale = (variance + eps).rsqrt()
        normed = (x - mean[:, None, None]) * scale[:, None, None]
        ctx.save_for_backward(normed, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return normed, mean, variance, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        normed, scale, count = ctx.saved_tensors
        grad = grads[0]
        sums = torch.stack((grad.sum((0, 2, 3)), (grad * normed).sum((0, 2, 3))))  # (2, C)
        dist.all_reduce(sums)
        shift, slope = (sums / count)[:, :, None, None]
        return (grad - shift - normed * slope) * scale[:, None, None], None
