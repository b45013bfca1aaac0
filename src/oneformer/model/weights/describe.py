"""Named tensors -> a few words on the network they belong to, for messages about files that do not fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from oneformer.model.backbones.swin import SIZES

# (what a name contains, whose layout that is)
LAYOUTS = (
    ("pixel_level_module.", "a OneFormer or Mask2Former in Hugging Face's layout"),
    ("sem_seg_head.", "a OneFormer or Mask2Former in detectron2's layout"),
    ("levels.0.blocks.0.attn.rpb", "a DiNAT backbone"),
)


def describe(state: Mapping[str, Tensor]) -> str:
    """Such as "Swin-T (embed_dim 96, depths 2-2-6-2, window 7)"; never empty."""
    if not state:
        return "no tensor with a name of ours"
    for part, words in LAYOUTS:
        if any(part in name for name in state):
            return words
    return swin(state) or resnet(state) or f"{len(state)} tensors such as {', '.join(list(state)[:3])}"


def swin(state: Mapping[str, Tensor]) -> str:
    """The sizes of a Swin transformer; empty when it is none."""
    embed = first(state, "patch_embed.proj.weight")
    table = first(state, "layers.0.blocks.0.attn.relative_position_bias_table")
    if embed is None or table is None:
        return ""
    dim = embed.shape[0]
    window = (round(table.shape[0] ** 0.5) + 1) // 2
    depths = tuple(count(state, rf"(?<!decoder\.)layers\.{i}\.blocks\.(\d+)\.") for i in range(4))
    name = next((n for n, (d, ds, _, _) in SIZES.items() if (d, ds) == (dim, depths)), "a Swin transformer")
    return f"{name} (embed_dim {dim}, depths {'-'.join(map(str, depths))}, window {window})"


def resnet(state: Mapping[str, Tensor]) -> str:
    """The depth of a bottleneck ResNet; empty when it is none."""
    if first(state, "layer3.0.conv3.weight") is None:
        return ""
    blocks = sum(count(state, rf"layer{i}\.(\d+)\.") for i in range(1, 5))
    return f"ResNet-{3 * blocks + 2}"


def first(state: Mapping[str, Tensor], ending: str) -> Tensor | None:
    """The tensor whose name ends so."""
    return next((tensor for name, tensor in state.items() if name.endswith(ending)), None)


def count(names: Iterable[str], pattern: str) -> int:
    """How many different numbers stand in the group of `pattern`."""
    return len({found.group(1) for name in names if (found := re.search(pattern, name))})
