"""Backbones of ours <-> those of Hugging Face transformers, one table for each family, in the names of saved files.

`BACKBONE` stands before their names. Transformers 4 and 5 save the same names; how transformers 5 calls the parts of a
Swin transformer in memory is told by `hf.RENAMED`.
"""

from __future__ import annotations

from oneformer.model.weights.table import Names

BACKBONE = "model.pixel_level_module.encoder."
BLOCK = BACKBONE + "encoder.layers.#.blocks.#."  # Swin
LEVEL = BACKBONE + "encoder.levels.#.layers.#."  # DiNAT
STAGE = BACKBONE + "encoder.stages."  # ConvNeXt and ResNet

# Every family but the residual network normalises its four maps.
NORMS: Names = {f"backbone.norm{i}": BACKBONE + f"hidden_states_norms.stage{i + 1}" for i in range(4)}

SWIN: Names = {
    "backbone.patch_embed.proj": BACKBONE + "embeddings.patch_embeddings.projection",
    "backbone.patch_embed.norm": BACKBONE + "embeddings.norm",
    "backbone.layers.#.blocks.#.norm1": BLOCK + "layernorm_before",
    "backbone.layers.#.blocks.#.attn.qkv": (
        BLOCK + "attention.self.query",
        BLOCK + "attention.self.key",
        BLOCK + "attention.self.value",
    ),
    "backbone.layers.#.blocks.#.attn.proj": BLOCK + "attention.output.dense",
    "backbone.layers.#.blocks.#.norm2": BLOCK + "layernorm_after",
    "backbone.layers.#.blocks.#.mlp.fc1": BLOCK + "intermediate.dense",
    "backbone.layers.#.blocks.#.mlp.fc2": BLOCK + "output.dense",
    "backbone.layers.#.downsample.norm": BACKBONE + "encoder.layers.#.downsample.norm",
    "backbone.layers.#.downsample.reduction": BACKBONE + "encoder.layers.#.downsample.reduction",
}
SWIN_TENSORS: Names = {
    "backbone.layers.#.blocks.#.attn.relative_position_bias_table": BLOCK
    + "attention.self.relative_position_bias_table",
}

DINAT: Names = {  # the norm of its patches has Swin's row
    "backbone.patch_embed.proj.#": BACKBONE + "embeddings.patch_embeddings.projection.#",
    "backbone.levels.#.blocks.#.norm1": LEVEL + "layernorm_before",
    "backbone.levels.#.blocks.#.attn.qkv": (
        LEVEL + "attention.self.query",
        LEVEL + "attention.self.key",
        LEVEL + "attention.self.value",
    ),
    "backbone.levels.#.blocks.#.attn.proj": LEVEL + "attention.output.dense",
    "backbone.levels.#.blocks.#.norm2": LEVEL + "layernorm_after",
    "backbone.levels.#.blocks.#.mlp.fc1": LEVEL + "intermediate.dense",
    "backbone.levels.#.blocks.#.mlp.fc2": LEVEL + "output.dense",
    "backbone.levels.#.downsample.norm": BACKBONE + "encoder.levels.#.downsample.norm",
    "backbone.levels.#.downsample.reduction": BACKBONE + "encoder.levels.#.downsample.reduction",
}
DINAT_TENSORS: Names = {"backbone.levels.#.blocks.#.attn.rpb": LEVEL + "attention.self.rpb"}

CONVNEXT: Names = {
    "backbone.downsample_layers.0.0": BACKBONE + "embeddings.patch_embeddings",
    "backbone.downsample_layers.0.1": BACKBONE + "embeddings.layernorm",
    "backbone.downsample_layers.#.#": STAGE + "#.downsampling_layer.#",
    "backbone.stages.#.#.dwconv": STAGE + "#.layers.#.dwconv",
    "backbone.stages.#.#.norm": STAGE + "#.layers.#.layernorm",
    "backbone.stages.#.#.pwconv1": STAGE + "#.layers.#.pwconv1",
    "backbone.stages.#.#.pwconv2": STAGE + "#.layers.#.pwconv2",
}
CONVNEXT_TENSORS: Names = {"backbone.stages.#.#.gamma": STAGE + "#.layers.#.layer_scale_parameter"}

RESNET: Names = {
    "backbone.conv1": BACKBONE + "embedder.embedder.convolution",
    "backbone.bn1": BACKBONE + "embedder.embedder.normalization",
    **{
        f"backbone.layer{i + 1}.#.{ours}": STAGE + f"{i}.layers.#.{theirs}"
        for i in range(4)
        for ours, theirs in {
            "downsample.0": "shortcut.convolution",
            "downsample.1": "shortcut.normalization",
            "conv1": "layer.0.convolution",
            "bn1": "layer.0.normalization",
            "conv2": "layer.1.convolution",
            "bn2": "layer.1.normalization",
            "conv3": "layer.2.convolution",
            "bn3": "layer.2.normalization",
        }.items()
    },
}
