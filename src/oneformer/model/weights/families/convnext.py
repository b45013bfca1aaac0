"""Names of ConvNeXt elsewhere -> those of the first release, which are ours."""

from __future__ import annotations

from oneformer.model.weights.rename import Pieces

CONVNEXT: dict[str, Pieces] = {
    "timm ConvNeXt": {
        "^stem": "downsample_layers.0",
        "stages.#.downsample": "downsample_layers.#",
        "stages.#.blocks.#": "stages.#.#",
        "conv_dw": "dwconv",
        "mlp.fc1": "pwconv1",
        "mlp.fc2": "pwconv2",
        "^head.norm": "norm",
        "^head.fc": "head",
    },
    "torchvision ConvNeXt": {
        "^features.0": "downsample_layers.0",
        "^features.1.#": "stages.0.#",
        "^features.2": "downsample_layers.1",
        "^features.3.#": "stages.1.#",
        "^features.4": "downsample_layers.2",
        "^features.5.#": "stages.2.#",
        "^features.6": "downsample_layers.3",
        "^features.7.#": "stages.3.#",
        "block.0": "dwconv",
        "block.2": "norm",
        "block.3": "pwconv1",
        "block.5": "pwconv2",
        "layer_scale": "gamma",
    },
}
