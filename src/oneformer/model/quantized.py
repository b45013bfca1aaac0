"""A layer's weight in few bits -> the layer that computes with it; what a quantized checkpoint holds, and how it runs.

A weight is kept as small numbers and scales: `weight = data * scale`, one scale for each row (output channel), or for
each group of neighbours in a row.

| format | a number | scales | in the file |
|---|---|---|---|
| `int8` | -128 to 127 | one a row | as it is |
| `int4` | -8 to 7 | one a group | two in a byte |
| `fp8_e4m3fn` | 4 bits of exponent, 3 of fraction | one a row | its byte |
| `fp8_e5m2` | 5 bits of exponent, 2 of fraction | one a row | its byte |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FORMATS: dict[str, torch.dtype] = {
    "int8": torch.int8,
    "int4": torch.int8,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}
ACTIVATIONS = ("", "int8_dynamic", "int8", "fp8_e4m3fn", "fp8_e5m2")
SMALLEST = torch.finfo(torch.float32).eps  # of a dynamic scale, as in torchao: a token of zeros has some scale too
LAYERS = (nn.Linear, nn.Conv2d)


@dataclass(frozen=True)
class QuantizedWeight:
    """One layer's weight, and how its inputs are rounded.

    Raises:
        ValueError: the parts do not fit together.
    """

    format: str
    """A key of `FORMATS`."""
    data: Tensor
    """(rows, columns) in the format's number type."""
    scale: Tensor
    """float32 (rows, groups)."""
    shape: tuple[int, ...]
    """Of the layer's own weight: (out, in), or (out, in, height, width)."""
    activation: str = ""
    """How inputs are rounded: not at all, `int8_dynamic` with a scale for each token, or with `input_scale`."""
    input_scale: float = 0.0
    """One scale for all inputs, measured on images."""

    def __post_init__(self) -> None:
        if self.format not in FORMATS or self.activation not in ACTIVATIONS:
            raise ValueError(f"no number format: {self.format!r} with {self.activation!r}")
        rows, columns = self.shape[0], prod(self.shape[1:])
        if self.data.dtype != FORMATS[self.format] or tuple(self.data.shape) != (rows, columns):
            raise ValueError(f"{self.format} numbers {tuple(self.data.shape)} for a weight {self.shape}")
        groups = self.scale.shape[1] if self.scale.ndim == 2 else 0
        if self.scale.dtype != torch.float32 or len(self.scale) != rows or not groups or columns % groups:
            raise ValueError(f"scales {tuple(self.scale.shape)} for a weight {self.shape}")
        if self.activation not in ("", "int8_dynamic") and not 0 < self.input_scale < float("inf"):
            raise ValueError(f"a scale of {self.input_scale} for inputs")

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        numbers = -(-self.data.numel() // 2) if self.format == "int4" else self.data.numel()
        return numbers + self.scale.numel() * 4

    def float(self) -> Tensor:
        """The weight in float32, of the layer's shape."""
        return unrounded(self.data, self.scale, self.shape)

    def to_plain(self) -> dict[str, Any]:
        """Tensors of usual types, numbers and texts, for a file."""
        return {
            "format": self.format,
            "shape": list(self.shape),
            "data": packed(self.data) if self.format == "int4" else self.data.view(torch.uint8),
            "scale": self.scale,
            "activation": self.activation,
            "input_scale": self.input_scale,
        }

    @staticmethod
    def from_plain(stored: Mapping[str, Any]) -> QuantizedWeight:
        """The inverse of `to_plain`. Raises KeyError, TypeError or ValueError."""
        name, shape, data = str(stored["format"]), tuple(int(n) for n in stored["shape"]), stored["data"]
        if name not in FORMATS or len(shape) not in (2, 4) or not isinstance(data, Tensor) or data.dtype != torch.uint8:
            raise ValueError(f"no quantized weight: {name!r} {shape}")
        if name == "int4":
            data = unpacked(data, prod(shape)).view(shape[0], -1)
        return QuantizedWeight(
            name,
            data.view(FORMATS[name]),
            stored["scale"],
            shape,
            str(stored["activation"]),
            float(stored["input_scale"]),
        )


def packed(data: Tensor) -> Tensor:
    """int8 numbers from -8 to 7 -> uint8 (N,), the first of two in the low half."""
    flat = F.pad(data.flatten(), (0, data.numel() % 2)).view(-1, 2).to(torch.uint8) & 15
    return flat[:, 0] | flat[:, 1] << 4


def unpacked(data: Tensor, count: int) -> Tensor:
    """The inverse of `packed` for so many numbers, int8 (count,). Raises ValueError when there are not as many."""
    if data.ndim != 1 or len(data) != -(-count // 2):
        raise ValueError(f"{tuple(data.shape)} bytes for {count} numbers of four bits")
    both = torch.stack((data & 15, data >> 4), dim=1).flatten()[:count].to(torch.int8)
    return torch.where(both > 7, both - 16, both)


def unrounded(data: Tensor, scale: Tensor, shape: tuple[int, ...]) -> Tensor:
    """data (rows, columns) and scale (rows, groups) -> float32 of the shape."""
    if data.dtype == torch.int8 and scale.shape[1] == 1 and torch.compiler.is_compiling() and tells_graphs():
        zeros = torch.zeros(len(data), dtype=torch.int8, device=data.device)
        dequantize = torch.ops.quantized_decomposed.dequantize_per_channel
        return dequantize(data, scale[:, 0], zeros, 0, -128, 127, torch.int8).view(shape)
    groups = data.float().unflatten(1, (scale.shape[1], -1))  # (rows, groups, columns / groups)
    return (groups * scale[:, :, None]).view(shape)


def tells_graphs() -> bool:
    """Whether torch has the operators that exported graphs show rounded numbers with; they then stay small there."""
    try:
        import torch.ao.quantization.fx._decomposed as operators
    except ImportError:  # torch means to drop them one day: graphs then hold the weights in float32
        return False
    return operators is not None


class Quantized:
    """What both kinds of layers share: the weight is made from its small form each time it is asked for."""

    data: Tensor
    scale: Tensor
    shape: tuple[int, ...]
    activation: str
    input_scale: float

    def hold(self, stored: QuantizedWeight) -> None:
        """Take the small form as buffers."""
        assert isinstance(self, nn.Module)
        self.register_buffer("data", stored.data)
        self.register_buffer("scale", stored.scale)
        self.format, self.shape = stored.format, stored.shape
        self.activation, self.input_scale = stored.activation, stored.input_scale

    def rounded(self, x: Tensor, *, channels: int) -> Tensor:
        """Inputs as the layer sees them, still in floating point; `channels` is the axis that a token lies along."""
        if not self.activation:
            return x
        if self.activation == "int8_dynamic":
            numbers, scale = by_token(x, channels)
            return numbers * scale
        if self.activation == "int8":
            return torch.fake_quantize_per_tensor_affine(x.float(), self.input_scale, 0, -128, 127)
        kind = FORMATS[self.activation]
        most = torch.finfo(kind).max
        return (x.float() / self.input_scale).clamp(-most, most).to(kind).float() * self.input_scale


class QuantizedLinear(Quantized, nn.Linear):
    """A linear layer with a quantized weight; with `int8_dynamic` inputs the product is one of whole numbers."""

    def __init__(self, layer: nn.Linear, stored: QuantizedWeight) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        del self._parameters["weight"]
        self.bias = layer.bias
        self.hold(stored)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """float32 (out, in); the decoder takes parts of it."""
        return unrounded(self.data, self.scale, self.shape)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        whole = self.activation == "int8_dynamic" and self.data.dtype == torch.int8 and self.scale.shape[1] == 1
        if not whole or torch.compiler.is_compiling():
            return F.linear(self.rounded(x, channels=-1), self.weight, self.bias)
        numbers, scale = by_token(x)
        out = whole_product(numbers.flatten(0, -2).to(torch.int8), self.data) * scale.flatten(0, -2)
        out = out * self.scale[:, 0]
        return (out if self.bias is None else out + self.bias).unflatten(0, x.shape[:-1]).to(x.dtype)


class QuantizedConv2d(Quantized, nn.Conv2d):
    """A convolution with a quantized weight."""

    def __init__(self, layer: nn.Conv2d, stored: QuantizedWeight) -> None:
        super().__init__(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            layer.groups,
            layer.bias is not None,
            layer.padding_mode,
            device="meta",
        )
        del self._parameters["weight"]
        self.bias = layer.bias
        self.hold(stored)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """float32 (out, in, height, width)."""
        return unrounded(self.data, self.scale, self.shape)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, h, w)."""
        return self._conv_forward(self.rounded(x, channels=1), self.weight, self.bias)


def rounds_inputs(model: nn.Module) -> bool:
    """Whether a network has layers that round their inputs: a sum in another order then changes more than itself."""
    return any(isinstance(layer, Quantized) and layer.activation for layer in model.modules())


def by_token(x: Tensor, channels: int = -1) -> tuple[Tensor, Tensor]:
    """Inputs -> whole numbers from -128 to 127 in floating point, and a scale for each token, as torchao has them."""
    x = x.float()
    scale = (x.abs().amax(dim=channels, keepdim=True) / 127.5).clamp(min=SMALLEST)
    return (x * (1 / scale)).round().clamp(-128, 127), scale


def whole_product(numbers: Tensor, data: Tensor) -> Tensor:
    """int8 (N, in) and int8 (out, in) -> their exact products as float32 (N, out)."""
    rows, columns = data.shape
    if numbers.device.type == "cpu" or (len(numbers) > 16 and not rows % 8 and not columns % 8):  # cuBLAS's limits
        return torch._int_mm(numbers, data.t()).float()
    return numbers.float() @ data.float().t()


def quantized_layer(layer: nn.Module, stored: QuantizedWeight) -> QuantizedLinear | QuantizedConv2d:
    """The layer that takes the place of this one. Raises ValueError when its weight has another shape."""
    if not isinstance(layer, LAYERS) or tuple(layer.weight.shape) != stored.shape:
        raise ValueError(f"there is no weight of shape {stored.shape}")
    made = QuantizedLinear(layer, stored) if isinstance(layer, nn.Linear) else QuantizedConv2d(layer, stored)
    return made.train(layer.training).to(layer.weight.device)


def quantize_layers(model: nn.Module, layers: Mapping[str, QuantizedWeight]) -> None:
    """Put quantized layers in the place of the named ones. Raises ValueError when there is no such layer."""
    modules = dict(model.named_modules())
    for name, stored in layers.items():
        if not name or name not in modules:
            raise ValueError(f"there is no layer {name!r}")
        model.set_submodule(name, quantized_layer(modules[name], stored))
