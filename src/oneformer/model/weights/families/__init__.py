"""Backbone weights in anybody's names -> the same under ours: one reader for each layout, one table for each family.

What the tables of whole models know (Hugging Face's Swin, ResNet, ConvNeXt and DiNAT, detectron2's ResNet) is read by
them; what other libraries call things stands in the files beside this one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor

from oneformer.errors import CheckpointError
from oneformer.model.weights.families.convnext import CONVNEXT
from oneformer.model.weights.families.swin import SWIN
from oneformer.model.weights.families.vit import VIT
from oneformer.model.weights.hf import read_hf
from oneformer.model.weights.hf_backbones import BACKBONE
from oneformer.model.weights.rename import renamed
from oneformer.model.weights.shi import read_shi
from oneformer.model.weights.table import Carried

Read = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
MODEL = re.compile(r"(swin|resnet|convnext|dinat)\.(?=embed|encoder|layernorm)")  # before names of classifiers

STAGE = re.compile(r"\A(\w+)\.(\d+)(?=\.)")


def dinov3(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DINOv3's release, which has a bias of the key and masks it."""
    masks = {name.removesuffix("_mask"): mask for name, mask in state.items() if name.endswith(".bias_mask")}
    acting = {name: t * masks[name].nan_to_num() if name in masks else t for name, t in state.items()}
    return renamed({name: t for name, t in acting.items() if not name.endswith(".bias_mask")}, VIT["DINOv3"])


def hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What transformers holds in networks of their own."""
    named = part_of_model(state, read_hf, within=BACKBONE)
    return renamed(named, {"^embeddings.position_embeddings": "absolute_pos_embed", "^layernorm": "norm"})


def detectron2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What detectron2 holds in its ResNet files."""
    return part_of_model(state, read_shi, within="backbone.")


def timm_network(state: Mapping[str, Tensor], *, flat: bool, within: str = "network.") -> dict[str, Tensor]:
    """What timm holds, for the network of timm's that gives maps: it may write `stages.0` as `stages_0`."""
    return {within + (STAGE.sub(r"\1_\2", name) if flat else name): tensor for name, tensor in state.items()}


def part_of_model(
    state: Mapping[str, Tensor], read: Callable[[Mapping[str, Tensor]], Carried], *, within: str
) -> dict[str, Tensor]:
    """A backbone alone, read as the part of a whole model that it would be there; nothing where it is none."""
    try:
        known, left = read({within + MODEL.sub("", name, count=1): tensor for name, tensor in state.items()})
    except CheckpointError:  # parts of one matrix are missing: these are another network's names
        return {}
    ours = {name.removeprefix("backbone."): tensor for name, tensor in known.items()}
    return {name.removeprefix(within): tensor for name, tensor in left.items()} | ours


LAYOUTS: dict[str, Read] = {
    "ours": dict,  # the names of the first release of each family
    **{name: partial(renamed, pieces=table) for part in (SWIN, CONVNEXT, VIT) for name, table in part.items()},
    "DINOv3": dinov3,
    "Hugging Face": hugging_face,
    "detectron2": detectron2,
    "timm": partial(timm_network, flat=False),
    "timm, in stages": partial(timm_network, flat=True),
    "timm, whole": partial(timm_network, flat=False, within="network.model."),
}
"""Every layout that backbone weights may come in."""
