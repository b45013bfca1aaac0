"""The `model.backbone` section: which network turns the image into four maps, and its sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Len, Lt

from oneformer.spec.field import Pattern, Tao

Map = Annotated[str, Pattern("^res[2-5]$", "res2, res3, res4 or res5")]
MAPS = ("res2", "res3", "res4", "res5")
Count = Annotated[int, Ge(1)]
Stage = Annotated[int, Ge(0), Le(3)]


@dataclass
class SwinSpec:
    """Swin transformer."""

    embed_dim: Annotated[int, Ge(1), Tao("embed dim")] = 192
    """Channels of the first stage; each later stage doubles them."""
    depths: Annotated[list[Count], Len(4, 4), Tao("depths", automl=False)] = field(
        default_factory=lambda: [2, 2, 18, 2]
    )
    """Blocks of each of the four stages."""
    num_heads: Annotated[list[Count], Len(4, 4), Tao("num heads", automl=False)] = field(
        default_factory=lambda: [6, 12, 24, 48]
    )
    """Attention heads of each stage; each divides the channels of its stage."""
    window_size: Annotated[int, Ge(1), Tao("window size")] = 12
    """Side of the attention windows in tokens (7 for tiny and small, 12 for base and large at 384 pixels)."""
    mlp_ratio: Annotated[float, Gt(0), Tao("mlp ratio")] = 4.0
    """Hidden width of a block's feed-forward part, as a multiple of its channels."""
    qkv_bias: Annotated[bool, Tao("qkv bias")] = True
    """Bias in the projections to query, key and value."""
    qk_scale: Annotated[float | None, Gt(0), Tao("qk scale")] = None
    """Factor on the attention logits; null takes one over the root of the head width."""
    attn_drop_rate: Annotated[float, Ge(0), Lt(1), Tao("attn drop rate")] = 0.0
    """Dropout on attention weights."""
    drop_rate: Annotated[float, Ge(0), Lt(1), Tao("drop rate")] = 0.0
    """Dropout on tokens and feed-forward outputs."""
    drop_path_rate: Annotated[float, Ge(0), Lt(1), Tao("drop path rate")] = 0.3
    """Probability of skipping the last block in training; it rises linearly from 0 at the first."""
    ape: Annotated[bool, Tao("ape")] = False
    """Add a learned absolute position to the patches."""
    patch_norm: Annotated[bool, Tao("patch norm")] = True
    """Layer-normalise the patches after embedding."""
    patch_size: Annotated[int, Ge(1), Tao("patch size")] = 4
    """Side of a patch in pixels, which is the stride of the first map."""
    pretrain_img_size: Annotated[int, Ge(1), Tao("pretrained image size")] = 384
    """Side of the pretraining images; it sizes the absolute position table."""
    use_checkpoint: Annotated[bool, Tao("use checkpoint")] = False
    """Recompute the backbone's activations in the backward pass: less memory, more time."""
    out_features: Annotated[list[Map], Tao("out features", automl=False)] = field(default_factory=lambda: list(MAPS))
    """Names of the maps handed to the pixel decoder."""
    out_indices: Annotated[list[Stage], Tao("out indices", automl=False)] = field(default_factory=lambda: [0, 1, 2, 3])
    """Stages that give a map, counted from 0."""


@dataclass
class ResNetSpec:
    """Residual network."""

    depth: Literal[50, 101] = 50
    """Number of layers."""
    norm: Literal["frozen", "batch"] = "frozen"
    """`frozen` keeps the statistics of the pretrained batch normalisation, `batch` goes on learning them."""
    stride_in_1x1: bool = False
    """Halve the map in the first 1x1 convolution of a stage, as the first release and Keras do, instead of in the 3x3
    one, as torchvision and most weight files do. The weights decide: they fit both ways and are right for one."""
    out_features: list[Map] = field(default_factory=lambda: list(MAPS))
    """Names of the maps handed to the pixel decoder."""
    use_checkpoint: bool = False
    """Recompute the backbone's activations in the backward pass: less memory, more time."""


