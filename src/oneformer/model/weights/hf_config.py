"""The `model` section of a spec <-> the config.json of Hugging Face transformers' OneFormer, by one table of keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from oneformer.errors import CheckpointError
from oneformer.spec.backbone import SECTIONS
from oneformer.spec.model import ModelSpec
from oneformer.spec.tree import get

STAGES = ["stage1", "stage2", "stage3", "stage4"]

# Ours below `model.` -> theirs.
KEYS: dict[str, str] = {
    "sem_seg_head.ignore_value": "ignore_value",
    "sem_seg_head.common_stride": "common_stride",
    "sem_seg_head.transformer_enc_layers": "encoder_layers",
    "sem_seg_head.convs_dim": "conv_dim",
    "sem_seg_head.mask_dim": "mask_dim",
    "sem_seg_head.dim_feedforward": "encoder_feedforward_dim",
    "sem_seg_head.norm": "norm",
    "one_former.hidden_dim": "hidden_dim",
    "one_former.nheads": "num_attention_heads",
    "one_former.dim_feedforward": "dim_feedforward",
    "one_former.dec_layers": "decoder_layers",
    "one_former.class_dec_layers": "query_dec_layers",
    "one_former.pre_norm": "pre_norm",
    "one_former.enforce_input_proj": "enforce_input_proj",
    "one_former.num_object_queries": "num_queries",
    "one_former.train_num_points": "train_num_points",
    "one_former.oversample_ratio": "oversample_ratio",
    "one_former.importance_sample_ratio": "importance_sample_ratio",
    "one_former.mask_weight": "mask_weight",
    "one_former.dice_weight": "dice_weight",
    "one_former.class_weight": "class_weight",
    "one_former.no_object_weight": "no_object_weight",
    "one_former.deep_supervision": "use_auxiliary_loss",
    "one_former.dropout": "dropout",
    "one_former.contrastive_weight": "contrastive_weight",
    "one_former.contrastive_temperature": "contrastive_temperature",
    "one_former.use_task_norm": "use_task_norm",
    "text_encoder.context_length": "text_encoder_context_length",
    "text_encoder.vocab_size": "text_encoder_vocab_size",
    "text_encoder.width": "text_encoder_width",
    "text_encoder.num_layers": "text_encoder_num_layers",
    "text_encoder.n_ctx": "text_encoder_n_ctx",
    "text_encoder.proj_num_layers": "text_encoder_proj_layers",
}
# Ours below `model.backbone.<section>.` -> theirs in `backbone_config`, by their `model_type`, which is our section.
BACKBONE_KEYS: dict[str, dict[str, str]] = {
    "swin": {
        "embed_dim": "embed_dim",
        "depths": "depths",
        "num_heads": "num_heads",
        "window_size": "window_size",
        "mlp_ratio": "mlp_ratio",
        "qkv_bias": "qkv_bias",
        "drop_rate": "hidden_dropout_prob",
        "attn_drop_rate": "attention_probs_dropout_prob",
        "drop_path_rate": "drop_path_rate",
        "patch_size": "patch_size",
        "pretrain_img_size": "image_size",
    },
    "dinat": {
        "embed_dim": "embed_dim",
        "depths": "depths",
        "num_heads": "num_heads",
        "kernel_size": "kernel_size",
        "dilations": "dilations",
        "mlp_ratio": "mlp_ratio",
        "drop_path_rate": "drop_path_rate",
    },
    "convnext": {"depths": "depths", "drop_path_rate": "drop_path_rate"},
    "resnet": {"stride_in_1x1": "downsample_in_bottleneck"},
}
# Values that shape their network without a setting of ours -> the one value that ours computes.
FIXED: dict[str, Any] = {"layer_norm_eps": 1e-5, "strides": [4, 8, 16, 32]}
FIXED_BACKBONE: dict[str, dict[str, Any]] = {
    "swin": {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "num_channels": 3, "use_absolute_embeddings": False},
    "dinat": {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "num_channels": 3, "layer_scale_init_value": 0.0},
    "convnext": {"hidden_act": "gelu", "num_channels": 3, "patch_size": 4},
    "resnet": {
        "hidden_act": "relu",
        "num_channels": 3,
        "layer_type": "bottleneck",
        "embedding_size": 64,
        "downsample_in_first_stage": False,
    },
}
RESNET_DEPTHS = {50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}
RESNET_WIDTHS = [256, 512, 1024, 2048]
# Ours below `model.` -> the one value that their network can compute.
OURS_ALONE: dict[str, Any] = {
    "sem_seg_head.pixel_decoder_name": "MSDeformAttnPixelDecoder",
    "sem_seg_head.norm": "GN",
    "sem_seg_head.num_points": 4,
    "sem_seg_head.mask_position": False,
    "sem_seg_head.deformable_transformer_encoder_in_features": ["res3", "res4", "res5"],
    "one_former.position_turns": 1.0,
    "one_former.enc_layers": 0,
    "one_former.num_feature_levels": 3,
    "one_former.enforce_input_proj": False,
}
SWIN_ALONE: dict[str, Any] = {"ape": False, "patch_norm": True, "qk_scale": None}


def spec_keys(config: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """What a config.json says, as dotted keys of our spec; the values are as they stand there, unchecked.

    Raises:
        CheckpointError: it is of another model, or of a OneFormer that our network cannot compute.
    """
    kind = config.get("model_type")
    if kind != "oneformer":
        raise CheckpointError(
            f"this is a {kind} model, not a OneFormer" if kind else "it does not say which model it is",
            where=where,
            hint="for its backbone alone set train.pretrained_backbone",
        )
    backbone = config.get("backbone_config")
    if not isinstance(backbone, Mapping) or backbone.get("model_type") not in BACKBONE_KEYS:
        named = backbone.get("model_type") if isinstance(backbone, Mapping) else config.get("backbone") or "none"
        raise CheckpointError(
            f"its backbone is {named!r}, which is not among those read here",
            where=where,
            hint=f"these are: {', '.join(BACKBONE_KEYS)}",
        )
    section = str(backbone["model_type"])
    check_fixed(config, FIXED, where=where)
    check_fixed(backbone, FIXED_BACKBONE[section], where=f"{where}, backbone_config")
    found = {f"model.{ours}": config[theirs] for ours, theirs in KEYS.items() if theirs in config}
    if config.get("task_seq_len", 77) != config.get("text_encoder_context_length", 77):
        raise CheckpointError("task_seq_len and text_encoder_context_length differ", where=where)
    found["dataset.task_seq_len"] = found["dataset.max_seq_len"] = config.get("task_seq_len", 77)
    at = f"model.backbone.{section}."
    found["model.backbone.name"] = next(name for name, own in SECTIONS.items() if own == section)
    found |= {at + ours: backbone[theirs] for ours, theirs in BACKBONE_KEYS[section].items() if theirs in backbone}
    return found | {at + key: value for key, value in special(section, backbone, where=where).items()}


def special(section: str, backbone: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """What the two sides count in different ways."""
    widths, depths = backbone.get("hidden_sizes"), backbone.get("depths")
    if section == "convnext":
        first = widths[0] if isinstance(widths, list) and widths else 0
        if widths != [first * 2**i for i in range(4)]:
            raise CheckpointError(f"hidden_sizes {widths} do not double from stage to stage", where=where)
        return {"embed_dim": first, "layer_scale": backbone.get("layer_scale_init_value") or None}
    if section == "resnet":
        layers = next((n for n, own in RESNET_DEPTHS.items() if own == depths), 0)
        if not layers or widths != RESNET_WIDTHS:
            raise CheckpointError(f"there is no ResNet of depths {depths} and widths {widths} here", where=where)
        return {"depth": layers}
    return {}


def check_fixed(config: Mapping[str, Any], fixed: Mapping[str, Any], *, where: str) -> None:
    """Raise CheckpointError for a value that our network does not compute."""
    for key, value in fixed.items():
        if config.get(key, value) != value:
            raise CheckpointError(f"{key} is {config[key]!r}, the network here computes {value!r} only", where=where)


def unable(model: ModelSpec) -> list[str]:
    """What their network cannot compute, as `key is value`."""
    section = SECTIONS.get(model.backbone.name, "")
    wanted = {**OURS_ALONE, **({f"backbone.swin.{k}": v for k, v in SWIN_ALONE.items()} if section == "swin" else {})}
    found = [f"model.{k} is {get(model, k)!r}" for k, v in wanted.items() if get(model, k) != v]
    if section not in BACKBONE_KEYS:
        found.append(f"model.backbone.name is {model.backbone.name!r}")
    elif sorted(get(model, f"backbone.{section}.out_features")) != ["res2", "res3", "res4", "res5"]:
        found.append(f"model.backbone.{section}.out_features are not all four maps")
    if model.sem_seg_head.convs_dim != model.one_former.hidden_dim:
        found.append("model.sem_seg_head.convs_dim and model.one_former.hidden_dim differ")
    return found


def config_of(model: ModelSpec, *, names: tuple[str, ...], dtype: str) -> dict[str, Any]:
    """The config.json of a model that has nothing they are `unable` to compute.

    Args:
        model: sizes.
        names: the classes in order.
        dtype: number type of the weights, such as `float32`.
    """
    section = SECTIONS[model.backbone.name]
    backbone: dict[str, Any] = {"model_type": section, **FIXED_BACKBONE[section]}
    backbone |= {theirs: get(model, f"backbone.{section}.{own}") for own, theirs in BACKBONE_KEYS[section].items()}
    backbone |= SPECIAL[section](model) if section in SPECIAL else {}
    return {
        "architectures": ["OneFormerForUniversalSegmentation"],
        "model_type": "oneformer",
        "torch_dtype": dtype,
        "backbone_config": {**backbone, "out_features": STAGES},
        **{theirs: get(model, own) for own, theirs in KEYS.items()},
        **FIXED,
        "task_seq_len": model.text_encoder.context_length,
        "is_training": False,
        "output_auxiliary_logits": True,
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def convnext_config(model: ModelSpec) -> dict[str, Any]:
    """Widths of all stages and the layer scale."""
    spec = model.backbone.convnext
    widths = [spec.embed_dim * 2**i for i in range(4)]
    return {"hidden_sizes": widths, "layer_scale_init_value": spec.layer_scale or 0.0, "num_stages": 4}


def dinat_config(model: ModelSpec) -> dict[str, Any]:
    """Dilations in full."""
    spec = model.backbone.dinat
    return {"dilations": spec.dilations or [[1] * depth for depth in spec.depths]}


def resnet_config(model: ModelSpec) -> dict[str, Any]:
    """Depths and widths of all stages."""
    return {"depths": RESNET_DEPTHS[model.backbone.resnet.depth], "hidden_sizes": RESNET_WIDTHS}


SPECIAL: dict[str, Callable[[ModelSpec], dict[str, Any]]] = {
    "convnext": convnext_config,
    "dinat": dinat_config,
    "resnet": resnet_config,
}
