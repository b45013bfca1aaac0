"""Weights in few bits and the layers that compute with them, against torch and torchao."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from oneformer.model.quantized import (
    FORMATS,
    QuantizedConv2d,
    QuantizedLinear,
    QuantizedWeight,
    packed,
    quantize_layers,
    quantized_layer,
    unpacked,
)


def weight(
    shape: tuple[int, ...] = (6, 16), format: str = "int8", activation: str = "", groups: int = 1
) -> QuantizedWeight:
    torch.manual_seed(0)
    columns = int(torch.tensor(shape[1:]).prod())
    numbers = torch.randint(-8 if format == "int4" else -128, 8 if format == "int4" else 128, (shape[0], columns))
    data = (
        numbers.to(FORMATS[format]) if format.startswith("int") else torch.randn(shape[0], columns).to(FORMATS[format])
    )
    scale = torch.rand(shape[0], groups) + 0.1
    static = 0.05 if activation not in ("", "int8_dynamic") else 0.0
    return QuantizedWeight(format, data, scale, shape, activation, static)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 16])
def test_two_numbers_of_four_bits_share_a_byte(count: int) -> None:
    numbers = torch.randint(-8, 8, (count,), dtype=torch.int8)
    small = packed(numbers)
    assert small.dtype == torch.uint8 and len(small) == -(-count // 2)
    assert torch.equal(unpacked(small, count), numbers)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shape", [(6, 16), (4, 3, 3, 3)])
def test_a_weight_comes_back_from_a_file_that_is_loaded_without_code(format: str, shape: tuple[int, ...]) -> None:
    before = weight(shape, format)
    file = io.BytesIO()
    torch.save(before.to_plain(), file)
    file.seek(0)
    after = QuantizedWeight.from_plain(torch.load(file, weights_only=True))
    assert torch.equal(after.float(), before.float()) and after.float().shape == shape
    assert (
        sum(v.numel() * v.element_size() for v in before.to_plain().values() if isinstance(v, Tensor)) == before.nbytes
    )


def test_groups_have_scales_of_their_own() -> None:
    one = weight(groups=4)
    by_hand = one.data.float() * one.scale.repeat_interleave(4, dim=1)
    assert torch.equal(one.float(), by_hand)


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": "int3"},
        {"shape": [6]},
        {"shape": [6, 15]},
        {"data": torch.zeros(6, 16)},
        {"data": torch.zeros(95, dtype=torch.uint8)},
        {"scale": torch.ones(6, 5)},
        {"scale": torch.ones(6, 1, dtype=torch.float64)},
        {"activation": "int8"},
        {"activation": "int2"},
    ],
)
def test_parts_that_do_not_fit_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        QuantizedWeight.from_plain({**weight().to_plain(), **wrong})


def test_a_linear_layer_computes_with_the_rounded_weight() -> None:
    layer, small, x = nn.Linear(16, 6), weight(), torch.randn(2, 5, 16)
    made = quantized_layer(layer, small)
    assert torch.equal(made(x), nn.functional.linear(x, small.float(), layer.bias))
    assert torch.equal(made.weight.chunk(3)[1], small.float()[2:4])  # as the decoder takes it
    assert set(made.state_dict()) == {"bias", "data", "scale"}


def test_a_convolution_computes_with_the_rounded_weight() -> None:
    layer, small, x = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), weight((4, 3, 3, 3)), torch.randn(2, 3, 9, 8)
    made = quantized_layer(layer, small)
    assert torch.equal(made(x), nn.functional.conv2d(x, small.float(), None, 2, 1))


@pytest.mark.parametrize("shape", [(5, 16), (2, 7, 16), (1, 40, 16)])
def test_whole_products_are_those_of_rounded_inputs(shape: tuple[int, ...]) -> None:
    x, small = 3 * torch.randn(shape), weight(activation="int8_dynamic")
    made = quantized_layer(nn.Linear(16, 6), small)
    rounded = nn.functional.linear(made.rounded(x, channels=-1), small.float(), made.bias)
    assert torch.allclose(made(x), rounded, rtol=1e-5, atol=1e-3)
    assert float((made.rounded(x, channels=-1) - x).abs().max()) <= float(x.abs().max()) / 127.5
    assert torch.isfinite(made(torch.zeros(shape))).all()


def test_static_inputs_are_rounded_with_one_scale() -> None:
    x = torch.linspace(-10, 10, 160).view(10, 16)
    made = quantized_layer(nn.Linear(16, 6), weight(activation="int8"))
    assert torch.allclose(made.rounded(x, channels=-1), (x / 0.05).round().clamp(-128, 127) * 0.05, atol=1e-6)
    made = quantized_layer(nn.Linear(16, 6), weight(activation="fp8_e4m3fn"))
    assert torch.allclose(made.rounded(x, channels=-1), x, rtol=2**-4, atol=1e-4)


@pytest.mark.parametrize("dynamic", [False, True])
def test_torchao_computes_the_same(dynamic: bool) -> None:
    pytest.importorskip("torchao")
    from oneformer.quantize.request import NATIVE, Formats
    from oneformer.quantize.torchao import imported, rounded

    library = imported()
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 48), 3 * torch.randn(2, 50, 64)
    formats = Formats("int8", "int8" if dynamic else NATIVE)
    data, scale = rounded(library, layer.weight.detach(), formats, {})
    mine = QuantizedLinear(layer, QuantizedWeight("int8", data, scale, (48, 64), "int8_dynamic" if dynamic else ""))
    theirs = nn.Sequential(copy.deepcopy(layer))
    library.quantize_(
        theirs, library.Int8DynamicActivationInt8WeightConfig() if dynamic else library.Int8WeightOnlyConfig()
    )
    with torch.no_grad():
        assert torch.allclose(mine(x), theirs(x), atol=1e-5)
        assert float((mine(x) - layer(x)).abs().max()) > 1e-3


def test_layers_are_put_into_a_network_by_name() -> None:
    net = nn.Sequential(nn.Linear(16, 6), nn.ModuleDict({"a": nn.Conv2d(3, 4, 3)}))
    quantize_layers(net, {"0": weight(), "1.a": weight((4, 3, 3, 3))})
    assert isinstance(net[0], QuantizedLinear) and isinstance(net[1]["a"], QuantizedConv2d)  # type: ignore[index]


@pytest.mark.parametrize("name", ["", "2", "1", "0.weight"])
def test_layers_that_are_not_there_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="there is no"):
        quantize_layers(nn.Sequential(nn.Linear(16, 6), nn.ReLU()), {name: weight()})


def test_a_weight_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        quantized_layer(nn.Linear(16, 5), weight())


@pytest.mark.parametrize("format", FORMATS)
def test_a_weight_of_zeros_stays_one(format: str) -> None:
    pytest.importorskip("torchao")
    from oneformer.quantize.request import Formats
    from oneformer.quantize.torchao import imported, rounded

    data, scale = rounded(imported(), torch.zeros(6, 16), Formats(format), {})
    assert torch.equal(QuantizedWeight(format, data, scale, (6, 16)).float(), torch.zeros(6, 16))
