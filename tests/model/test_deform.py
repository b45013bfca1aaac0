"""Deformable attention: both computations against a plain loop, and against each other with gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from oneformer.model.deform import DeformableAttention, sample, sample_grid, short_softmax, token_centers
from oneformer.model.deform_rows import sample_rows

SIZES = ((2, 3), (5, 4), (7, 9))
CPU = torch.device("cpu")


def problem(batch: int = 2, *, spread: float = 3.0, sizes: tuple[tuple[int, int], ...] = SIZES) -> list[Tensor]:
    """value (B, S, heads, d), pixels (B, Q, heads, L, points, 2) in and around the maps, weights."""
    generator = torch.Generator().manual_seed(0)
    heads, d, points, total = 3, 4, 2, sum(h * w for h, w in sizes)
    value = torch.randn(batch, total, heads, d, generator=generator)
    centers = token_centers(sizes, device=CPU)[None, :, None, :, None, :]
    pixels = centers + spread * torch.randn(batch, total, heads, len(sizes), points, 2, generator=generator)
    weights = torch.rand(batch, total, heads, len(sizes), points, generator=generator)
    return [value, pixels, weights]


def by_loop(value: Tensor, pixels: Tensor, weights: Tensor, sizes: tuple[tuple[int, int], ...]) -> Tensor:
    """The definition, one sample at a time."""
    out = torch.zeros(*pixels.shape[:3], value.shape[3])
    for b, q, h, level, p in torch.cartesian_prod(*(torch.arange(n) for n in weights.shape)).tolist():
        height, width = sizes[level]
        start = sum(a * c for a, c in sizes[:level])
        x, y = pixels[b, q, h, level, p].tolist()
        for dy in (0, 1):
            for dx in (0, 1):
                row, column = math.floor(y) + dy, math.floor(x) + dx
                if 0 <= row < height and 0 <= column < width:
                    share = (1 - abs(y - row)) * (1 - abs(x - column)) * weights[b, q, h, level, p]
                    out[b, q, h] += share * value[b, start + row * width + column, h]
    return out.flatten(2)


@pytest.mark.parametrize("kernel", [sample_grid, sample_rows])
def test_sampling_follows_its_definition(kernel: Callable[..., Tensor]) -> None:
    sizes = ((2, 3), (4, 3))
    value, pixels, weights = problem(1, sizes=sizes)
    torch.testing.assert_close(kernel(value, pixels, weights, sizes), by_loop(value, pixels, weights, sizes))


@pytest.mark.parametrize("spread", [0.3, 3.0, 40.0])
def test_both_computations_agree_in_value_and_gradients(spread: float) -> None:
    found = []
    for kernel in (sample_grid, sample_rows):
        inputs = [x.requires_grad_() for x in problem(spread=spread)]
        out = kernel(*inputs, SIZES)
        found.append([out, *torch.autograd.grad(out, inputs, torch.linspace(-1, 1, out.numel()).view_as(out))])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_values_of_half_precision_are_widened_and_get_a_gradient_of_theirs() -> None:
    value, pixels, weights = problem()
    value = value.bfloat16().requires_grad_()
    found = [kernel(value, pixels, weights, SIZES) for kernel in (sample, sample_grid_of_float32)]
    assert found[0].dtype == torch.float32
    torch.testing.assert_close(found[0], found[1])
    gradients = [torch.autograd.grad(out.square().sum(), value)[0] for out in found]
    assert gradients[0].dtype == torch.bfloat16
    torch.testing.assert_close(gradients[0], gradients[1])


def sample_grid_of_float32(value: Tensor, *others: object) -> Tensor:
    return sample_grid(value.float(), *others)


def test_a_short_softmax_is_a_softmax() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0], [100.0, -100.0, 0.0], [-1e4, -1e4, -1e4]], dtype=torch.float64)
    torch.testing.assert_close(short_softmax(x), x.softmax(-1))
    assert torch.autograd.gradcheck(short_softmax, torch.randn(4, 12, dtype=torch.float64, requires_grad=True))


def test_samples_exactly_on_cells_and_borders_agree() -> None:
    value, pixels, weights = problem()
    pixels = pixels.round()
    torch.testing.assert_close(sample_rows(value, pixels, weights, SIZES), sample_grid(value, pixels, weights, SIZES))


def test_the_cpu_takes_rows_and_a_traced_graph_takes_grid_sample() -> None:
    inputs = problem(1)
    assert torch.equal(sample(*inputs, SIZES), sample_rows(*inputs, SIZES))

    class Sampling(torch.nn.Module):
        def forward(self, value: Tensor, pixels: Tensor, weights: Tensor) -> Tensor:
            return sample(value, pixels, weights, SIZES)

    graph = torch.export.export(Sampling(), tuple(inputs)).graph
    assert sum("grid_sample" in str(node.target) for node in graph.nodes) == len(SIZES) * inputs[1].shape[4]


def test_not_a_number_becomes_not_a_number_and_no_crash() -> None:
    """A diverged run must reach its loss, which names the images."""
    value, pixels, weights = problem(1)
    pixels[0, 0], weights[0, 0] = float("nan"), float("nan")
    pixels[0, 1] = float("inf")
    out = sample_rows(value, pixels, weights, SIZES)
    assert out[0, 0].isnan().all()
    assert out[0, 1:].isfinite().all()


def test_heads_start_out_looking_in_all_directions_one_pixel_further_each_point() -> None:
    bias = DeformableAttention(32, heads=8, levels=3, points=4).sampling_offsets.bias.view(8, 3, 4, 2)
    assert torch.allclose(bias[:, 0], bias[:, 2])
    torch.testing.assert_close(bias.abs().amax(-1), torch.arange(1.0, 5.0).expand(8, 3, 4))
    torch.testing.assert_close(bias[2, 0, 0], torch.tensor([0.0, 1.0]), atol=1e-6, rtol=0)


def test_a_token_lies_at_its_own_cell_in_its_own_level() -> None:
    centers = token_centers(SIZES, device=CPU)
    torch.testing.assert_close(centers[6 + 4 + 1, 1], torch.tensor([1.0, 1.0]))  # level 1, second row, second column
    torch.testing.assert_close(centers[0, 2], torch.tensor([9 / 6 - 0.5, 7 / 4 - 0.5]))


def test_places_and_weights_are_float32_under_autocast() -> None:
    attention = DeformableAttention(32, heads=4, levels=3, points=2)
    seen = []
    for layer in (attention.value_proj, attention.sampling_offsets, attention.attention_weights):
        layer.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    tokens = torch.randn(1, sum(h * w for h, w in SIZES), 32)
    with torch.autocast("cpu", torch.bfloat16):
        attention(tokens, tokens, token_centers(SIZES, device=CPU), SIZES)
    assert seen == [torch.bfloat16, torch.float32, torch.float32]
