"""The `model.backbone` section: which network turns the image into four maps, and its sizes."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Len, Lt

from oneformer.spec.field import Pattern, Search, Spellings, Tao, Unit

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
    drop_path_rate: Annotated[
        float, Ge(0), Lt(1), Search(0.0, 0.5, when="model.backbone.name=D2SwinTransformer"), Tao("drop path rate")
    ] = 0.3
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
    """Attention heads of each stage; each divides the channels of its stage."""
    kernel_size: Annotated[int, Ge(1), Tao("kernel size")] = 7
    """Side of the neighbourhood that each token attends to; odd (11 in most published models)."""
    drop_path_rate: Annotated[
        float, Ge(0), Lt(1), Search(0.0, 0.5, when="model.backbone.name=D2DiNAT"), Tao("drop path rate")
    ] = 0.3
    """Probability of skipping the last block in training; it rises linearly from 0 at the first."""
    dilations: Annotated[list[list[Count]] | None, Tao("dilations", automl=False)] = None
    """Spacing of the neighbourhood for each block, one list per stage; null means 1 everywhere."""
    layer_scale: Annotated[float | None, Gt(0)] = None
    """Initial value of a learned factor on each branch of a block (1e-5 for the base weights); null for no factor."""
    out_features: Annotated[list[Map], Tao("out features", automl=False)] = field(default_factory=lambda: list(MAPS))
    """Names of the maps handed to the pixel decoder."""
    out_indices: Annotated[list[Stage], Tao("out indices", automl=False)] = field(default_factory=lambda: [0, 1, 2, 3])
    """Stages that give a map, counted from 0."""
    use_checkpoint: Annotated[bool, Tao("use checkpoint")] = False
    """Recompute the backbone's activations in the backward pass: less memory, more time."""


@dataclass
class ConvNextSpec:
    """ConvNeXt, a convolutional network in the manner of a transformer."""

    embed_dim: Annotated[int, Ge(1)] = 192
    """Channels of the first stage; each later stage doubles them."""
    depths: Annotated[list[Count], Len(4, 4)] = field(default_factory=lambda: [3, 3, 27, 3])
    """Blocks of each of the four stages."""
    layer_scale: Annotated[float | None, Gt(0)] = 1.0
    """Initial value of a learned factor on each block's branch; null for no factor."""
    drop_path_rate: Annotated[float, Ge(0), Lt(1), Search(0.0, 0.5, when="model.backbone.name=convnext")] = 0.4
    """Probability of skipping the last block in training; it rises linearly from 0 at the first."""
    out_features: list[Map] = field(default_factory=lambda: list(MAPS))
    """Names of the maps handed to the pixel decoder."""
    use_checkpoint: bool = False
    """Recompute the backbone's activations in the backward pass: less memory, more time."""


@dataclass
class VitSpec:
    """Plain vision transformer like DINOv2 and DINOv3, with a pyramid of four maps on its last one."""

    embed_dim: Annotated[int, Ge(1)] = 768
    """Channels of every token; a multiple of 4."""
    depth: Annotated[int, Ge(1)] = 12
    """Number of blocks."""
    num_heads: Annotated[int, Ge(1)] = 12
    """Attention heads; they divide the channels."""
    mlp_ratio: Annotated[float, Gt(0)] = 4.0
    """Hidden width of a block's feed-forward part, as a multiple of its channels."""
    gated_mlp: bool = False
    """Gate the feed-forward part, as the giant sizes do; its hidden width is then two thirds of the one above."""
    patch_size: Literal[14, 16] = 16
    """Side of a patch as the weights know it (DINOv2: 14, DINOv3: 16). Each token stands for 16 pixels of the image in
    any case: for patches of 14 the image is scaled by 14/16."""
    position: Literal["rope", "learned"] = "rope"
    """`rope` turns queries and keys by their position (DINOv3), `learned` adds a table to the patches (DINOv2)."""
    pretrain_img_size: Annotated[int, Ge(16), Unit("pixels")] = 518
    """Side of the pretraining images, which sizes a learned position table; other image sizes interpolate it."""
    register_tokens: Annotated[int, Ge(0)] = 4
    """Tokens without a place in the image that go along with the patches."""
    layer_scale: Annotated[float | None, Gt(0)] = 1e-5
    """Initial value of a learned factor on each branch of a block; null for no factor."""
    drop_path_rate: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Probability of skipping the last block in training; it rises linearly from 0 at the first."""
    window_size: Annotated[int | None, Ge(1)] = None
    """Side of the attention windows in tokens; every fourth part of the blocks still ends with one that attends to the
    whole image. null attends to the whole image everywhere."""
    out_features: list[Map] = field(default_factory=lambda: list(MAPS))
    """Names of the maps handed to the pixel decoder."""
    use_checkpoint: bool = False
    """Recompute the backbone's activations in the backward pass: less memory, more time."""


