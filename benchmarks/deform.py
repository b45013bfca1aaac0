"""Deformable attention of one pixel-decoder layer, forward and backward: ours on table rows, ours on `grid_sample`,
and transformers', with equal weights -> times and ratios.

    python benchmarks/deform.py [--size 512] [--rounds 5] [--one-thread]

The layer sees three levels of an image of the given size (1/32, 1/16, 1/8), 8 heads with 4 points each, 256 channels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor
from transformers.models.oneformer.modeling_oneformer import OneFormerPixelDecoderEncoderMultiscaleDeformableAttention

from _command import parser, run
from _measure import in_turn
from _report import Row
from oneformer.model import deform

DIM, HEADS, POINTS = 256, 8, 4
TOLERANCE = 1e-4


class Layer:
    """The same attention three times, and its inputs."""

    def __init__(self, size: int) -> None:
        self.sizes = [(size // stride, size // stride) for stride in (32, 16, 8)]
        self.attention = deform.DeformableAttention(DIM, heads=HEADS, levels=3, points=POINTS)
        with torch.no_grad():
            self.attention.sampling_offsets.weight.normal_(std=0.05)
            self.attention.attention_weights.weight.normal_(std=0.05)
        self.peer = OneFormerPixelDecoderEncoderMultiscaleDeformableAttention(DIM, HEADS, 3, POINTS)
        self.peer.load_state_dict(self.attention.state_dict())
        self.x = torch.randn(1, sum(h * w for h, w in self.sizes), DIM, requires_grad=True)
        self.centers = deform.token_centers(self.sizes, device=self.x.device)

    def rows(self) -> Tensor:
        out: Tensor = self.attention(self.x, self.x, self.centers, self.sizes)
        return out

    def grid(self) -> Tensor:
        with mock.patch.object(deform, "sample", deform.sample_grid):
            return self.rows()

    def theirs(self) -> Tensor:
        shapes = torch.tensor(self.sizes)
        out: Tensor = self.peer(
            self.x,
            encoder_hidden_states=self.x,
            reference_points=((self.centers + 0.5) / shapes.flip(1))[None],
            spatial_shapes=shapes,
            spatial_shapes_list=self.sizes,
        )[0]
        return out


def both_ways(forward: Callable[[], Tensor], x: Tensor) -> Callable[[], Tensor | None]:
    """Forward and backward; gives the gradient of the tokens."""

    def step() -> Tensor | None:
        x.grad = None
        forward().square().sum().backward()
        return x.grad

    return step


def measure(options: argparse.Namespace) -> list[Row]:
    """Forward alone and with backward; first the three must agree."""
    torch.manual_seed(0)
    layer = Layer(options.size)
    sides = {"ours": layer.rows, "grid": layer.grid, "theirs": layer.theirs}
    back = {name: both_ways(forward, layer.x) for name, forward in sides.items()}
    for made in ({name: forward() for name, forward in sides.items()}, {name: step() for name, step in back.items()}):
        for name in ("grid", "theirs"):
            torch.testing.assert_close(made["ours"], made[name], rtol=TOLERANCE, atol=TOLERANCE)
    with torch.no_grad():
        forward_times = in_turn(sides, rounds=options.rounds)
    back_times = in_turn(back, rounds=options.rounds)
    return [
        Row(f"{work}, {options.size}x{options.size}, fp32{suffix}", times["ours"], times[peer], name)
        for work, times in (("forward", forward_times), ("forward and backward", back_times))
        for peer, name, suffix in (("theirs", "transformers", ""), ("grid", "our grid_sample path", ", two paths"))
    ]


if __name__ == "__main__":
    made = parser(__doc__, rounds=7)
    made.add_argument("--size", type=int, default=512)
    run(measure, made.parse_args())
