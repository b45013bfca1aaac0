"""The `model` section: heads, decoder, text branch, backbone and post-processing thresholds."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from oneformer.spec.backbone import BackboneSpec, Map
from oneformer.spec.field import Search, Spellings, Tao

FROM_NOTHING = "train.pretrained_model="
WIDTHS = ("model.sem_seg_head.convs_dim", "model.sem_seg_head.mask_dim", "model.text_encoder.width")


@dataclass
class SemSegHeadSpec:
    """Pixel decoder and class head."""

    name: Annotated[Literal["OneFormerHead"], Tao("name")] = "OneFormerHead"
    """Which head ties pixel decoder and query decoder together; there is one."""
    ignore_value: Annotated[int, Ge(0), Tao("ignore value")] = 255
    """Label of pixels that belong to no class: they enter neither loss nor score."""
    loss_weight: Annotated[float, Ge(0), Tao("loss weight")] = 1.0
    """Multiplies the whole loss; 1 leaves the published balance untouched."""
    in_features: Annotated[list[Map], Tao("in features", automl=False)] = field(
        default_factory=lambda: ["res3", "res4", "res5"]
    )
    """Backbone maps that the pixel decoder may use; the one at `common_stride` always takes part."""
    common_stride: Annotated[int, Ge(2), Tao("Common stride")] = 4
    """Pixels of the input per pixel of the mask features, along each side."""
    transformer_enc_layers: Annotated[int, Ge(1), Tao("Number of transformer encoder layers.", popular=True)] = 6
    """Attention layers in the pixel decoder."""
    convs_dim: Annotated[int, Ge(1), Tao("conv layer dim.", popular=True)] = 256
    """Channels inside the pixel decoder; a multiple of `nheads` and of 4, best of 32 (it normalises in 32 groups)."""
    mask_dim: Annotated[int, Ge(1), Tao("mask head dim.", popular=True)] = 256
    """Channels of the mask features; a query's mask is its product with them."""
    pixel_decoder_name: Annotated[
        Literal["MSDeformAttnPixelDecoder", "BasePixelDecoder", "TransformerEncoderPixelDecoder"],
        Tao("pixel decoder name"),
    ] = "MSDeformAttnPixelDecoder"
    """How the backbone's maps are joined: by multi-scale deformable attention, as published, or by a feature pyramid of
    convolutions, cheaper and less accurate (`BasePixelDecoder`), which may start with attention on the coarsest map."""
    deformable_transformer_encoder_in_features: Annotated[
        list[Map], Tao("transformer encoder in_features", automl=False)
    ] = field(default_factory=lambda: ["res3", "res4", "res5"])
    """Backbone maps that take part in deformable attention; the others only join through lateral connections."""
    norm: Annotated[Literal["GN", "BN", "none"], Spellings((("", "none"),)), Tao("norm type")] = "GN"
    """Normalisation of the convolutions on the way to the finest map: by groups of channels, by batch, or none."""
    num_classes: Annotated[int, Ge(0), Tao("num classes")] = 0
    """Classes of the label map, the no-object class not counted; 0 takes the label map's number."""
    dim_feedforward: Annotated[int, Ge(1)] = 1024
    """Hidden width of the feed-forward part of each attention layer in the pixel decoder."""
    num_points: Annotated[int, Ge(1)] = 4
    """Points that each head samples on each map in deformable attention."""
    mask_position: bool = False
    """Adds a sine position encoding with a learned scale to the mask features, so that queries can tell alike objects
    apart by where they lie. It helps small networks most; published weights have none."""


