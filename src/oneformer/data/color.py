"""Pixels uint8 (3, H, W) and one generator -> the same, with SSD's changes of colour, or blurred.

All steps of a colour change are computed in float and rounded once; hue and saturation follow the HSV model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

# SSD's colour changes, oneformer-model.md 1.9.
BRIGHTNESS = 32.0
CONTRAST = (0.5, 1.5)
SATURATION = (0.5, 1.5)
HUE_FRAC = 18 / 180  # 18 steps of OpenCV's 180 hues, as a share of the whole circle
SEXTANTS = 6  # hue is an angle here in sixths of the circle: red 0, yellow 1, green 2 ...
MINIMUM_AT = (3.0, 5.0, 1.0)  # where red, green and blue are farthest from their largest: cyan, magenta, yellow
# Pixels at a time: the floats of this many stay in a processor's cache, which makes it twice as fast.
CHUNK = 65_536
GREY = 1e-6  # chroma below this has no hue; anything but 0 will do
MIN_SIGMA = 0.1  # tao-oneformer.md 3.4


@dataclass(frozen=True)
class Colors:
    """One draw of SSD's changes; None leaves out a step. Contrast comes before or after saturation and hue."""

    brightness: float | None
    contrast: float | None
    saturation: float | None
    hue: float | None  # in sextants
    contrast_first: bool

    @staticmethod
    def draw(prob: float, rng: np.random.Generator) -> Colors:
        """Each of the four with probability `prob`."""
        return Colors(
            brightness=rng.uniform(-BRIGHTNESS, BRIGHTNESS) if rng.random() < prob else None,
            contrast=rng.uniform(*CONTRAST) if rng.random() < prob else None,
            saturation=rng.uniform(*SATURATION) if rng.random() < prob else None,
            hue=SEXTANTS * rng.uniform(-HUE_FRAC, HUE_FRAC) if rng.random() < prob else None,
            contrast_first=bool(rng.random() < 0.5),
        )

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (3, H, W) -> the same shape, recoloured."""
        if self.brightness is self.contrast is self.saturation is self.hue is None:
            return pixels
        # Bytes change their order in half the time that floats take.
        pixels, out = pixels.contiguous(), torch.empty(pixels.shape, dtype=torch.uint8)
        rows = max(1, CHUNK // max(1, pixels.shape[2]))
        for top in range(0, pixels.shape[1], rows):
            part = pixels[:, top : top + rows].to(torch.float32, memory_format=torch.contiguous_format)
            out[:, top : top + rows] = self._changed(part).round_()
        return out

    def _changed(self, x: torch.Tensor) -> torch.Tensor:
        """float32 (3, h, w) in 0..255, which is overwritten -> the same."""
        if self.brightness is not None:
            x.add_(self.brightness).clamp_(0, 255)
        if self.contrast is not None and self.contrast_first:
            x.mul_(self.contrast).clamp_(0, 255)
        if self.hue is not None:
            x = turned(x, self.hue, 1.0 if self.saturation is None else self.saturation)
        elif self.saturation is not None:
            x = saturated(x, self.saturation)
        if self.contrast is not None and not self.contrast_first:
            x.mul_(self.contrast).clamp_(0, 255)
        return x


def saturated(x: torch.Tensor, factor: float) -> torch.Tensor:
    """float (3, h, w) with `factor` times the saturation, at most 1; hue and value stay."""
    value, chroma = _value_and_chroma(x)
    share = (value / chroma.clamp_min(GREY)).clamp_max_(factor)
    return torch.sub(value, (value - x).mul_(share), out=x)


def turned(x: torch.Tensor, hue: float, saturation: float) -> torch.Tensor:
    """float (3, h, w) with its hues moved by so many sextants and `saturation` times the saturation."""
    value, chroma = _value_and_chroma(x)
    r, g, b = x
    width = chroma.clamp_min(GREY)
    angle = torch.where(g == value, (b - r).div_(width).add_(2), (r - g).div_(width).add_(4))
    angle = torch.where(r == value, (g - b).div_(width), angle).add_(hue)
    chroma = torch.minimum(chroma.mul_(saturation), value)
    for channel, minimum_at in zip(x, MINIMUM_AT, strict=True):
        # A channel is least within one sextant of its minimum, greatest beyond two, and falls in a line between.
        away = (angle - minimum_at).abs_()
        away = torch.minimum(away, SEXTANTS - away)
        torch.sub(value, away.neg_().add_(2).clamp_(0, 1).mul_(chroma), out=channel)
    return x


def _value_and_chroma(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest channel of each pixel, and how far it lies above the smallest: two of (h, w)."""
    r, g, b = x
    value = torch.maximum(torch.maximum(r, g), b)
    return value, value - torch.minimum(torch.minimum(r, g), b)


def blurred(pixels: torch.Tensor, sigma: float) -> torch.Tensor:
    """uint8 (3, H, W) smoothed by a Gaussian of `sigma` pixels; what lies beyond the border is the border."""
    radius = max(1, round(3 * sigma))
    steps = torch.arange(-radius, radius + 1, dtype=torch.float32)
    weights = torch.exp(-0.5 * (steps / sigma) ** 2)
    weights /= weights.sum()
    x = pixels.to(torch.float32)
    for dim, border in ((1, (0, 0, radius, radius)), (2, (radius, radius, 0, 0))):
        wide = torch.nn.functional.pad(x[None], border, mode="replicate")[0]
        size = x.shape[dim]
        x = torch.zeros_like(x)
        for place, weight in enumerate(weights.tolist()):
            x.add_(wide.narrow(dim, place, size), alpha=weight)
    return x.round_().to(torch.uint8)
