"""EfficientNet-lite against its definition written out with plain functions, and the released sizes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.specs import tiny_spec
from oneformer.errors import SpecError
from oneformer.model.backbones import build_backbone
from oneformer.model.backbones.common import Backbone

# repeats, kernel, stride, expansion, input and output channels, as the released builder spells them
BUILDER = [
    "r1_k3_s11_e1_i32_o16",
    "r2_k3_s22_e6_i16_o24",
    "r2_k5_s22_e6_i24_o40",
    "r3_k3_s22_e6_i40_o80",
    "r3_k5_s11_e6_i80_o112",
    "r4_k5_s22_e6_i112_o192",
    "r1_k3_s11_e6_i192_o320",
]
SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2), 3: (1.2, 1.4), 4: (1.4, 1.8)}
# Parameters of the released classifiers; behind the maps they have a 1x1 convolution, its norm and 1000 classes.
RELEASED = {0: 4_652_008, 1: 5_416_680, 2: 6_092_072, 3: 8_197_096, 4: 13_006_568}


def lite(size: int, norm: str = "batch") -> Backbone:
    spec = tiny_spec("efficientnet_lite").backbone
    spec.efficientnet_lite.size, spec.efficientnet_lite.norm = size, norm  # type: ignore[assignment]
    return build_backbone(spec)


def shaken(backbone: Backbone) -> Backbone:
    """Statistics and factors that are not those of a new norm."""
    torch.manual_seed(0)
    for module in backbone.modules():
        if hasattr(module, "running_var"):
            for name in ("weight", "running_var"):
                getattr(module, name).data.uniform_(0.5, 1.5)
            for name in ("bias", "running_mean"):
                getattr(module, name).data.normal_(std=0.2)
    return backbone.eval()


def same_conv(x: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
    """TensorFlow's "same": ceil(size / stride) outputs, the zeros shared out with the odd one behind."""
    kernel = weight.shape[2]
    for axis in (2, 3):
        size = x.shape[axis]
        total = max(kernel - stride, 0) if size % stride == 0 else max(kernel - size % stride, 0)
        before = torch.zeros_like(x.narrow(axis, 0, 1)).repeat_interleave(total // 2, dim=axis)
        after = torch.zeros_like(x.narrow(axis, 0, 1)).repeat_interleave(total - total // 2, dim=axis)
        x = torch.cat((before, x, after), dim=axis)
    return F.conv2d(x, weight, stride=stride, groups=groups)


def normed(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    mean, var, weight, bias = (
        state[f"{name}.{n}"].view(-1, 1, 1) for n in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-3).sqrt() * weight + bias


def by_the_builder(state: dict[str, Tensor], size: int, x: Tensor) -> list[Tensor]:
    """The maps at strides 4 to 32, block by block from the released strings."""
    deeper = SCALES[size][1]
    x = normed(same_conv(x, state["_conv_stem.weight"], 2, 1), state, "_bn0").clamp(0, 6)
    number, stage_ends = 0, []
    for i, text in enumerate(BUILDER):
        fields = {part[0]: int(part[1:2] if part[0] == "s" else part[1:]) for part in text.split("_")}
        repeats = fields["r"] if i in (0, 6) else math.ceil(fields["r"] * deeper)
        for repeat in range(repeats):
            at, stride, y = f"_blocks.{number}.", fields["s"] if repeat == 0 else 1, x
            if fields["e"] > 1:
                y = normed(same_conv(y, state[f"{at}_expand_conv.weight"], 1, 1), state, f"{at}_bn0").clamp(0, 6)
            y = same_conv(y, state[f"{at}_depthwise_conv.weight"], stride, y.shape[1])
            y = normed(y, state, f"{at}_bn1").clamp(0, 6)
            y = normed(same_conv(y, state[f"{at}_project_conv.weight"], 1, 1), state, f"{at}_bn2")
            x = x + y if x.shape == y.shape else y
            number += 1
        stage_ends.append(x)
    assert f"_blocks.{number}._bn1.weight" not in state
    return [stage_ends[i] for i in (1, 2, 4, 6)]


@pytest.mark.parametrize("norm", ["batch", "frozen"])
@pytest.mark.parametrize("size", [0, 2])
def test_the_maps_equal_the_definition(size: int, norm: str) -> None:
    backbone, images = shaken(lite(size, norm)), torch.randn(2, 3, 97, 70)
    with torch.no_grad():
        maps = backbone(images)
        for got, want in zip(maps.values(), by_the_builder(backbone.state_dict(), size, images), strict=True):
            torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", RELEASED)
def test_with_the_classifier_the_released_number_of_parameters_is_reached(size: int) -> None:
    with torch.device("meta"):
        backbone = lite(size)
    last = backbone.channels["res5"]
    classifier = nn.ModuleList([nn.Conv2d(last, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.Linear(1280, 1000)])
    assert sum(p.numel() for p in (*backbone.parameters(), *classifier.parameters())) == RELEASED[size]


def test_a_size_that_was_never_released_is_refused() -> None:
    with pytest.raises(SpecError, match="lite5") as error:
        lite(5)
    assert error.value.where == "model.backbone.efficientnet_lite.size"
