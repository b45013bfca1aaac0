"""Small networks of torchvision and timm -> elsewhere.json: their parameter names and shapes, and what they compute.

    python tests/model/weights/elsewhere.py     # where torchvision and timm are installed; the tests need neither

Weights follow from a parameter's name, so that the file holds none.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FILE = Path(__file__).with_suffix(".json")
SIZE = 64  # pixels; maps of 16, 8, 4 and 2, which windows of 2 tile
STEP = 5  # every which value of a map is kept


def numbers(name: str, shape: tuple[int, ...]) -> Tensor:
    """The values of a parameter: spread evenly in a range that keeps activations near one; equal on every machine."""
    at = np.arange(int(np.prod(shape)), dtype=np.float64) + zlib.crc32(name.encode()) % 10007
    even = 2 * np.modf(np.abs(np.sin(at * 12.9898) * 43758.5453))[0] - 1  # -1..1
    last = name.rsplit(".", 1)[-1]
    if last == "running_var":
        even = 1 + 0.5 * even
    elif len(shape) > 1 and last not in ("layer_scale", "relative_position_bias_table", "pos_embed", "cls_token"):
        even = even * (3 / np.prod(shape[1:])) ** 0.5
    elif last in ("weight", "gamma", "layer_scale"):
        even = 1 + 0.3 * even
    else:
        even = 0.3 * even
    return torch.from_numpy(even.astype(np.float32)).reshape(shape)


def picture() -> Tensor:
    """The image that all networks see: (1, 3, 64, 64)."""
    return 2 * numbers("picture", (1, 3 * SIZE * SIZE)).reshape(1, 3, SIZE, SIZE)


def kept(x: Tensor) -> list[float]:
    """Some values of a map (1, C, h, w)."""
    return [round(v, 6) for v in x.flatten()[::STEP].tolist()]


def filled(model: nn.Module) -> nn.Module:
    """The model with values that follow from names, at rest."""
    state = model.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            tensor.copy_(numbers(name, tuple(tensor.shape)))
    return model.eval()


def normed(x: Tensor, eps: float) -> Tensor:
    """(1, h, w, C) -> (1, C, h, w) after a LayerNorm without scale and shift, as ours does before it has learned."""
    return nn.functional.layer_norm(x, x.shape[-1:], eps=eps).permute(0, 3, 1, 2)


def last(x: Tensor) -> Tensor:
    """(1, C, h, w) -> (1, h, w, C)."""
    return x.permute(0, 2, 3, 1)


def entry(version: str, model: nn.Module, maps: list[Tensor]) -> dict[str, Any]:
    """What the file keeps of one network."""
    shapes = {n: list(t.shape) for n, t in model.state_dict().items()}
    return {"version": version, "shapes": shapes, "maps": [kept(x) for x in maps]}


def torchvision_networks() -> dict[str, Any]:
    """Swin and ConvNeXt in torchvision's names."""
    import torchvision
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt
    from torchvision.models.swin_transformer import SwinTransformer

    version = f"torchvision {torchvision.__version__.split('+')[0]}"
    swin = filled(
        SwinTransformer(patch_size=[4, 4], embed_dim=8, depths=[2, 2, 1, 1], num_heads=[1, 2, 4, 8], window_size=[2, 2])
    )
    blocks = [CNBlockConfig(8, 16, 2), CNBlockConfig(16, 32, 1), CNBlockConfig(32, 64, 2), CNBlockConfig(64, None, 1)]
    convnext = filled(ConvNeXt(blocks))
    stages = {}
    for name, model in (("swin", swin), ("convnext", convnext)):
        x, stages[name] = picture(), []
        for i, part in enumerate(model.features):
            x = part(x)
            if i % 2:
                stages[name].append(x)
    return {
        "torchvision swin": entry(version, swin, [normed(x, 1e-5) for x in stages["swin"]]),
        "torchvision convnext": entry(version, convnext, [normed(last(x), 1e-6) for x in stages["convnext"]]),
    }


def timm_networks() -> dict[str, Any]:
    """Swin, ConvNeXt (both ways to write its linear layers) and a DINOv2 in timm's names."""
    import timm

    version = f"timm {timm.__version__}"
    swin = filled(
        timm.models.swin_transformer.SwinTransformer(
            img_size=SIZE, embed_dim=8, depths=(2, 2, 1, 1), num_heads=(1, 2, 4, 8), window_size=2
        )
    )
    x, maps = swin.patch_embed(picture()), []
    for stage in swin.layers:
        x = stage(x)
        maps.append(normed(x, 1e-5))
    out = {"timm swin": entry(version, swin, maps)}
    for name, conv_mlp in (("timm convnext", False), ("timm convnext of convolutions", True)):
        net = filled(timm.models.convnext.ConvNeXt(dims=(8, 16, 32, 64), depths=(2, 1, 2, 1), conv_mlp=conv_mlp))
        x, maps = net.stem(picture()), []
        for stage in net.stages:
            x = stage(x)
            maps.append(normed(last(x), 1e-6))
        out[name] = entry(version, net, maps)
    for name, registers in (("timm dinov2", 0), ("timm dinov2 with registers", 4)):
        vit = filled(
            timm.models.vision_transformer.VisionTransformer(
                img_size=SIZE,
                patch_size=16,
                embed_dim=32,
                depth=2,
                num_heads=2,
                init_values=1.0,
                reg_tokens=registers,
                no_embed_class=registers > 0,
                num_classes=0,
            )
        )
        tokens = vit.forward_features(picture())[:, 1 + registers :]
        out[name] = entry(version, vit, [tokens.transpose(1, 2).unflatten(2, (4, 4))])
    return out


if __name__ == "__main__":
    with torch.no_grad():
        FILE.write_text(json.dumps(torchvision_networks() | timm_networks(), separators=(",", ":")) + "\n")
