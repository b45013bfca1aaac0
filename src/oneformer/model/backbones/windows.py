"""Map size, window size and shift -> which token stands where when the map is cut into Swin's windows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
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
    """Cut a map of `height` x `width` tokens into windows, shifted up and left by `shift` tokens, wrapped around.

    The two axes are laid out apart and then joined. Nothing here depends on the values of height and width, so that a
    traced graph can leave them open; then windows always count as overhanging.
    """
    # Counted without negative numbers: in an exported graph these are rounded the other way.
    down, across = (height + window - 1) // window, (width + window - 1) // window
    rows, columns = (axis(n, window, shift, device) for n in (down, across))  # (down, N'), (across, N')
    y, x = rows[:, None, :, None], columns[None, :, None, :]
    inside = ((y < height) & (x < width)).long()  # (down, across, N', N')
    order = inside * (y * width + x) + (1 - inside) * (height * width)
    y, x = (places(n, m, window, shift, device) for n, m in ((height, down), (width, across)))  # (2, h), (2, w)
    window_of = y[0, :, None] * across + x[0]  # (h, w)
    place = window_of * window**2 + y[1, :, None] * window + x[1]
    apart = None
    if shift:
        y, x = (regions(n, window, shift, device) for n in (down, across))
        region = (y[:, None, :, None] * 3 + x[None, :, None, :]).flatten(2).flatten(0, 1)  # (windows, N)
        apart = (region[:, :, None] != region[:, None, :]) * APART
    open_sizes = isinstance(height, torch.SymInt) or isinstance(width, torch.SymInt)
    padded = open_sizes or down * window != height or across * window != width
    return Windows(order.flatten(), place.flatten(), apart, down * across, padded)


def axis(count: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Along one axis: which position stands at each place of each window, (count, N')."""
    at = torch.arange(count, device=device)[:, None] * window + torch.arange(window, device=device) + shift
    return at - (at >= count * window).long() * (count * window)  # wrapped around


def places(length: int, count: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Along one axis: the window of each position and its place there, (2, length)."""
    at = torch.arange(length, device=device) - shift
    at = at + (at < 0).long() * (count * window)  # wrapped around
    return torch.stack((at.div(window, rounding_mode="floor"), at % window))


def regions(count: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Along one axis of the shifted map, (count, N'): 0 for whole windows, 1 and 2 for the two parts of the last."""
    last = (torch.arange(count, device=device) == count - 1).long()  # (count,)
    wrapped = (torch.arange(window, device=device) >= window - shift).long()  # (N',)
    return last[:, None] * (1 + wrapped)


def relative_index(window: int) -> Tensor:
    """(N, N) row of the bias table for each pair of tokens of a window."""
    at = torch.arange(window, device="cpu")
    y, x = at.repeat_interleave(window), at.repeat(window)
    return (y[:, None] - y + window - 1) * (2 * window - 1) + (x[:, None] - x + window - 1)
