"""What every pixel decoder promises, and the parts they share: named maps -> mask features and memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from oneformer.errors import SpecError
from oneformer.model.backbones.common import Backbone
from oneformer.model.position import sine_position

if TYPE_CHECKING:
    from oneformer.spec.model import ModelSpec

MOST_GROUPS = 32  # groups of the published group normalisation; fewer only for widths it does not divide
IN_FEATURES = "model.sem_seg_head.in_features"


class Features(NamedTuple):
    """What is computed once for an image, whatever the task."""

    mask_features: Tensor  # (B, C, h, w)
    memory: tuple[Tensor, ...]  # coarsest first, each (B, C, h_l, w_l)


class PixelDecoder(nn.Module):
    """Base of the pixel decoders.

    `forward` takes the backbone's maps, {name: (B, C, h, w)} of any size, and returns `Features`: mask features with
    `mask_dim` channels at `common_stride`, and `num_feature_levels` memory maps with `convs_dim` channels.

    Attributes:
        activation_checkpointing: recompute the attention layers in the backward pass.
    """

    mask_features: nn.Conv2d
    mask_position: MaskPosition | None

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.memory_levels = spec.one_former.num_feature_levels
        self.turns = spec.one_former.position_turns
        self.activation_checkpointing = False

    def add_mask_head(self, spec: ModelSpec, *, kernel: int) -> None:
        """The convolution that makes the mask features, and their position encoding when the spec asks for it."""
        head = spec.sem_seg_head
        self.mask_features = nn.Conv2d(head.convs_dim, head.mask_dim, kernel, padding=kernel // 2)
        self.mask_position = MaskPosition(head.mask_dim, turns=self.turns) if head.mask_position else None

    def finish(self, x: Tensor, memory: Sequence[Tensor]) -> Features:
        """The finest map (B, C, h, w) and all memory maps -> what is handed on."""
        mask_features: Tensor = self.mask_features(x)
        if self.mask_position is not None:
            mask_features = self.mask_position(mask_features)
        return Features(mask_features, tuple(memory[: self.memory_levels]))


class MaskPosition(nn.Module):
    """Adds a sine position encoding to the mask features, so that a query can point at one of many alike objects.

    One learned factor per channel, 1 at the start: the encoding is then as large as the features themselves.
    """

    def __init__(self, dim: int, *, turns: float) -> None:
        super().__init__()
        self.turns = turns
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, mask_features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        dim, height, width = mask_features.shape[1:]
        position = sine_position(height, width, dim, device=mask_features.device, turns=self.turns)  # (h*w, C)
        return mask_features + (position * self.scale).t().unflatten(1, (height, width))


def taken_maps(spec: ModelSpec, backbone: Backbone) -> list[str]:
    """Names of the backbone's maps that the decoder may use, coarsest first.

    These are the maps of `in_features`, and the one at `common_stride` in any case: it is where masks are drawn, and
    TAO's default list leaves it out. Maps finer than that have no part.
    """
    head, strides = spec.sem_seg_head, backbone.strides
    if head.common_stride not in strides.values():
        raise SpecError(
            f"no map of the backbone has a stride of {head.common_stride} pixels",
            where="model.sem_seg_head.common_stride",
            hint=f"the strides at hand are {', '.join(str(s) for s in strides.values())}",
        )
    chosen = [
        name
        for name, stride in strides.items()
        if stride == head.common_stride or (stride > head.common_stride and name in head.in_features)
    ]
    return sorted(chosen, key=lambda name: -strides[name])


def check_given(names: Iterable[str], backbone: Backbone, *, where: str) -> None:
    """A map that the backbone does not give is the user's to take off the list."""
    missing = [name for name in names if name not in backbone.strides]
    if missing:
        have = ", ".join(backbone.strides) or "none"
        raise SpecError(f"the backbone gives no map {missing[0]!r}", where=where, hint=f"its maps are {have}")


def check_levels(names: Sequence[str], spec: ModelSpec, *, where: str) -> None:
    """The query decoder visits a fixed number of maps; fewer cannot serve it."""
    levels = spec.one_former.num_feature_levels
    if len(names) < levels:
        raise SpecError(f"the query decoder visits {levels} maps, {len(names)} are listed", where=where)


def check_dims(spec: ModelSpec) -> None:
    """Widths that heads or position encodings cannot divide are the user's to change, with the key named."""
    heads, head = spec.one_former.nheads, spec.sem_seg_head
    wanted = [("one_former.hidden_dim", spec.one_former.hidden_dim)]
    if head.pixel_decoder_name != "BasePixelDecoder":  # which has no attention
        wanted.append(("sem_seg_head.convs_dim", head.convs_dim))
    for key, dim in wanted:
        if dim % heads or dim % 4:
            raise SpecError(
                f"{dim} channels do not divide into {heads} heads and into sine and cosine of two axes",
                where=f"model.{key}",
                hint=f"take a multiple of {math.lcm(heads, 4)}",
            )
    if head.mask_position and head.mask_dim % 4:
        raise SpecError("mask_position needs a multiple of 4 mask channels", where="model.sem_seg_head.mask_dim")


def lateral_conv(in_dim: int, dim: int, *, norm: str) -> nn.Sequential:
    """1x1 convolution and normalisation: how a map of the backbone joins the top-down path."""
    return nn.Sequential(nn.Conv2d(in_dim, dim, 1, bias=norm == "none"), norm_layer(norm, dim))


def smooth_conv(in_dim: int, dim: int, *, norm: str) -> nn.Sequential:
    """3x3 convolution, normalisation and ReLU: what follows each sum of the top-down path."""
    conv = nn.Conv2d(in_dim, dim, 3, padding=1, bias=norm == "none")
    return nn.Sequential(conv, norm_layer(norm, dim), nn.ReLU())


def norm_layer(norm: str, dim: int) -> nn.Module:
    """The normalisation that `model.sem_seg_head.norm` names."""
    if norm == "none":
        return nn.Identity()
    return nn.BatchNorm2d(dim) if norm == "BN" else group_norm(dim)


def group_norm(dim: int) -> nn.GroupNorm:
    """Group normalisation in 32 groups, or the most that divide `dim`."""
    return nn.GroupNorm(math.gcd(MOST_GROUPS, dim), dim)


def init_convs(*parts: nn.Module) -> None:
    """Kaiming-uniform (a=1) weights and zero biases, as Mask2Former's code starts its top-down path."""
    for part in parts:
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
