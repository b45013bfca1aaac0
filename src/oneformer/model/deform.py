"""Queries and a pyramid of values -> values mixed from a few learned places: multi-scale deformable attention.

Deformable DETR, arXiv:2010.04159, equation 3. There are three computations of the same sampling, each in a file of its
own: `sample_grid` is made of `grid_sample` and goes into exported graphs, `sample_rows` is for the CPU, `sample_triton`
for NVIDIA GPUs. deform_path.py chooses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from oneformer.model.deform_grid import sample_grid
from oneformer.model.deform_path import forced, path_for
from oneformer.model.deform_rows import sample_rows
from oneformer.model.layers import full_precision

Sizes = Sequence[tuple[int, int]]
"""Height and width of each level."""


class DeformableAttention(nn.Module):
    """Each query reads `points` places per level and head, at learned offsets from its own place in the image."""

    def __init__(self, dim: int, *, heads: int, levels: int, points: int) -> None:
        super().__init__()
        assert dim % heads == 0, f"{dim} channels do not divide into {heads} heads"
        forced()  # a wrong name is told before anything is computed
        self.heads, self.levels, self.points = heads, levels, points
        self.value_proj = nn.Linear(dim, dim)
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * levels * points)
        self.output_proj = nn.Linear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Heads start out looking in `heads` directions, point p at distance p+1 (Deformable DETR, appendix A.2)."""
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        for linear in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        angle = torch.arange(self.heads, dtype=torch.float32, device="cpu") * (2 * math.pi / self.heads)
        ray = torch.stack((angle.cos(), angle.sin()), dim=1)  # (heads, 2)
        ray = ray / ray.abs().amax(dim=1, keepdim=True)
        distance = torch.arange(1, self.points + 1, dtype=torch.float32, device="cpu")
        bias = ray[:, None, None, :] * distance[None, None, :, None]  # (heads, 1, points, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(bias.expand(-1, self.levels, -1, -1).flatten())

    def forward(self, query: Tensor, source: Tensor, centers: Tensor, sizes: Sizes) -> Tensor:
        """Query and source (B, S, C), centers (S, L, 2) from `token_centers` -> (B, S, C)."""
        value = self.value_proj(source).unflatten(-1, (self.heads, -1))  # (B, S, heads, C/heads)
        with full_precision(query):  # half a pixel at 1/8 scale is beyond bfloat16
            query = query.float()
            offsets = self.sampling_offsets(query).unflatten(-1, (self.heads, -1))  # (B, S, heads, L*points*2)
            # Long inner dimensions make the elementwise work of this layer several times faster on a CPU.
            centers = centers[:, None, :, None, :].expand(-1, -1, -1, self.points, -1).flatten(2)  # (S, 1, L*points*2)
            pixels = (offsets + centers).unflatten(-1, (self.levels, self.points, 2))
            weights = short_softmax(self.attention_weights(query).unflatten(-1, (self.heads, -1)))
            weights = weights.unflatten(-1, (self.levels, self.points))  # (B, S, heads, L, points)
            mixed = sample(value, pixels, weights, sizes)
        return self.output_proj(mixed)


def short_softmax(x: Tensor) -> Tensor:
    """Softmax over a short last dimension: torch's own takes four times as long on rows of twelve on a CPU."""
    powers = (x - x.detach().amax(-1, keepdim=True)).exp()
    return powers / powers.sum(-1, keepdim=True)


def token_centers(sizes: Sizes, *, device: torch.device) -> Tensor:
    """Where each token of a pyramid lies in each level: (S, L, 2) float32, (x, y) in pixels of that level.

    Whole numbers are cell centres.
    """
    centers = []
    for height, width in sizes:
        y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
        x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
        centers.append(torch.stack((x.expand(height, -1), y[:, None].expand(-1, width)), dim=2).flatten(0, 1))
    relative = torch.cat(centers)  # (S, 2), 0..1
    scale = torch.tensor([[width, height] for height, width in sizes], dtype=torch.float32, device=device)
    return relative[:, None, :] * scale - 0.5  # (S, L, 2)


def sample(value: Tensor, pixels: Tensor, weights: Tensor, sizes: Sizes) -> Tensor:
    """Weighted sum of bilinear samples, zero outside the maps.

    Args:
        value: (B, S, heads, d), the levels one after the other; half precision is widened.
        pixels: (B, Q, heads, L, points, 2), (x, y) in pixels of the level, cell centres at whole numbers.
        weights: (B, Q, heads, L, points).
        sizes: height and width of each level; their areas add up to S.

    Returns:
        (B, Q, heads*d).
    """
    path = path_for(value)
    if path == "grid":
        return sample_grid(value.to(weights.dtype), pixels, weights, sizes)
    if path == "rows":
        return sample_rows(value, pixels, weights, tuple(sizes))
    from oneformer.model.deform_triton import sample_triton  # Triton is there on GPUs only

    return sample_triton(value, pixels, weights, sizes)
