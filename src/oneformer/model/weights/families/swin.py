"""Names of Swin transformers elsewhere -> those of the first release, which are ours.

Every library merges patches in the same channel order (top left, bottom left, top right, bottom right), so that only
names differ.
"""

from __future__ import annotations

from oneformer.model.weights.rename import Pieces

SWIN: dict[str, Pieces] = {
    "timm Swin": {  # since timm 0.9 the halving opens a stage instead of closing the one before; older names are ours
        "layers.1.downsample": "layers.0.downsample",
        "layers.2.downsample": "layers.1.downsample",
        "layers.3.downsample": "layers.2.downsample",
    },
    "torchvision Swin": {
        "^features.0.0": "patch_embed.proj",
        "^features.0.2": "patch_embed.norm",
        "^features.1.#": "layers.0.blocks.#",
        "^features.2": "layers.0.downsample",
        "^features.3.#": "layers.1.blocks.#",
        "^features.4": "layers.1.downsample",
        "^features.5.#": "layers.2.blocks.#",
        "^features.6": "layers.2.downsample",
        "^features.7.#": "layers.3.blocks.#",
        "mlp.0": "mlp.fc1",
        "mlp.3": "mlp.fc2",
    },
}
