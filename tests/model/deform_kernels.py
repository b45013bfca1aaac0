"""What Triton's kernels must compute. They run on CPU tensors with TRITON_INTERPRET=1, which has to be set before Triton
is imported; test_deform_triton.py starts a process for them."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from oneformer.model.deform import DeformableAttention, sample, sample_grid, token_centers
from oneformer.model.deform_path import VARIABLE, obstacle
from oneformer.model.deform_rows import sample_rows
from oneformer.model.deform_triton import level_table, sample_triton

assert os.environ["TRITON_INTERPRET"] == "1"

SIZES = ((2, 3), (5, 4), (3, 7))
Inputs = list[Tensor]


def problem(
    *,
    batch: int = 2,
    queries: int = 7,
    heads: int = 2,
    d: int = 32,
    spread: float = 1.0,
    dtype: torch.dtype | None = None,
) -> Inputs:
    """value (B, S, heads, d), pixels (B, Q, heads, L, 2 points, 2) in and around the maps, weights."""
    generator = torch.Generator().manual_seed(d + queries)
    value = torch.randn(batch, sum(h * w for h, w in SIZES), heads, d, generator=generator)
    scale = torch.tensor([[w, h] for h, w in SIZES])[:, None]  # (L, 1, 2)
    pixels = (torch.rand(batch, queries, heads, len(SIZES), 2, 2, generator=generator) - 0.5) * spread * scale
    pixels = pixels + scale / 2 - 0.5
    weights = torch.rand(batch, queries, heads, len(SIZES), 2, generator=generator)
    pixels = pixels.to(dtype)
    # Halves hit whole numbers, where slopes have two sides and the reference's rounding decides for one.
    pixels = torch.where(pixels == pixels.round(), pixels + 0.25, pixels)
    return [value.to(dtype), pixels, weights.to(dtype)]


def all_of(kernel: Callable[..., Tensor], inputs: Inputs) -> list[Tensor]:
    """The result and all gradients."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = kernel(*inputs, SIZES)
    # Multiples of 1/8 are exact in every type.
    return [
        out.detach(),
        *torch.autograd.grad(out, inputs, ((torch.arange(out.numel()) % 17 - 8) / 8).view_as(out).to(out.dtype)),
    ]


def wide_grid(value: Tensor, pixels: Tensor, weights: Tensor, sizes: tuple[tuple[int, int], ...]) -> Tensor:
    """The reference in float64."""
    return sample_grid(value.double(), pixels.double(), weights.double(), sizes)


# Blocks that are full, that are not, channels that are no power of two; places inside, around and far away.
@pytest.mark.parametrize(
    ("shape", "spread"),
    [({}, 1.0), ({"queries": 33, "batch": 1}, 1.5), ({"d": 24, "heads": 3}, 2.0), ({"d": 4, "batch": 3}, 40.0)],
)
def test_result_and_gradients_equal_the_reference(shape: dict[str, int], spread: float) -> None:
    inputs = problem(**shape, spread=spread)
    for found, wanted in zip(all_of(sample_triton, inputs), all_of(wide_grid, inputs), strict=True):
        torch.testing.assert_close(found, wanted.float(), rtol=1e-5, atol=1e-5)


def test_in_float64_nothing_is_rounded_to_float32() -> None:
    inputs = problem(dtype=torch.float64, queries=3)
    for found, wanted in zip(all_of(sample_triton, inputs), all_of(sample_grid, inputs), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


def test_the_gradients_are_those_of_the_result() -> None:
    inputs = [x.requires_grad_() for x in problem(dtype=torch.float64, queries=3, heads=1, d=2, batch=1, spread=1.5)]
    assert torch.autograd.gradcheck(lambda *xs: sample_triton(*xs, SIZES), inputs, fast_mode=True, nondet_tol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_values_of_half_precision_are_summed_in_float32(dtype: torch.dtype) -> None:
    """As exact as the reference on the same, already rounded, values; only the gradient of the values is rounded."""
    value, pixels, weights = problem(queries=9, batch=1)
    inputs = [value.to(dtype), pixels, weights]
    found, wanted = all_of(sample_triton, inputs), all_of(wide_grid, inputs)
    assert [x.dtype for x in found] == [torch.float32, dtype, torch.float32, torch.float32]
    for i in (0, 2, 3):
        torch.testing.assert_close(found[i], wanted[i].float(), rtol=1e-5, atol=1e-5)
    half_a_digit = torch.finfo(dtype).eps / 2
    torch.testing.assert_close(found[1].double(), wanted[1].double(), rtol=2 * half_a_digit, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_all_inputs_may_be_of_half_precision(dtype: torch.dtype) -> None:
    inputs = problem(dtype=dtype)
    for found, wanted in zip(all_of(sample_triton, inputs), all_of(wide_grid, inputs), strict=True):
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), wanted.double(), rtol=torch.finfo(dtype).eps, atol=1e-5)


def test_places_on_cells_and_borders_and_just_beyond_have_the_gradients_of_grid_sample() -> None:
    """At -1, at whole numbers and at the width `grid_sample` decides for one side; a size of 2, 4 or 8 is exact in it."""
    sizes = ((4, 8), (2, 4))
    value = torch.randn(1, 40, 1, 4, generator=torch.Generator().manual_seed(0))
    x = torch.tensor([-1.5, -1.0, -0.5, 0.0, 1.0, 2.5, 3.0, 3.5, 4.0, 7.0, 8.0, 9.0])
    pixels = torch.stack(torch.meshgrid(x, x, indexing="ij"), -1).view(1, 144, 1, 1, 1, 2).repeat(1, 1, 1, 2, 1, 1)
    weights = torch.ones(1, 144, 1, 2, 1)
    found = []
    for kernel in (sample_triton, sample_grid):
        inputs = [t.clone().requires_grad_() for t in (value, pixels, weights)]
        out = kernel(*inputs, sizes)
        found.append([out, *torch.autograd.grad(out, inputs, torch.linspace(-1, 1, out.numel()).view_as(out))])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_not_a_number_reaches_the_result_and_infinity_reads_nothing() -> None:
    value, pixels, weights = problem(batch=1)
    pixels[0, 0], weights[0, 0] = float("nan"), float("nan")
    pixels[0, 1] = float("inf")
    out = sample_triton(value, pixels, weights, SIZES)
    assert out[0, 0].isnan().all()
    assert (out[0, 1] == 0).all()
    assert out[0, 2:].isfinite().all()


def test_inputs_may_lie_in_memory_in_any_order_and_be_empty() -> None:
    inputs = problem(d=4)
    strange = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in inputs]
    for a, b in zip(all_of(sample_triton, strange), all_of(sample_triton, inputs), strict=True):
        torch.testing.assert_close(a, b)
    assert sample_triton(inputs[0], inputs[1][:, :0], inputs[2][:, :0], SIZES).shape == (2, 0, 8)


