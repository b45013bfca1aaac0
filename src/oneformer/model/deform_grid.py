"""Deformable sampling in plain PyTorch: values, places and weights -> weighted sums. The others must equal it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_grid(value: Tensor, pixels: Tensor, weights: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """`deform.sample` by one `grid_sample` for each level and point, heads folded into the batch."""
    heads, d = value.shape[2:]
    queries, points = pixels.shape[1], pixels.shape[4]
    planes = value.permute(0, 2, 3, 1).flatten(0, 1)  # (B*heads, d, S)
    places = pixels.permute(3, 4, 0, 2, 1, 5).flatten(2, 3).unsqueeze(3)  # (L, points, B*heads, 1, Q, 2)
    shares = weights.permute(3, 4, 0, 2, 1).flatten(2, 3).unsqueeze(3)  # (L, points, B*heads, 1, Q)
    mixed: Tensor | None = None
    start = 0
    for level, (height, width) in enumerate(sizes):
        plane = planes[:, :, start : start + height * width].unflatten(2, (height, width))  # (B*heads, d, h, w)
        start += height * width
        scale = torch.tensor([2.0 / width, 2.0 / height], dtype=pixels.dtype, device=pixels.device)
        grids = (places[level] + 0.5) * scale - 1
        for point in range(points):  # runtimes of exported graphs multiply and add faster than they sum over an axis
            read = F.grid_sample(plane, grids[point], mode="bilinear", padding_mode="zeros", align_corners=False)
            part = read.squeeze(2) * shares[level, point]  # (B*heads, d, Q)
            mixed = part if mixed is None else mixed + part
    assert mixed is not None
    return mixed.unflatten(0, (-1, heads)).permute(0, 3, 1, 2).reshape(-1, queries, heads * d)
