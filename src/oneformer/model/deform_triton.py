"""Deformable sampling on NVIDIA GPUs: values, places and weights -> weighted sums, by two kernels written in Triton.

One program computes a block of queries of one head of one image. Neighbouring queries look at neighbouring places, so
a program's reads fall on few cache lines, and a pixel's channels are read side by side. Samples never exist in memory,
where `grid_sample` writes and reads them all. Whatever the values' precision, sums are made in float32.

With TRITON_INTERPRET=1 in the environment before Python starts, Triton runs the same kernels on CPU tensors.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# Numbers of a tile, and warps that share it: a thread holds eight numbers, in float32 two loads of 16 bytes. With 32
# channels to a head, a program of the forward pass has 32 queries. One of the backward pass has 8 queries in one warp:
# sums over channels stay within it, where several warps would wait for each other at every sample. Nothing is tuned by
# trial, for each trial is a compilation in the middle of a training. The figures are in docs/decisions/0007.
FORWARD, BACKWARD = (1024, 4), (256, 1)


@triton.jit(do_not_specialize=["queries", "tokens"])  # image sizes change: they must not lead to another compilation
def forward_kernel(
    value: tl.tensor,
    pixels: tl.tensor,
    weights: tl.tensor,
    levels: tl.tensor,
    mixed: tl.tensor,
    queries: tl.tensor,
    tokens: tl.tensor,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    BLOCK: tl.constexpr,
    PADDED: tl.constexpr,
    SUM: tl.constexpr,
) -> None:
    """Writes `mixed` (B, Q, HEADS*D); see `launch` for the other arguments."""
    image, head, bag, live = own_block(queries, HEADS, BLOCK)
    bags = tl.arange(0, BLOCK) * HEADS  # (BLOCK,), counted from `bag`
    plane = value + image * tokens * (HEADS * D) + head * D
    pixels += bag * (LEVELS * POINTS * 2)
    weights += bag * (LEVELS * POINTS)
    total = tl.zeros((BLOCK, PADDED), SUM)
    for level in range(LEVELS):
        for point in tl.static_range(POINTS):
            at = bags * (LEVELS * POINTS) + level * POINTS + point
            row, width, fx, fy, left, right, top, bottom = corners(pixels + 2 * at, live, levels + 3 * level, SUM)
            weight = tl.load(weights + at, mask=live, other=0.0).to(SUM)
            part = read(plane, row, left & top, HEADS, D, PADDED, SUM) * ((1 - fx) * (1 - fy))[:, None]
            part += read(plane, row + 1, right & top, HEADS, D, PADDED, SUM) * (fx * (1 - fy))[:, None]
            part += read(plane, row + width, left & bottom, HEADS, D, PADDED, SUM) * ((1 - fx) * fy)[:, None]
            part += read(plane, row + width + 1, right & bottom, HEADS, D, PADDED, SUM) * (fx * fy)[:, None]
            total += part * weight[:, None]
    places, real = channels(bags, live, D, PADDED)
    tl.store(mixed + bag * D + places, total, mask=real)


@triton.jit(do_not_specialize=["queries", "tokens"])
def backward_kernel(
    grad: tl.tensor,
    value: tl.tensor,
    pixels: tl.tensor,
    weights: tl.tensor,
    levels: tl.tensor,
    grad_value: tl.tensor,
    grad_pixels: tl.tensor,
    grad_weights: tl.tensor,
    queries: tl.tensor,
    tokens: tl.tensor,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    BLOCK: tl.constexpr,
    PADDED: tl.constexpr,
    SUM: tl.constexpr,
) -> None:
    """Adds to `grad_value`, which is of type SUM and zero before; writes the other two gradients."""
    image, head, bag, live = own_block(queries, HEADS, BLOCK)
    bags = tl.arange(0, BLOCK) * HEADS
    plane = value + image * tokens * (HEADS * D) + head * D
    grad_plane = grad_value + image * tokens * (HEADS * D) + head * D
    pixels, grad_pixels = pixels + bag * (LEVELS * POINTS * 2), grad_pixels + bag * (LEVELS * POINTS * 2)
    weights, grad_weights = weights + bag * (LEVELS * POINTS), grad_weights + bag * (LEVELS * POINTS)
    places, real = channels(bags, live, D, PADDED)
    out = tl.load(grad + bag * D + places, mask=real, other=0.0).to(SUM)
    for level in range(LEVELS):
        for point in range(POINTS):
            at = bags * (LEVELS * POINTS) + level * POINTS + point
            row, width, fx, fy, left, right, top, bottom = corners(pixels + 2 * at, live, levels + 3 * level, SUM)
            weight = tl.load(weights + at, mask=live, other=0.0).to(SUM)
            top_left = tl.sum(read(plane, row, left & top, HEADS, D, PADDED, SUM) * out, 1)
            top_right = tl.sum(read(plane, row + 1, right & top, HEADS, D, PADDED, SUM) * out, 1)
            bottom_left = tl.sum(read(plane, row + width, left & bottom, HEADS, D, PADDED, SUM) * out, 1)
            bottom_right = tl.sum(read(plane, row + width + 1, right & bottom, HEADS, D, PADDED, SUM) * out, 1)
            above = top_left + fx * (top_right - top_left)
            below = bottom_left + fx * (bottom_right - bottom_left)
            slope_x = (1 - fy) * (top_right - top_left) + fy * (bottom_right - bottom_left)
            tl.store(grad_weights + at, above + fy * (below - above), mask=live)
            tl.store(grad_pixels + 2 * at, weight * slope_x, mask=live)
            tl.store(grad_pixels + 2 * at + 1, weight * (below - above), mask=live)
            share = out * weight[:, None]
            add(grad_plane, row, left & top, share * ((1 - fx) * (1 - fy))[:, None], HEADS, D, PADDED)
            add(grad_plane, row + 1, right & top, share * (fx * (1 - fy))[:, None], HEADS, D, PADDED)
            add(grad_plane, row + width, left & bottom, share * ((1 - fx) * fy)[:, None], HEADS, D, PADDED)
            add(grad_plane, row + width + 1, right & bottom, share * (fx * fy)[:, None], HEADS, D, PADDED)


@triton.jit
def own_block(queries: tl.tensor, HEADS: tl.constexpr, BLOCK: tl.constexpr) -> tl.tuple:
    """This program's image (int64) and head, its first bag (int64), and which of its queries exist, (BLOCK,).

    A bag is what one head of one query reads: bags are numbered by image, query and head, as the tensors are laid out.
    Whatever grows with the batch is counted in 64 bits, what lies within a block or an image in 32.
    """
    program = tl.program_id(0)
    head = program % HEADS
    blocks = tl.cdiv(queries, BLOCK)
    image = (program // HEADS // blocks).to(tl.int64)
    first = program // HEADS % blocks * BLOCK
    live = first + tl.arange(0, BLOCK) < queries
    return image, head, (image * queries + first) * HEADS + head, live


@triton.jit
def corners(places: tl.tensor, live: tl.tensor, level: tl.tensor, SUM: tl.constexpr) -> tl.tuple:
    """Pointers to (x, y) and one to a level's height, width and start -> where the four pixels around each place are.

    Row of the top left pixel in the image's tokens; width; fractions; whether left, right, top and bottom pixels exist.
    """
    height, width, start = tl.load(level), tl.load(level + 1), tl.load(level + 2)
    x = tl.load(places, mask=live, other=-2.0).to(SUM)
    y = tl.load(places + 1, mask=live, other=-2.0).to(SUM)
    near = (x >= -1) & (x < width) & (y >= -1) & (y < height)  # not so for NaN
    x, y = tl.where(near, x, 0.0), tl.where(near, y, 0.0)  # what is far away has no whole number of 32 bits
    floor_x, floor_y = tl.floor(x), tl.floor(y)
    column, line = floor_x.to(tl.int32), floor_y.to(tl.int32)
    row = start + line * width + column
    left, right = near & (column >= 0), near & (column < width - 1)
    return row, width, x - floor_x, y - floor_y, left, right, line >= 0, line < height - 1


@triton.jit
def channels(rows: tl.tensor, exist: tl.tensor, D: tl.constexpr, PADDED: tl.constexpr) -> tl.tuple:
    """Offsets of all channels of rows of D numbers, (BLOCK, PADDED), and which of them exist."""
    channel = tl.arange(0, PADDED)
    return (rows * D)[:, None] + channel[None, :], exist[:, None] & (channel < D)[None, :]


@triton.jit
def read(
    plane: tl.tensor,
    row: tl.tensor,
    exist: tl.tensor,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    PADDED: tl.constexpr,
    SUM: tl.constexpr,
) -> tl.tensor:
    """One head's channels of tokens (BLOCK,) -> (BLOCK, PADDED), zero where the token does not exist."""
    places, real = channels(row * HEADS, exist, D, PADDED)
    return tl.load(plane + places, mask=real, other=0.0).to(SUM)


