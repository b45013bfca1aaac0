"""A stand-in for the package timm: four networks with the face that timm's feature extractors have."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn


class FeatureInfo(list[dict[str, Any]]):
    """Which maps a network gives, finest first."""

    def reduction(self) -> list[int]:
        return [row["reduction"] for row in self]

    def channels(self) -> list[int]:
        return [row["num_chs"] for row in self]


class TinyNet(nn.Module):
    """Maps at strides 2 to 32 from one convolution each; names are flattened as timm's list of features has them."""

    def __init__(self, *, channels_last: bool = False) -> None:
        super().__init__()
        widths = [4, 8, 8, 16, 16]
        self.feature_info = FeatureInfo(
            {"num_chs": c, "reduction": 2 ** (i + 1), "module": "stem" if i == 0 else f"stages.{i - 1}"}
            for i, c in enumerate(widths)
        )
        self.output_fmt = "NHWC" if channels_last else "NCHW"
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 3, stride=2, padding=1), nn.BatchNorm2d(widths[0]))
        for i in range(4):
            layers = [nn.Conv2d(widths[i], widths[i + 1], 2, stride=2), nn.BatchNorm2d(widths[i + 1])]
            self.add_module(f"stages_{i}", nn.Sequential(*layers))
        self.checkpointing = False

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.checkpointing = enable

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [self.stem(x)]
        for i in range(4):
            stage = self.get_submodule(f"stages_{i}")
            if self.checkpointing and self.training:
                maps.append(torch.utils.checkpoint.checkpoint(stage, maps[-1], use_reentrant=False))
            else:
                maps.append(stage(maps[-1]))
        return [m.permute(0, 2, 3, 1) for m in maps] if self.output_fmt == "NHWC" else maps


class FixedNet(TinyNet):
    """Takes images of 224 pixels only."""

    def forward(self, x: Tensor) -> list[Tensor]:
        if x.shape[2:] != (224, 224):
            raise AssertionError("Input height (96) doesn't match model (224).")
        return super().forward(x)


class TinyVit(nn.Module):
    """A plain transformer: three maps, all of stride 16."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_info = FeatureInfo({"num_chs": 8, "reduction": 16, "module": f"blocks.{i}"} for i in range(3))


def create_model(name: str, *, pretrained: bool, features_only: bool, **more: Any) -> nn.Module:
    assert features_only and not pretrained
    if name == "tiny_swin":
        assert more == {"strict_img_size": False}
        return TinyNet(channels_last=True)
    networks = {"tiny_net": TinyNet, "tiny_vit": TinyVit, "fixed_net": FixedNet}
    if name not in networks:
        raise RuntimeError(f"Unknown model ({name})")
    if more:
        raise TypeError(f"{name}() got an unexpected keyword argument")
    return networks[name]()


def fake_timm() -> ModuleType:
    """The module to put into `sys.modules`."""
    module = ModuleType("timm")
    module.create_model = create_model  # type: ignore[attr-defined]
    module.list_models = lambda pattern="*": [  # type: ignore[attr-defined]
        n for n in ("tiny_net", "tiny_swin", "tiny_vit") if n.startswith(pattern.strip("*"))
    ]
    return module
