"""A backbone's section of the spec -> a module that holds the backbone as a OneFormer does; weights and what they give."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from model.weights.elsewhere import FILE, numbers
from oneformer.model.backbones import build_backbone
from oneformer.model.weights.pixels import Pixels
from oneformer.spec.backbone import BackboneSpec


class Holder(nn.Module):
    """What `load_backbone` needs of a OneFormer."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.backbone = build_backbone(spec)
        self.eval()

    def maps(self, images: Tensor) -> list[Tensor]:
        """res2..res5."""
        with torch.no_grad():
            return list(self.backbone(images).values())


def swin_spec(*, window: int = 2, depths: tuple[int, ...] = (2, 2, 1, 1), dim: int = 8) -> BackboneSpec:
    """A Swin transformer of a few thousand parameters."""
    spec = BackboneSpec()
    spec.swin.embed_dim, spec.swin.depths, spec.swin.num_heads = dim, list(depths), [1, 2, 4, 8]
    spec.swin.window_size, spec.swin.drop_path_rate, spec.swin.pretrain_img_size = window, 0.0, 64
    return spec


def resnet_spec(*, stride_in_1x1: bool = False) -> BackboneSpec:
    """ResNet-50."""
    spec = BackboneSpec()
    spec.name, spec.resnet.stride_in_1x1 = "resnet50", stride_in_1x1
    return spec


def shuffle(model: nn.Module, seed: int = 0) -> nn.Module:
    """New values for everything: what starts as zero or one would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(1 + 0.5 * noise.abs())
        elif tensor.ndim > 1 and "table" not in name and "pos" not in name:
            tensor.copy_(noise / tensor[0].numel() ** 0.5)
        elif name.endswith("weight") or "scale" in name or "lambda" in name:
            tensor.copy_(1 + 0.2 * noise)
        else:
            tensor.copy_(0.2 * noise)
    return model.eval()


def error(got: Tensor, want: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    return ((got - want).abs().max() / want.abs().max()).item()


@cache
def records() -> dict[str, Any]:
    """What `elsewhere` kept of networks of other libraries."""
    kept: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return kept


def weights_of(name: str) -> dict[str, Tensor]:
    """The weights of a network of `elsewhere`, under its library's names."""
    return {n: numbers(n, tuple(shape)) for n, shape in records()[name]["shapes"].items()}


def cubic(distance: float) -> float:
    """Keys's kernel with a = -0.75, which is what PyTorch and OpenCV call bicubic."""
    d, a = abs(distance), -0.75
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def bicubic(grid: np.ndarray, length: int) -> np.ndarray:
    """(n, n) -> (length, length), cell by cell."""
    n = len(grid)
    out = np.zeros((length, length))
    for i in range(length):
        for j in range(length):
            y, x = (i + 0.5) * n / length - 0.5, (j + 0.5) * n / length - 0.5
            for r in range(int(np.floor(y)) - 1, int(np.floor(y)) + 3):
                for c in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
                    held = grid[min(max(r, 0), n - 1), min(max(c, 0), n - 1)]
                    out[i, j] += cubic(y - r) * cubic(x - c) * held
    return out


# COCO photo -> ImageNet's class of what it shows: zebra, umbrella, analog clock, moped.
SHOWN = {"000000000034.jpg": 340, "000000000036.jpg": 879, "000000000064.jpg": 409, "000000000073.jpg": 665}


def prepared(image: Tensor, pixels: Pixels) -> Tensor:
    """Values 0-255 (B, 3, H, W) as a network wants them."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (pixels.mean, pixels.std))
    return (image - mean) / std


def photo(path: Path) -> Tensor:
    """Values 0-255 (1, 3, 224, 224), as classifiers of ImageNet take them."""
    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB").resize((224, 224)))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