@dataclass
class OneFormerHeadSpec:
    """Query initialisation, masked-attention decoder and losses."""

    hidden_dim: Annotated[
        int, Ge(1), Search(choices=(128, 256, 384), tier=3, when=FROM_NOTHING, ties=WIDTHS), Tao("hidden dim")
    ] = 256
    """Width of the queries; a multiple of `nheads` and of 4."""
    nheads: Annotated[int, Ge(1), Tao("nheads")] = 8
    """Attention heads in the decoder and in the pixel decoder."""
    dim_feedforward: Annotated[int, Ge(1), Tao("dim feedforward")] = 2048
    """Hidden width of the feed-forward part of the decoder layers."""
    enc_layers: Annotated[int, Ge(0), Tao("enc layers")] = 0
    """Encoder layers of the transformer that makes queries out of the task token."""
    dec_layers: Annotated[int, Ge(2), Search(7, 10, tier=3, when=FROM_NOTHING), Tao("dec layers")] = 10
    """Predictions of the masked-attention decoder: the first comes before any layer, so it has one layer fewer."""
    pre_norm: Annotated[bool, Tao("pre norm")] = False
    """Normalise before each sub-layer instead of after it."""
    enforce_input_proj: Annotated[bool, Tao("enforce input proj")] = False
    """Project the pixel decoder's maps with a 1x1 convolution even when they already have `hidden_dim` channels."""
    size_divisibility: Annotated[int, Ge(1), Tao("size divisibility")] = 32
    """Batches are padded at the bottom and right to a multiple of this many pixels."""
    num_object_queries: Annotated[
        int, Ge(2), Search(choices=(100, 150, 250), tier=3, when=FROM_NOTHING), Tao("num object queries")
    ] = 150
    """Most segments the model can find in one image."""
    query_init: Literal["random", "spread"] = "random"
    """Where the position of each query starts: noise, as published, or points spread evenly over the image, which lets
    a network trained for minutes divide the image among its queries."""
    position_turns: Annotated[float, Ge(1)] = 1.0
    """Full turns of the fastest wave of the position encodings across the image: 1 as published; more tell small, close
    objects apart sooner."""
    train_num_points: Annotated[int, Ge(1), Tao("train num points")] = 12544
    """Points per mask on which matching and mask losses are computed (112 x 112, Mask2Former)."""
    oversample_ratio: Annotated[float, Ge(1), Tao("oversample ratio")] = 3.0
    """Candidates drawn per training point, before the most uncertain are kept."""
    importance_sample_ratio: Annotated[float, Ge(0), Le(1), Tao("importance sample ratio")] = 0.75
    """Share of the training points that is taken by uncertainty; the rest is drawn uniformly."""
    mask_weight: Annotated[float, Ge(0), Search(2.0, 10.0, "log", tier=2), Tao("mask weight")] = 5.0
    """Weight of the per-point cross-entropy, in the loss and in the matching cost."""
    dice_weight: Annotated[float, Ge(0), Search(2.0, 10.0, "log", tier=2), Tao("dice weight")] = 5.0
    """Weight of the dice term, in the loss and in the matching cost."""
    class_weight: Annotated[float, Ge(0), Tao("class weight")] = 2.0
    """Weight of the class term, in the loss and in the matching cost."""
    no_object_weight: Annotated[float, Ge(0), Search(0.03, 0.4, "log", tier=2), Tao("no object weight")] = 0.1
    """Weight of the no-object class within the class loss; most queries find nothing and would drown the others."""
    deep_supervision: Annotated[bool, Tao("deep supervision")] = True
    """Also apply the losses to the prediction after each earlier decoder layer."""
    dropout: Annotated[float, Ge(0), Lt(1), Search(0.0, 0.3, tier=2), Tao("dropout")] = 0.1
    """Dropout of the decoder and the pixel decoder."""
    transformer_decoder_name: Annotated[
        Literal["ContrastiveMultiScaleMaskedTransformerDecoder"], Tao("transformer decoder name")
    ] = "ContrastiveMultiScaleMaskedTransformerDecoder"
    """Which query decoder is used; there is one."""
    transformer_in_feature: Annotated[Literal["multi_scale_pixel_decoder"], Tao("transformer in feature")] = (
        "multi_scale_pixel_decoder"
    )
    """What the query decoder attends to: the three maps of the pixel decoder."""
    class_dec_layers: Annotated[int, Ge(1), Tao("class dec layers")] = 2
    """Decoder layers of the transformer that makes queries out of the task token."""
    contrastive_weight: Annotated[float, Ge(0), Search(0.05, 1.0, "log", tier=2), Tao("contrastive weight")] = 0.5
    """Weight of the loss that pulls queries towards their texts; 0 leaves the text branch out of training."""
    contrastive_temperature: Annotated[float, Gt(0), Tao("contrastive temperature")] = 0.07
    """Starting value of the learned temperature of that loss."""
    use_task_norm: Annotated[bool, Tao("use task norm")] = True
    """Layer-normalise the task token before it becomes a query."""
    num_feature_levels: Annotated[int, Ge(1), Le(4), Tao("num feature levels")] = 3
    """Maps of the pixel decoder that the query decoder visits in turn, the coarsest first."""