@triton.jit
def add(
    plane: tl.tensor,
    row: tl.tensor,
    exist: tl.tensor,
    what: tl.tensor,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    PADDED: tl.constexpr,
) -> None:
    """Adds (BLOCK, PADDED) to one head's channels of tokens (BLOCK,); others may add to the same at the same time."""
    places, real = channels(row * HEADS, exist, D, PADDED)
    tl.atomic_add(plane + places, what, mask=real, sem="relaxed")


def sample_triton(value: Tensor, pixels: Tensor, weights: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Same arguments and result as `deform.sample`; first derivatives only.

    `value` may be of half precision; the result and its sums are of the type of `weights`, at least float32.
    """
    mixed: Tensor = _forward(value, pixels, weights, [length for size in sizes for length in size])
    return mixed


# Operators of their own: torch.compile puts them into its graph as they are, without looking inside.
@torch.library.custom_op(
    "oneformer::deform",
    mutates_args=(),
    schema="(Tensor value, Tensor pixels, Tensor weights, SymInt[] sizes) -> Tensor",
)
def _forward(value: Tensor, pixels: Tensor, weights: Tensor, sizes: Sequence[int]) -> Tensor:
    mixed = weights.new_empty(*pixels.shape[:2], value.shape[2] * value.shape[3])
    inputs = [x.contiguous() for x in (value, pixels, weights)]
    launch(forward_kernel, [*inputs, level_table(tuple(sizes), value.device), mixed], *inputs)
    return mixed


@_forward.register_fake
def _(value: Tensor, pixels: Tensor, weights: Tensor, _sizes: Sequence[int]) -> Tensor:
    return weights.new_empty(*pixels.shape[:2], value.shape[2] * value.shape[3])


@torch.library.custom_op(
    "oneformer::deform_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor value, Tensor pixels, Tensor weights, SymInt[] sizes) -> (Tensor, Tensor, Tensor)",
)
def _backward(
    grad: Tensor, value: Tensor, pixels: Tensor, weights: Tensor, sizes: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    refuse_if_deterministic()
    inputs = [x.contiguous() for x in (value, pixels, weights)]
    grads = [torch.zeros_like(inputs[0], dtype=sum_type(*inputs)), *(torch.empty_like(x) for x in inputs[1:])]
    launch(backward_kernel, [grad.contiguous(), *inputs, level_table(tuple(sizes), value.device), *grads], *inputs)
    return grads[0].to(value.dtype), grads[1], grads[2]


@_backward.register_fake
def _(
    _grad: Tensor, value: Tensor, pixels: Tensor, weights: Tensor, _sizes: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    like = torch.contiguous_format
    grads = [torch.empty_like(x, memory_format=like) for x in (value, pixels, weights)]
    return grads[0], grads[1], grads[2]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001  # torch names it
    ctx.save_for_backward(*inputs[:3])
    ctx.sizes = inputs[3]


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (*_backward(grad, *ctx.saved_tensors, ctx.sizes), None)


_forward.register_autograd(_gradients, setup_context=_keep)


def launch(kernel: Any, arguments: Sequence[Tensor], value: Tensor, pixels: Tensor, weights: Tensor) -> None:
    """Runs a kernel over all blocks of queries.

    Args:
        kernel: `forward_kernel` or `backward_kernel`.
        arguments: its tensors in order, all contiguous: among them `value`, `pixels`, `weights` as in `deform.sample`,
            and the table of levels.
        value, pixels, weights: once more, for their shapes.
    """
    batch, tokens, heads, d = value.shape
    queries, levels, points = pixels.shape[1], pixels.shape[3], pixels.shape[4]
    assert tokens * heads * d < 2**31, "an image has more values than 32 bits count"
    numbers, warps = FORWARD if kernel is forward_kernel else BACKWARD
    padded = triton.next_power_of_2(d)
    block = max(1, numbers // padded)
    programs = batch * heads * triton.cdiv(queries, block)
    if not programs:
        return
    total = tl.float64 if sum_type(value, pixels, weights) == torch.float64 else tl.float32
    with torch.cuda.device_of(value):
        kernel[(programs,)](
            *arguments, queries, tokens, HEADS=heads, D=d, LEVELS=levels, POINTS=points,
            BLOCK=block, PADDED=padded, SUM=total, num_warps=warps,
        )  # fmt: skip


def sum_type(*inputs: Tensor) -> torch.dtype:
    """float64 where an input is, else float32."""
    return torch.float64 if any(x.dtype == torch.float64 for x in inputs) else torch.float32


@lru_cache(maxsize=256)
def level_table(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """Height and width of each level in one row -> (L, 3) int32: height, width, number of tokens before it.

    It is kept, for every new one waits until the GPU has done all it was asked to.
    """
    rows, start = [], 0
    for height, width in zip(sizes[::2], sizes[1::2], strict=True):
        rows.append((height, width, start))
        start += height * width
    return torch.tensor(rows, dtype=torch.int32, device=device)


def refuse_if_deterministic() -> None:
    """Sums of floats made in any order differ in the last digits. As torch's own `grid_sample` on GPUs says it."""
    if not torch.are_deterministic_algorithms_enabled():
        return
    text = "the backward pass of deformable attention on GPUs is not deterministic"
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        raise RuntimeError(f"{text}, and torch.use_deterministic_algorithms(True) asks for that")
    warnings.warn(text, stacklevel=2)