def test_the_operator_keeps_what_torch_asks_of_one() -> None:
    inputs = [x.requires_grad_() for x in problem(queries=2, d=4)]
    torch.library.opcheck(torch.ops.oneformer.deform.default, (*inputs, [n for size in SIZES for n in size]))


def test_the_table_of_levels_is_made_once() -> None:
    device = torch.device("cpu")
    assert level_table((2, 3, 5, 4), device).tolist() == [[2, 3, 0], [5, 4, 6]]
    assert level_table((2, 3, 5, 4), device) is level_table((2, 3, 5, 4), device)


def test_where_torch_must_be_deterministic_a_backward_pass_is_refused() -> None:
    inputs = problem(queries=1, batch=1)
    torch.use_deterministic_algorithms(True)
    try:
        sample_triton(*inputs, SIZES)
        with pytest.raises(RuntimeError, match="not deterministic"):
            all_of(sample_triton, inputs)
        torch.use_deterministic_algorithms(True, warn_only=True)
        with pytest.warns(UserWarning, match="not deterministic"):
            all_of(sample_triton, inputs)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_device_is_tested_before_the_kernels_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert obstacle.__wrapped__("cpu", 0) == ""
    monkeypatch.setattr("oneformer.model.deform_triton.sample_triton", lambda *xs: sample_rows(*xs) * 1.01)
    assert "differ from grid_sample by" in obstacle.__wrapped__("cpu", 0)

    def no_compiler(*xs: object) -> Tensor:
        raise RuntimeError("Failed to find C compiler.\nPlease")

    monkeypatch.setattr("oneformer.model.deform_triton.sample_triton", no_compiler)
    assert obstacle.__wrapped__("cpu", 0) == "triton fails with RuntimeError: Failed to find C compiler."


def test_the_layer_computes_the_same_by_force_and_compiled_and_exports_grid_sample(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    layer = DeformableAttention(8, heads=2, levels=3, points=2)
    torch.nn.init.normal_(layer.sampling_offsets.weight, std=0.3)
    tokens = torch.randn(1, sum(h * w for h, w in SIZES), 8)
    inputs = (tokens, tokens, token_centers(SIZES, device=tokens.device))

    class Alone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = copy.deepcopy(layer)

        def forward(self, query: Tensor, source: Tensor, centers: Tensor) -> Tensor:
            return self.layer(query, source, centers, SIZES)

    def step(network: Callable[..., Tensor], alone: Alone) -> list[Tensor]:
        alone.zero_grad()
        out = network(*inputs)
        out.square().sum().backward()
        return [out.detach(), *(p.grad.clone() for p in alone.parameters())]

    wanted = step(alone := Alone(), alone)  # rows
    monkeypatch.setenv(VARIABLE, "triton")
    forced = step(alone := Alone(), alone)
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, example: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, example)

    compiled = step(torch.compile(alone, backend=backend, fullgraph=True), alone)
    for found in (forced, compiled):
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert ["oneformer.deform" in str(node.target) for graph in graphs for node in graph.graph.nodes].count(True) == 1
    exported = [str(node.target) for node in torch.export.export(alone, inputs).graph.nodes]
    assert sum("grid_sample" in name for name in exported) == len(SIZES) * layer.points
    assert not any("oneformer" in name for name in exported)
    assert torch.equal(sample(*problem(), SIZES), sample_triton(*problem(), SIZES))
