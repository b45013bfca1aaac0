"""Position tables made for one size -> the same tables for another size, and shapes that hold the same numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Reshaped = tuple[str, tuple[int, ...], tuple[int, ...]]
"""Name, shape in the file, shape in the network."""


def fitted(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[Reshaped]]:
    """Tensors by our names, those that can be brought to the network's shape in that shape; and what was done so."""
    out, changed = dict(state), []
    for name, tensor in state.items():
        if name in own and tensor.shape != own[name].shape:
            new = resized(name, tensor, own[name].shape)
            if new is not None:
                out[name] = new
                changed.append((name, tuple(tensor.shape), tuple(new.shape)))
    return out, changed


def resized(name: str, tensor: Tensor, shape: torch.Size) -> Tensor | None:
    """A tensor in another shape, None where there is no way to make it."""
    last = name.rsplit(".", 1)[-1]
    new = None
    if last == "relative_position_bias_table" and tensor.ndim == 2:
        new = square_resized(tensor.t(), shape[0]).t()
    elif last == "rpb" and tensor.ndim == 3:
        new = square_resized(tensor.flatten(1), shape[-1] ** 2)
    elif last == "absolute_pos_embed" and tensor.ndim in (3, 4):  # classifiers keep it as (1, N, C)
        cells = tensor[0].t() if tensor.ndim == 3 else tensor[0].flatten(1)
        new = square_resized(cells, shape[-1] ** 2)
    elif last == "pos_embed" and tensor.ndim == 3:
        new = tokens_resized(tensor[0], shape[1])
    elif squeezed(tensor.shape) == squeezed(shape):  # such as a scale (C, 1, 1) for (C), or a 1x1 convolution
        new = tensor
    return new.reshape(shape) if new is not None and new.numel() == shape.numel() else None


def square_resized(cells: Tensor, count: int) -> Tensor:
    """(C, N) over a square -> (C, count) over a square, bicubic as in the Swin transformer's release.

    What is no square comes back as it is.
    """
    old, new = round(cells.shape[1] ** 0.5), round(count**0.5)
    if old == new or old**2 != cells.shape[1] or new**2 != count:
        return cells
    grid = cells.float().reshape(1, -1, old, old)
    return F.interpolate(grid, size=(new, new), mode="bicubic").flatten(2)[0].to(cells.dtype)


def tokens_resized(tokens: Tensor, count: int) -> Tensor:
    """Positions (N, C) of a square of patches, after that of a class token or without -> (count, C) with a class token.

    Where the file has none, the class token carries its position within itself, and zero is right.
    """
    classes = 0 if round(len(tokens) ** 0.5) ** 2 == len(tokens) else 1
    cls = tokens[:1] if classes else torch.zeros_like(tokens[:1])
    return torch.cat((cls, square_resized(tokens[classes:].t(), count - 1).t()))


def squeezed(shape: torch.Size) -> list[int]:
    """A shape without its axes of length 1."""
    return [n for n in shape if n != 1]
