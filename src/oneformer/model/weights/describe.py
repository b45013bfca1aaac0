"""Named tensors -> a few words on the network they belong to, for messages about files that do not fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from oneformer.model.backbones import convnext as convnexts
from oneformer.model.backbones import dinat as dinats
from oneformer.model.backbones import efficientnet_lite as lites
from oneformer.model.backbones import swin as swins
from oneformer.model.backbones import vit as vits
from oneformer.model.weights.families import LAYOUTS

# (what a name contains, whose layout that is)
LAYOUTS_OF_MODELS = (
    ("pixel_level_module.", "a OneFormer or Mask2Former in Hugging Face's layout"),
    ("sem_seg_head.", "a OneFormer or Mask2Former in detectron2's layout"),
)
BLOCK = r"(?<![^.])blocks\.(\d+)\."  # of a plain transformer
OUTER = {"module", "model", "backbone", "encoder"}


def describe(state: Mapping[str, Tensor]) -> str:
    """Such as "Swin-T (embed_dim 96, depths 2-2-6-2, window 7)"; never empty."""
    if not state:
        return "no tensor with a name of ours"
    for part, words in LAYOUTS_OF_MODELS:
        if any(part in name for name in state):
            return words
    for read in LAYOUTS.values():
        ours = read(bare(state))
        words = swin(ours) or resnet(ours) or convnext(ours) or dinat(ours) or vit(ours) or radio(ours)
        words = words or efficientnet(ours)
        if words:
            return words
    return f"{len(state)} tensors such as {', '.join(list(state)[:3])}"


def bare(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what stands before all names, such as `model.backbone.`."""
    named = dict(state)
    while (outer := {name.split(".", 1)[0] for name in named}) <= OUTER and len(outer) == 1:
        named = {name.split(".", 1)[-1]: tensor for name, tensor in named.items()}
    return named


def swin(state: Mapping[str, Tensor]) -> str:
    """The sizes of a Swin transformer; empty when it is none."""
    embed = first(state, "patch_embed.proj.weight")
    table = first(state, "layers.0.blocks.0.attn.relative_position_bias_table")
    if embed is None or table is None:
        return ""
    dim = embed.shape[0]
    window = (round(table.shape[0] ** 0.5) + 1) // 2
    depths = tuple(count(state, rf"(?<!decoder\.)layers\.{i}\.blocks\.(\d+)\.") for i in range(4))
    name = next((n for n, (d, ds, *_) in swins.SIZES.items() if (d, ds) == (dim, depths)), "a Swin transformer")
    return f"{name} (embed_dim {dim}, depths {dashed(depths)}, window {window})"


def resnet(state: Mapping[str, Tensor]) -> str:
    """The depth of a bottleneck ResNet; empty when it is none."""
    if first(state, "layer3.0.conv3.weight") is None:
        return ""
    blocks = sum(count(state, rf"layer{i}\.(\d+)\.") for i in range(1, 5))
    return f"ResNet-{3 * blocks + 2}"


def convnext(state: Mapping[str, Tensor]) -> str:
    """The sizes of a ConvNeXt; empty when it is none."""
    stem = first(state, "downsample_layers.0.0.weight")
    if stem is None:
        return ""
    dim, depths = stem.shape[0], tuple(count(state, rf"(?<![^.])stages\.{i}\.(\d+)\.") for i in range(4))
    name = next((n for n, sizes in convnexts.SIZES.items() if sizes == (dim, depths)), "a ConvNeXt")
    return f"{name} (first stage {dim}, depths {dashed(depths)})"


def dinat(state: Mapping[str, Tensor]) -> str:
    """The sizes of a (dilated) neighbourhood attention transformer; empty when it is none."""
    table = first(state, "levels.0.blocks.0.attn.rpb")
    norm = first(state, "levels.0.blocks.0.norm1.weight")
    if table is None or norm is None:
        return ""
    dim, depths = norm.shape[0], tuple(count(state, rf"levels\.{i}\.blocks\.(\d+)\.") for i in range(4))
    name = next((n for n, (d, ds, *_) in dinats.SIZES.items() if (d, ds) == (dim, depths)), "a DiNAT")
    return f"{name} (embed_dim {dim}, depths {dashed(depths)}, kernel {(table.shape[-1] + 1) // 2})"


def vit(state: Mapping[str, Tensor]) -> str:
    """The sizes of a vision transformer; empty when it is none."""
    patches = first(state, "patch_embed.proj.weight")
    if patches is None or first(state, "blocks.0.attn.qkv.weight") is None or first(state, "cls_token") is None:
        return ""
    dim, depth = patches.shape[0], count(state, BLOCK)
    registers = first(state, "register_tokens" if first(state, "register_tokens") is not None else "reg_token")
    more = f", {registers.shape[1]} registers" if registers is not None else ""
    name = next((n for n, (d, ds, *_) in vits.SIZES.items() if (d, ds) == (dim, depth)), "a vision transformer")
    return f"{name} (width {dim}, {depth} blocks, patch {patches.shape[-1]}{more})"


def radio(state: Mapping[str, Tensor]) -> str:
    """The sizes of a C-RADIO transformer; empty when it is none."""
    embedder = first(state, "patch_generator.embedder.weight")
    if embedder is None:
        return ""
    return f"C-RADIO (width {embedder.shape[0]}, {count(state, BLOCK)} blocks)"


def efficientnet(state: Mapping[str, Tensor]) -> str:
    """Which EfficientNet-lite; empty when it is none."""
    if first(state, "_conv_stem.weight") is None:
        return ""
    depth = count(state, r"_blocks\.(\d+)\.")
    last = first(state, f"_blocks.{depth - 1}._project_conv.weight")
    for size in lites.SIZES:
        *_, (*_, end) = plan = lites.groups(size)
        if last is not None and (depth, last.shape[0]) == (sum(map(len, plan)), end.out_dim):
            return f"EfficientNet-lite{size}"
    return f"an EfficientNet of {depth} blocks"


def dashed(depths: tuple[int, ...]) -> str:
    """Such as 2-2-6-2."""
    return "-".join(map(str, depths))


def first(state: Mapping[str, Tensor], ending: str) -> Tensor | None:
    """The tensor whose name ends so."""
    return next((tensor for name, tensor in state.items() if name.endswith(ending)), None)


def count(names: Iterable[str], pattern: str) -> int:
    """How many different numbers stand in the group of `pattern`."""
    return len({found.group(1) for name in names if (found := re.search(pattern, name))})
