"""Tensors of a whole network under our names -> the values of the spec that their shapes tell, by dotted key.

Attention heads, thresholds and rates leave no trace in shapes; the spec of a file, or the user, has to tell them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from oneformer.model.weights.describe import count
from oneformer.spec.model import ModelSpec
from oneformer.spec.tree import get

State = Mapping[str, Tensor]
Sizes = dict[str, Any]
STAGES = range(4)
HEADS = "model.one_former.nheads"
POINTS = 4
ROUNDED = "mlp_ratio"  # a width is this times the channels, rounded down
TOLD_BY_SHAPES = ("D2SwinTransformer", "D2DiNAT", "convnext", "resnet50")


def sizes_of(state: State, *, heads: int) -> Sizes:
    """Such as {"model.one_former.num_object_queries": 150}; a part that is missing or of an unknown kind tells nothing.

    Args:
        state: tensors by name, without a prefix.
        heads: attention heads of the pixel decoder, by which its points are counted.
    """
    found: Sizes = {}
    for part in (pixel_decoder, decoder, text, swin, dinat, convnext, resnet):
        found |= {f"model.{key}": value for key, value in part(state).items()}
    weights = state.get("pixel_decoder.layers.0.attn.attention_weights.weight")
    levels = state.get("pixel_decoder.level_embed")
    if weights is not None and levels is not None and not weights.shape[0] % (heads * levels.shape[0]):
        found["model.sem_seg_head.num_points"] = weights.shape[0] // (heads * levels.shape[0])
    return found


def heads_of(state: State) -> Sizes:
    """The attention heads of a network whose deformable attention samples the published 4 points on each map.

    SHI-Labs, NVIDIA TAO, Mask2Former and Hugging Face have no setting for the points, so that shapes tell the heads.
    """
    weights, levels = (
        state.get(f"pixel_decoder.{n}") for n in ("layers.0.attn.attention_weights.weight", "level_embed")
    )
    if weights is None or levels is None or weights.shape[0] % (POINTS * levels.shape[0]):
        return {}
    return {HEADS: weights.shape[0] // (POINTS * levels.shape[0])}


def differences(model: ModelSpec, state: State) -> dict[str, tuple[Any, Any]]:
    """Key -> (what the spec says, what the tensors say), for each key on which they differ.

    A network is built as its spec says before weights are put into it, so that a false count would cost any time and
    memory; what the spec counts has to be there.
    """
    told = sizes_of(state, heads=model.one_former.nheads)
    if model.backbone.name in TOLD_BY_SHAPES:
        told.setdefault("model.backbone.name", "no such backbone")
    elif model.backbone.name == "vit":
        told["model.backbone.vit.depth"] = count(state, r"^backbone\.blocks\.(\d+)\.")
    told.setdefault("model.one_former.dec_layers", "no decoder")
    if model.sem_seg_head.pixel_decoder_name != "BasePixelDecoder":
        told.setdefault("model.sem_seg_head.transformer_enc_layers", "no attention")
    said = {key: get(model, key.removeprefix("model.")) for key in told if not key.endswith(ROUNDED)}
    return {key: (said[key], told[key]) for key in said if said[key] != told[key]}


def rows(state: State, name: str) -> int:
    """Length of the first axis; 0 when there is no such tensor."""
    tensor = state.get(name)
    return tensor.shape[0] if tensor is not None and tensor.ndim else 0


def pixel_decoder(state: State) -> Sizes:
    """Widths and layers of the pixel decoder, and whether it tells masks where they lie."""
    at = "sem_seg_head."
    found: Sizes = {
        at + "mask_dim": rows(state, "pixel_decoder.mask_features.weight"),
        at + "mask_position": "pixel_decoder.mask_position.scale" in state,
    }
    if "pixel_decoder.level_embed" in state:  # deformable attention
        found[at + "convs_dim"] = rows(state, "pixel_decoder.input_proj.0.0.weight")
        found[at + "dim_feedforward"] = rows(state, "pixel_decoder.layers.0.ffn.linear1.weight")
        found[at + "transformer_enc_layers"] = count(state, r"^pixel_decoder\.layers\.(\d+)\.")
    elif layers := count(state, r"^pixel_decoder\.encoder\.layers\.(\d+)\."):  # attention over the coarsest map
        found[at + "transformer_enc_layers"] = layers
    return found if "pixel_decoder.mask_features.weight" in state else {}


def decoder(state: State) -> Sizes:
    """Queries, classes, widths and layers of the query decoder."""
    if "decoder.query_embed.weight" not in state:
        return {}
    at = "one_former."
    found = {
        at + "num_object_queries": rows(state, "decoder.query_embed.weight"),
        at + "hidden_dim": rows(state, "decoder.norm.weight"),
        at + "dim_feedforward": rows(state, "decoder.layers.0.ffn.linear1.weight"),
        at + "dec_layers": count(state, r"^decoder\.layers\.(\d+)\.") + 1,
        at + "num_feature_levels": rows(state, "decoder.level_embed.weight"),
        "sem_seg_head.num_classes": rows(state, "decoder.class_embed.weight") - 1,
    }
    if "decoder.initialiser.norm.weight" in state:
        found[at + "class_dec_layers"] = count(state, r"^decoder\.initialiser\.layers\.(\d+)\.")
        found[at + "enc_layers"] = count(state, r"^decoder\.initialiser\.encoder\.(\d+)\.")
    return found


def text(state: State) -> Sizes:
    """Lengths and widths of the text branch and of the task sentence."""
    task = state.get("task.mlp.layers.0.weight")
    found = {"text_encoder.context_length": task.shape[1]} if task is not None and task.ndim == 2 else {}
    if "text.token_embedding.weight" not in state:
        return found
    return found | {
        "text_encoder.vocab_size": rows(state, "text.token_embedding.weight"),
        "text_encoder.width": rows(state, "text.norm.weight"),
        "text_encoder.num_layers": count(state, r"^text\.layers\.(\d+)\."),
        "text_encoder.n_ctx": rows(state, "text.prompt_ctx.weight"),
        "text_encoder.proj_num_layers": count(state, r"^text\.projector\.layers\.(\d+)\."),
    }


def depths(state: State, stage: str) -> list[int]:
    """Blocks of each of the four stages; `stage` is a pattern with `{}` for its number."""
    return [count(state, rf"^backbone\.{stage.format(i)}\.(\d+)\.") for i in STAGES]


def ratio(state: State, hidden: str, dim: int) -> float:
    """Hidden width of a feed-forward part as a multiple of the channels; 0 when it is not there."""
    return rows(state, hidden) / dim if dim else 0


def swin(state: State) -> Sizes:
    """Sizes of a Swin transformer."""
    first = "backbone.layers.0.blocks.0."
    patches, table = (
        state.get("backbone.patch_embed.proj.weight"),
        state.get(first + "attn.relative_position_bias_table"),
    )
    if patches is None or table is None or patches.ndim != 4 or table.ndim != 2:
        return {}
    tables = [state.get(f"backbone.layers.{i}.blocks.0.attn.relative_position_bias_table") for i in STAGES]
    at = "backbone.swin."
    return {
        "backbone.name": "D2SwinTransformer",
        at + "embed_dim": patches.shape[0],
        at + "patch_size": patches.shape[-1],
        at + "depths": depths(state, r"layers\.{}\.blocks"),
        at + "num_heads": [t.shape[-1] if t is not None and t.ndim else 0 for t in tables],
        at + "window_size": (round(table.shape[0] ** 0.5) + 1) // 2,
        at + "mlp_ratio": ratio(state, first + "mlp.fc1.weight", patches.shape[0]),
        at + "qkv_bias": first + "attn.qkv.bias" in state,
        at + "ape": "backbone.absolute_pos_embed" in state,
        at + "patch_norm": "backbone.patch_embed.norm.weight" in state,
    }


def dinat(state: State) -> Sizes:
    """Sizes of a dilated neighbourhood attention transformer; its dilations leave no trace."""
    first = "backbone.levels.0.blocks.0."
    dim = rows(state, first + "norm1.weight")
    if not dim:
        return {}
    at = "backbone.dinat."
    found: Sizes = {
        "backbone.name": "D2DiNAT",
        at + "embed_dim": dim,
        at + "depths": depths(state, r"levels\.{}\.blocks"),
        at + "mlp_ratio": ratio(state, first + "mlp.fc1.weight", dim),
    }
    tables = [state.get(f"backbone.levels.{i}.blocks.0.attn.rpb") for i in STAGES]
    if all(t is not None and t.ndim == 3 for t in tables):
        found[at + "num_heads"] = [t.shape[0] for t in tables if t is not None]
        found[at + "kernel_size"] = (tables[0].shape[-1] + 1) // 2 if tables[0] is not None else 0
    return found


def convnext(state: State) -> Sizes:
    """Sizes of a ConvNeXt."""
    dim = rows(state, "backbone.downsample_layers.0.0.weight")
    at = "backbone.convnext."
    return (
        {
            "backbone.name": "convnext",
            at + "embed_dim": dim,
            at + "depths": depths(state, r"stages\.{}"),
        }
        if dim
        else {}
    )


def resnet(state: State) -> Sizes:
    """Layers of a residual network with bottlenecks."""
    if "backbone.layer1.0.conv3.weight" not in state:
        return {}
    blocks = sum(count(state, rf"^backbone\.layer{i + 1}\.(\d+)\.") for i in STAGES)
    learning = any(name.startswith("backbone.") and name.endswith("num_batches_tracked") for name in state)
    return {
        "backbone.name": "resnet50",
        "backbone.resnet.depth": 3 * blocks + 2,
        "backbone.resnet.norm": "batch" if learning else "frozen",
    }
