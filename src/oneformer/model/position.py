"""Height and width of a map, or points -> sine position encoding."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TEMPERATURE = 10_000.0  # wavelengths run from one image side to 10 000 sides (DETR, arXiv:2005.12872, appendix A.4)
SLOWEST_TURNS = 0.2  # with fast waves: a fifth of a turn across the image, enough to tell its two ends apart


def sine_axis(length: int, channels: int, *, device: torch.device, turns: float = 1.0) -> Tensor:
    """Encoding of the positions along one axis, (length, channels) float32, sine and cosine interleaved.

    Args:
        length: cells along the axis.
        channels: even.
        device: where the result lies.
        turns: full turns of the fastest wave along the axis. 1 is the published encoding, whose positions count from 1
            and are divided by the last one. Above 1 positions are the centres of the cells: the published ones shift a
            coarse map by half a cell against a fine one, which fast waves would turn into a different place.
    """
    at = torch.arange(length, dtype=torch.float32, device=device)
    # 1e-6: the published normalisation, kept for equal weights
    at = (at + 1) / (length + 1e-6) if turns == 1 else (at + 0.5) / length
    return encode(at, channels, turns=turns)


def encode(at: Tensor, channels: int, *, turns: float) -> Tensor:
    """Places along an axis (N,), 0 to 1, -> (N, channels)."""
    pair = torch.arange(channels, device=at.device).div(2, rounding_mode="floor").float()
    slowest = TEMPERATURE if turns == 1 else turns / SLOWEST_TURNS
    angle = at[:, None] * (2 * math.pi * turns) / slowest ** (2 * pair / channels)  # (N, channels)
    return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)


def sine_position(height: int, width: int, channels: int, *, device: torch.device, turns: float = 1.0) -> Tensor:
    """Encoding of a map as tokens, (h*w, channels) float32: the first half of the channels is y, the second x.

    Always float32: in bfloat16 neighbouring cells of a large map would get the same encoding.
    """
    assert channels % 4 == 0, f"two axes with sine and cosine need a multiple of 4 channels, got {channels}"
    y = sine_axis(height, channels // 2, device=device, turns=turns)[:, None, :].expand(height, width, -1)
    x = sine_axis(width, channels // 2, device=device, turns=turns)[None, :, :].expand(height, width, -1)
    return torch.cat((y, x), dim=2).flatten(0, 1)  # (h*w, channels)


def spread_points(count: int, channels: int, *, turns: float) -> Tensor:
    """Encodings of `count` points spread evenly over the image, (count, channels).

    The points follow the two-dimensional golden-ratio sequence, even for any count (Roberts, "The unreasonable
    effectiveness of quasirandom sequences", 2018).
    """
    golden = 1.324717957244746  # the real root of x^3 = x + 1
    index = torch.arange(count, dtype=torch.float64)
    y, x = ((0.5 + index / golden ** (axis + 1)) % 1.0 for axis in (0, 1))
    half = channels // 2
    return torch.cat((encode(y.float(), half, turns=turns), encode(x.float(), half, turns=turns)), dim=1)
