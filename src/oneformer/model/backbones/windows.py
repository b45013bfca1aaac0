"""Map size, window size and shift -> which token stands where when the map is cut into Swin's windows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

APART = -100.0  # added to the attention logits between regions that are no neighbours (Swin's released code)


@dataclass(frozen=True)
class Windows:
    """The layout of one map, used by every block of a stage.

    Attributes:
        order: (windows*N,) the token at each place of each window; h*w stands for the zero token.
        place: (h*w,) the place of each token in that order.
        apart: (windows, N, N) 0 or -100, or None without shift.
        count: number of windows.
        padded: whether windows overhang the map.
    """

    order: Tensor
    place: Tensor
    apart: Tensor | None
    count: int
    padded: bool


def windows(height: int, width: int, window: int, *, shift: int, device: torch.device) -> Windows:
    """Cut a map of `height` x `width` tokens into windows, shifted up and left by `shift` tokens, wrapped around."""
    down, right = -height % window, -width % window
    full = (height + down, width + right)
    tokens = torch.arange(height * width, device=device).view(height, width)
    tokens = F.pad(tokens, (0, right, 0, down), value=height * width)
    order = cut(tokens.roll((-shift, -shift), (0, 1)), window)
    places = torch.arange(order.numel(), device=device)
    places = places.view(full[0] // window, full[1] // window, window, window).transpose(1, 2).reshape(full)
    place = places.roll((shift, shift), (0, 1))[:height, :width].flatten()
    apart = None
    if shift:
        region = cut(
            regions(full[0], window, shift, device)[:, None] * 3 + regions(full[1], window, shift, device), window
        )
        apart = (region[:, :, None] != region[:, None, :]) * APART
    return Windows(order.flatten(), place, apart, order.shape[0], bool(down or right))


def cut(x: Tensor, window: int) -> Tensor:
    """(h, w) -> (windows, N)."""
    height, width = x.shape
    return x.view(height // window, window, width // window, window).transpose(1, 2).reshape(-1, window * window)


def regions(length: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Along one axis of the shifted map: 0 for whole windows, 1 and 2 for the two parts of the last one."""
    at = torch.arange(length, device=device)
    return (at >= length - window).long() + (at >= length - shift).long()


def relative_index(window: int) -> Tensor:
    """(N, N) row of the bias table for each pair of tokens of a window."""
    at = torch.arange(window, device="cpu")
    y, x = at.repeat_interleave(window), at.repeat(window)
    return (y[:, None] - y + window - 1) * (2 * window - 1) + (x[:, None] - x + window - 1)