@dataclass
class EfficientNetLiteSpec:
    """EfficientNet-lite, a small convolutional network for weak processors."""

    size: Annotated[int, Ge(0), Le(4)] = 0
    """The released size, lite0 to lite4."""
    norm: Literal["frozen", "batch"] = "frozen"
    """`frozen` keeps the statistics of the pretrained batch normalisation, `batch` goes on learning them."""
    drop_path_rate: Annotated[float, Ge(0), Lt(1)] = 0.2
    """Probability of skipping the last block in training; it rises linearly from 0 at the first."""
    out_features: list[Map] = field(default_factory=lambda: list(MAPS))
    """Names of the maps handed to the pixel decoder."""
    use_checkpoint: bool = False
    """Recompute the backbone's activations in the backward pass: less memory, more time."""


@dataclass
class TimmSpec:
    """A network of the package timm, which has to be installed."""

    model: str = ""
    """Its name there, such as `convnextv2_tiny` or `mobilenetv4_conv_small`."""
    out_features: list[Map] = field(default_factory=lambda: list(MAPS))
    """Names of the maps handed to the pixel decoder."""
    use_checkpoint: bool = False
    """Recompute the backbone's activations in the backward pass: less memory, more time."""


@dataclass
class RadioSpec:
    """C-RADIO vision transformer, with a pyramid of four maps on its last one."""

    resolution: Annotated[list[Count], Len(2, 2), Tao("resolution", automl=False)] = field(
        default_factory=lambda: [1024, 1024]
    )
    """Height and width of the pretraining images in pixels. Where both equal `cpe_max_size` the position table is
    cropped to the image; otherwise it is scaled to the longer side of the image before."""
    backbone: Annotated[str, Tao("backbone")] = "vit_base_patch16_224"
    """Name of the transformer variant: vit_base_patch16_224, vit_large_patch16_224, vit_huge_patch16_224,
    vit_huge_patch16_224_mlpnorm or vit_large_patch16_reg4_dinov2."""
    summary_idxs: Annotated[list[int], Tao("summary idxs", automl=False)] = field(default_factory=lambda: [0, 1, 2])
    """Which of the summary tokens are kept."""
    window_size: Annotated[int | None, Ge(1), Tao("window size")] = None
    """Side of the attention windows in tokens; every fourth part of the blocks still ends with one that attends to the
    whole image. null attends to the whole image everywhere."""
    num_teacher: Annotated[int, Ge(1), Tao("num teacher")] = 4
    """Teachers the weights were distilled from, which is the number of summary tokens."""
    cpe_max_size: Annotated[int, Ge(16), Tao("cpe max size")] = 2048
    """Side in pixels of the image that the position table covers; it is cut or scaled for other sizes."""
    register_multiple: Annotated[int, Ge(0), Tao("register multiple")] = 8
    """Register tokens fill the summary tokens up to the next multiple of this; 0 for none."""
    out_features: Annotated[list[Map], Tao("out features", automl=False)] = field(default_factory=lambda: list(MAPS))
    """Names of the maps handed to the pixel decoder."""
    use_checkpoint: Annotated[bool, Tao("use checkpoint")] = False
    """Recompute the backbone's activations in the backward pass: less memory, more time."""


Name = Literal["D2SwinTransformer", "resnet50", "D2DiNAT", "D2RADIO", "convnext", "vit", "efficientnet_lite", "timm"]
SECTIONS: dict[str, str] = {
    "D2SwinTransformer": "swin",
    "resnet50": "resnet",
    "D2DiNAT": "dinat",
    "D2RADIO": "radio",
    "convnext": "convnext",
    "vit": "vit",
    "efficientnet_lite": "efficientnet_lite",
    "timm": "timm",
}
"""Name of a backbone -> the section with its sizes."""


@dataclass
class BackboneSpec:
    """Which backbone, and the sizes of each kind; only the section of the chosen kind is used."""

    name: Annotated[
        Name,
        Tao("name"),
        Spellings(
            (("swin", "D2SwinTransformer"), ("resnet", "resnet50"), ("dinat", "D2DiNAT"), ("radio", "D2RADIO")),
        ),
    ] = "D2SwinTransformer"
    """The backbone; `resnet50` is the residual network of `resnet.depth` layers."""
    freeze_at: Annotated[int, Ge(0), Tao("freeze at")] = 0
    """Stages kept fixed in training, counted from the image; 0 trains all of them. The first is the stem, then come the
    four stages; those of a plain transformer are quarters of its blocks."""
    swin: SwinSpec = field(default_factory=SwinSpec)
    """Swin transformer."""
    resnet: ResNetSpec = field(default_factory=ResNetSpec)
    """Residual network."""
    dinat: DinatSpec = field(default_factory=DinatSpec)
    """Dilated neighbourhood attention transformer."""
    radio: RadioSpec = field(default_factory=RadioSpec)
    """C-RADIO vision transformer."""
    convnext: ConvNextSpec = field(default_factory=ConvNextSpec)
    """ConvNeXt."""
    vit: VitSpec = field(default_factory=VitSpec)
    """Plain vision transformer."""
    efficientnet_lite: EfficientNetLiteSpec = field(default_factory=EfficientNetLiteSpec)
    """EfficientNet-lite."""
    timm: TimmSpec = field(default_factory=TimmSpec)
    """A network of the package timm."""
