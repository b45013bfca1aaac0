"""Names of residual networks elsewhere -> torchvision's, which are ours (and timm's)."""

from __future__ import annotations

from oneformer.model.weights.rename import Pieces

RESNET: dict[str, Pieces] = {
    "Hugging Face ResNet": {
        "^resnet": "",
        "^embedder.embedder.convolution": "conv1",
        "^embedder.embedder.normalization": "bn1",
        "^encoder.stages.0.layers": "layer1",
        "^encoder.stages.1.layers": "layer2",
        "^encoder.stages.2.layers": "layer3",
        "^encoder.stages.3.layers": "layer4",
        "shortcut.convolution": "downsample.0",
        "shortcut.normalization": "downsample.1",
        "layer.0.convolution": "conv1",
        "layer.0.normalization": "bn1",
        "layer.1.convolution": "conv2",
        "layer.1.normalization": "bn2",
        "layer.2.convolution": "conv3",
        "layer.2.normalization": "bn3",
    },
    "detectron2 ResNet": {
        "^stem": "",
        "^res2": "layer1",
        "^res3": "layer2",
        "^res4": "layer3",
        "^res5": "layer4",
        "shortcut.norm": "downsample.1",
        "shortcut": "downsample.0",
        "conv1.norm": "bn1",
        "conv2.norm": "bn2",
        "conv3.norm": "bn3",
    },
}