@dataclass
class DinatSpec:
    """Dilated neighbourhood attention transformer."""

    embed_dim: Annotated[int, Ge(1), Tao("embed dim")] = 192
    """Channels of the first stage; each later stage doubles them."""
    mlp_ratio: Annotated[float, Gt(0), Tao("mlp ratio")] = 2.0
    """Hidden width of a block's feed-forward part, as a multiple of its channels."""
    depths: Annotated[list[Count], Len(4, 4), Tao("depths", automl=False)] = field(
        default_factory=lambda: [3, 4, 18, 5]
    )
    """Blocks of each of the four stages."""
    num_heads: Annotated[list[Count], Len(4, 4), Tao("num heads", automl=False)] = field(
        default_factory=lambda: [6, 12, 24, 48]
    )
    """Attention heads of each stage."""
    kernel_size: Annotated[int, Ge(1), Tao("kernel size")] = 7
    """Side of the neighbourhood that each token attends to; odd."""
    drop_path_rate: Annotated[float, Ge(0), Lt(1), Tao("drop path rate")] = 0.3
    """Probability of skipping the last block in training; it rises linearly from 0 at the first."""
    dilations: Annotated[list[list[Count]] | None, Tao("dilations", automl=False)] = None
    """Spacing of the neighbourhood for each block, one list per stage; null means 1 everywhere."""
    out_features: Annotated[list[Map], Tao("out features", automl=False)] = field(default_factory=lambda: list(MAPS))
    """Names of the maps handed to the pixel decoder."""
    out_indices: Annotated[list[Stage], Tao("out indices", automl=False)] = field(default_factory=lambda: [0, 1, 2, 3])
    """Stages that give a map, counted from 0."""
    use_checkpoint: Annotated[bool, Tao("use checkpoint")] = False
    """Recompute the backbone's activations in the backward pass: less memory, more time."""


@dataclass
class RadioSpec:
    """C-RADIO vision transformer."""

    resolution: Annotated[list[Count], Len(2, 2), Tao("resolution", automl=False)] = field(
        default_factory=lambda: [1024, 1024]
    )
    """Height and width the position table is made for, in pixels."""
    backbone: Annotated[str, Tao("backbone")] = "vit_base_patch16_224"
    """Name of the transformer variant."""
    summary_idxs: Annotated[list[int], Tao("summary idxs", automl=False)] = field(default_factory=lambda: [0, 1, 2])
    """Which of the summary tokens are kept."""
    window_size: Annotated[int | None, Ge(1), Tao("window size")] = None
    """Side of the attention windows in tokens; null attends to the whole image."""
    num_teacher: Annotated[int, Ge(1), Tao("num teacher")] = 4
    """Teachers the weights were distilled from, which sets the number of summary tokens."""
    cpe_max_size: Annotated[int, Ge(1), Tao("cpe max size")] = 2048
    """Largest image side the cropped position table serves, in pixels."""
    register_multiple: Annotated[int, Ge(0), Tao("register multiple")] = 8
    """Register tokens are added until the token count is a multiple of this."""
    out_features: Annotated[list[Map], Tao("out features", automl=False)] = field(default_factory=lambda: list(MAPS))
    """Names of the maps handed to the pixel decoder."""
    use_checkpoint: Annotated[bool, Tao("use checkpoint")] = False
    """Recompute the backbone's activations in the backward pass: less memory, more time."""


@dataclass
class BackboneSpec:
    """Which backbone, and the sizes of each kind; only the section of the chosen kind is used."""

    name: Annotated[Literal["D2SwinTransformer", "resnet50", "D2DiNAT", "D2RADIO"], Tao("name")] = "D2SwinTransformer"
    """The backbone: Swin transformer, ResNet-50, DiNAT or C-RADIO."""
    freeze_at: Annotated[int, Ge(0), Tao("freeze at")] = 0
    """Stages kept fixed in training, counted from the image; 0 trains all of them."""
    swin: SwinSpec = field(default_factory=SwinSpec)
    """Swin transformer."""
    resnet: ResNetSpec = field(default_factory=ResNetSpec)
    """Residual network."""
    dinat: DinatSpec = field(default_factory=DinatSpec)
    """Dilated neighbourhood attention transformer."""
    radio: RadioSpec = field(default_factory=RadioSpec)
    """C-RADIO vision transformer."""
