"""Weights made for images prepared in one way -> weights for images prepared as the spec says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pixels:
    """How images of the range 0-255 are prepared: (x - mean) / std, channel by channel."""

    mean: tuple[float, float, float]
    """Of red, green and blue."""
    std: tuple[float, float, float]
    """Of red, green and blue."""
    bgr: bool = False
    """Whether the first convolution takes blue first."""

    def __str__(self) -> str:
        mean, std = (", ".join(f"{x:g}" for x in values) for values in (self.mean, self.std))
        return f"(x - ({mean})) / ({std})" + (", blue first" if self.bgr else "")


IMAGENET = Pixels((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
"""Of torchvision, timm, Hugging Face and the releases of Swin, ConvNeXt, DiNAT and DINOv2; default of the spec."""
CAFFE = Pixels((123.68, 116.779, 103.939), (1.0, 1.0, 1.0), bgr=True)
"""Of the first ResNet release and of Keras's ResNet (arXiv:1512.03385; keras.applications, mode "caffe")."""
LITE = Pixels((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
"""Of EfficientNet-lite (TensorFlow's release, MEAN_RGB 127 and STDDEV_RGB 128)."""


def chosen(mean: Sequence[float], std: Sequence[float]) -> Pixels:
    """The spec's `dataset.pixel_mean` and `dataset.pixel_std`."""
    return Pixels((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def conditioner(mean: Tensor, std: Tensor) -> Pixels:
    """What C-RADIO's files say of the images, which they count from 0 to 1."""
    (r, g, b), (x, y, z) = (255 * mean.flatten().double()).tolist(), (255 * std.flatten().double()).tolist()
    return Pixels((r, g, b), (x, y, z))


# First matrix -> what holds a constant behind it, and the sign with which it is added.
FIRST: dict[str, tuple[str, int]] = {
    "conv1.weight": ("bn1.running_mean", -1),
    "_conv_stem.weight": ("_bn0.running_mean", -1),
    "patch_generator.embedder.weight": ("patch_generator.pos_embed", 1),
}


def refit(state: Mapping[str, Tensor], first: str, *, made_for: Pixels, given: Pixels) -> dict[str, Tensor]:
    """Rewrite the first matrix so that it gives for images prepared as `given` what it gave for `made_for`.

    The scale goes into the matrix, the shift into the constant behind it. Exact wherever the kernel lies within the
    image; under the zero padding of a border, zero now stands for the mean of `given`.

    Args:
        state: parameters by name.
        first: a name of `FIRST`; a kernel (C, 3, k, k), or a matrix (C, 3*k*k) with the colour first.
        made_for: what the weights were trained with.
        given: what the network will be fed.
    """
    matrix, (constant, sign) = state[first], FIRST[first]
    kernel = matrix.double().reshape(len(matrix), 3, -1)  # (C, 3, k*k)
    if made_for.bgr:
        kernel = kernel.flip(1)
    mean, std, old_mean, old_std = (
        torch.tensor(values, dtype=torch.float64) for values in (given.mean, given.std, made_for.mean, made_for.std)
    )
    shift = torch.einsum("oci,c->o", kernel, (mean - old_mean) / old_std)
    return {
        **state,
        first: (kernel * (std / old_std)[:, None]).reshape(matrix.shape).to(matrix.dtype),
        constant: (state[constant].double() + sign * shift).to(matrix.dtype),
    }