@dataclass
class TextEncoderSpec:
    """Text branch: used in training only, for the contrastive loss."""

    context_length: Annotated[int, Ge(4), Tao("context length")] = 77
    """Longest text in tokens; also the length of the task sentence."""
    vocab_size: Annotated[int, Ge(1), Tao("vocab size")] = 49408
    """Size of the token table: that of CLIP's byte-pair vocabulary."""
    width: Annotated[int, Ge(1), Tao("width")] = 256
    """Width of the text transformer, in heads of 64."""
    num_layers: Annotated[int, Ge(1), Tao("num layers")] = 6
    """Layers of the text transformer."""
    n_ctx: Annotated[int, Ge(0), Tao("context length")] = 16
    """Learned query texts that stand beside the texts written from the labels."""
    proj_num_layers: Annotated[int, Ge(0), Tao("proj num layers")] = 2
    """Layers of the projection from text to query space."""
    task_padding: Literal["clip", "tao"] = "clip"
    """What fills the task sentence up to `context_length`: 0 as published, or the end token as NVIDIA TAO does. The
    network reads these numbers, so that weights need the one they were trained with; `checkpoint convert` sets it."""


@dataclass
class TestSpec:
    """Post-processing: how scores and masks become segments."""

    __test__ = False  # the name is TAO's; pytest would collect it

    object_mask_threshold: Annotated[float, Ge(0), Le(1), Tao("object mask threshold")] = 0.4
    """Panoptic: a query needs a class score above this to become a segment."""
    overlap_threshold: Annotated[float, Ge(0), Le(1), Tao("overlap threshold")] = 0.5
    """Panoptic: a segment is dropped when less than this share of its mask is left after overlaps are settled."""
    test_topk_per_image: Annotated[int, Ge(1), Tao("top k per image")] = 100
    """Instance: candidates kept per image, best scores first."""
    mask_threshold: Annotated[float, Ge(0.05), Le(0.95)] = 0.5
    """Panoptic and instance: a pixel is inside a mask from this probability on."""
    semantic_on: Annotated[bool, Tao("semantic on")] = True
    """Semantic results, in TAO's spelling; `model.task_toggling` and `evaluate.task` decide here."""
    instance_on: Annotated[bool, Tao("instance on")] = False
    """Instance results, in TAO's spelling; `model.task_toggling` and `evaluate.task` decide here."""
    panoptic_on: Annotated[bool, Tao("panoptic on")] = False
    """Panoptic results, in TAO's spelling; `model.task_toggling` and `evaluate.task` decide here."""
    detection_on: Annotated[bool, Tao("detect on")] = False
    """Boxes only, in TAO's spelling; instance results always carry their boxes."""


@dataclass
class TaskTogglingSpec:
    """Tasks that the model is trained for and scored on."""

    semantic_on: bool = True
    """Train and score semantic segmentation: one class for each pixel."""
    instance_on: bool = True
    """Train and score instance segmentation: one mask for each thing."""
    panoptic_on: bool = True
    """Train and score panoptic segmentation: things and stuff in one map."""


@dataclass
class ModelSpec:
    """Everything that defines the network."""

    sem_seg_head: SemSegHeadSpec = field(default_factory=SemSegHeadSpec)
    """Pixel decoder and class head."""
    one_former: OneFormerHeadSpec = field(default_factory=OneFormerHeadSpec)
    """Query initialisation, decoder and losses."""
    text_encoder: TextEncoderSpec = field(default_factory=TextEncoderSpec)
    """Text branch of the contrastive loss."""
    backbone: BackboneSpec = field(default_factory=BackboneSpec)
    """The network that turns the image into four maps."""
    export: Annotated[bool, Tao("export")] = False
    """TAO builds another graph for export; here the network is exported as it is trained."""
    test: TestSpec = field(default_factory=TestSpec)
    """Thresholds of the post-processing."""
    task_toggling: TaskTogglingSpec = field(default_factory=TaskTogglingSpec)
    """Tasks that the model is trained for and scored on."""
