"""Deformable sampling on a GPU: Triton's kernels beside `grid_sample` and the time that their bytes take.

    python benchmarks/deform_gpu.py [--size 1024] [--batch 1] [--rounds 20]

The layer's own part of the work, without projections: three levels of an image of the given size (1/32, 1/16, 1/8),
8 heads with 4 points each, 32 channels to a head, values in float32, float16 and bfloat16. Every input read once and
every output written once is the floor, at the speed of a large copy in the same run.

Without a GPU it says so and measures nothing. With TRITON_INTERPRET=1 and a size of 64 it rehearses on the CPU, to see
that it runs: the times then mean nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from _command import parser, run
from _measure import Spread
from _report import Row
from oneformer.model.deform import sample_grid, token_centers

HEADS, POINTS, CHANNELS = 8, 4, 32
REPEATS = 20  # calls between two looks at the clock: one call may take less than its launch
COPY_MIB = 1024
# Against float64 sums of the same rounded values: sums of about 50 numbers in float32, and the rounding of a gradient.
BOUNDS = {torch.float32: 1e-4, torch.float16: 1e-3, torch.bfloat16: 8e-3}


class Problem:
    """Inputs as the first layer of a pixel decoder sees them: places within a few pixels of each token's own."""

    def __init__(self, size: int, batch: int, dtype: torch.dtype, device: torch.device) -> None:
        self.sizes = tuple((size // stride, size // stride) for stride in (32, 16, 8))
        tokens = sum(h * w for h, w in self.sizes)
        draw = torch.Generator().manual_seed(0)
        centers = token_centers(self.sizes, device=device)[None, :, None, :, None, :]
        offsets = 3 * torch.randn(batch, tokens, HEADS, 3, POINTS, 2, generator=draw)
        value = torch.randn(batch, tokens, HEADS, CHANNELS, generator=draw)
        weights = torch.rand(batch, tokens, HEADS, 3 * POINTS, generator=draw).softmax(-1)
        self.inputs = [
            value.to(device, dtype).requires_grad_(),
            (centers + offsets.to(device)).requires_grad_(),
            weights.to(device).unflatten(-1, (3, POINTS)).requires_grad_(),
        ]
        self.grad = torch.randn(batch, tokens, HEADS * CHANNELS, generator=draw).to(device)

    def triton(self) -> Tensor:
        from oneformer.model.deform_triton import sample_triton

        return sample_triton(*self.inputs, self.sizes)

    def grid(self) -> Tensor:
        value, pixels, weights = self.inputs
        return sample_grid(value.to(weights.dtype), pixels, weights, self.sizes)

    def both_ways(self, forward: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        """All gradients."""
        return torch.autograd.grad(forward(), self.inputs, self.grad)

    def least_bytes(self) -> tuple[int, int]:
        """What a forward pass, and what forward and backward, have to read and write."""
        inputs = sum(x.nbytes for x in self.inputs)
        forward = inputs + self.grad.nbytes  # the result is as large as its gradient
        return forward, forward + self.grad.nbytes + 2 * inputs


def timed(sides: dict[str, Callable[[], object]], device: torch.device, rounds: int) -> dict[str, Spread]:
    """Milliseconds of a call of each side, in turn, by the GPU's own clock."""
    repeats, warm_up = (REPEATS, 2) if device.type == "cuda" else (1, 0)  # the first calls compile
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + warm_up):
        for name, step in sides.items():
            if device.type == "cuda":
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                for _ in range(repeats):
                    step()
                end.record()
                end.synchronize()
                spent = start.elapsed_time(end) / repeats
            else:
                begin = time.perf_counter()
                step()
                spent = 1000 * (time.perf_counter() - begin)
            if turn >= warm_up:
                times[name].append(spent)
    return {name: Spread.of(values) for name, values in times.items()}


def bytes_per_ms(device: torch.device, rounds: int) -> float:
    """Bytes that a large copy reads and writes in a millisecond."""
    source = torch.ones((COPY_MIB if device.type == "cuda" else 16) * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / timed({"copy": lambda: target.copy_(source)}, device, rounds)["copy"].median


def memory_mib(step: Callable[[], object], device: torch.device) -> float:
    """The most GPU memory that a call holds beside its inputs."""
    if device.type != "cuda":
        return 0.0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def agree(problem: Problem, dtype: torch.dtype) -> None:
    """Both computations find the same result and gradients, relative to the largest entry."""
    made = [[side().detach(), *problem.both_ways(side)] for side in (problem.triton, problem.grid)]
    for ours, theirs in zip(*made, strict=True):
        error = float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max())
        assert error <= BOUNDS[dtype], f"the kernels differ from grid_sample by {error:.2g} in {dtype}"


def measure(options: argparse.Namespace) -> list[Row]:
    """A forward pass, and forward and backward, for each type of the values."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    speed = bytes_per_ms(device, options.rounds)
    print(f"{torch.cuda.get_device_name() if device.type == 'cuda' else 'a rehearsal on the CPU'}: ", end="")
    print(f"a large copy moves {speed / 1e9:.2f} TB/s")
    rows = []
    for dtype in BOUNDS:
        problem = Problem(options.size, options.batch, dtype, device)
        agree(problem, dtype)
        paths = {"triton": problem.triton, "grid": problem.grid}
        back = {name: partial(problem.both_ways, path) for name, path in paths.items()}
        with torch.no_grad():
            forward_times = timed(paths, device, options.rounds)
        works = {"forward": (forward_times, paths), "forward and backward": (timed(back, device, options.rounds), back)}
        for (work, (times, sides)), count in zip(works.items(), problem.least_bytes(), strict=True):
            floor = count / speed
            held = [memory_mib(step, device) for step in sides.values()]
            rows.append(
                Row(
                    f"{work}, {options.batch}x{options.size}x{options.size}, {str(dtype).removeprefix('torch.')}",
                    in_us(times["triton"]),
                    in_us(times["grid"]),
                    "grid_sample",
                    unit="us",
                    note=f"{floor / times['triton'].median:.0%} of the floor's speed: {count / 2**20:.0f} MiB in "
                    f"{1000 * floor:.0f} us; holds {held[0]:.0f} and {held[1]:.0f} MiB",
                )
            )
    return rows


def in_us(times: Spread) -> Spread:
    return Spread(*(1000 * value for value in times))


if __name__ == "__main__":
    made = parser(__doc__, rounds=20)
    made.add_argument("--size", type=int, default=1024)
    made.add_argument("--batch", type=int, default=1)
    chosen = made.parse_args()
    if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
        print("torch sees no CUDA GPU here: nothing was measured")
        sys.exit(0)
    run(measure, chosen)
