"""Class and mask logits of one image -> its map of class ids (H, W) at the photo's own size."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oneformer.segments.resize import Frame, Size, Upsampler, exact, extremes

# Settings of speed without effect on the result.
CONTENDERS = 24  # classes tried first
WORTHWHILE_SHARE = 0.4  # of open cells; with more of them it is quicker to score every pixel
CELL_ROWS = 4  # rows of mask pixels bounded at once
CHUNK_VALUES = 2**20  # open pixels x queries scored at once: 4 MiB stay near the CPU's caches

ROUNDING = 1e-5  # float32 sums of some hundred terms; a bound must be beaten by more than this


@exact
def semantic_map(
    class_logits: Tensor, mask_logits: Tensor, *, input_size: Size, size: Size, original_size: Size
) -> NDArray[np.int32]:
    """The most likely class of every pixel: argmax of class x mask probability summed over queries (published rule).

    "No object" is left out after the softmax, so a pixel always gets a class; there is no void in the result.

    Args:
        class_logits: (Q, K+1), the last column "no object".
        mask_logits: (Q, h, w) before the sigmoid.
        input_size, size, original_size: padded network input, the image in it, the photo; (height, width) in pixels.

    Returns:
        (H, W) class ids on the CPU.
    """
    probs = class_logits.float().softmax(dim=-1)[:, :-1]  # (Q, K)
    masks = mask_logits.float()
    upsampler = Upsampler((masks.shape[1], masks.shape[2]), Frame(input_size, size, original_size), device=masks.device)
    found = _by_bounds(probs, masks, upsampler) if masks.device.type == "cpu" else None  # on a GPU products are cheap
    return (_in_full(probs, masks, upsampler) if found is None else found).cpu().numpy()


def _in_full(probs: Tensor, masks: Tensor, upsampler: Upsampler) -> Tensor:
    """Every class's score at every pixel; the first class where several are equal. (H, W) int32."""
    classes = torch.empty(upsampler.frame.original_size, dtype=torch.int32, device=masks.device)
    for band in upsampler.bands(len(masks)):
        inside = upsampler.rows(masks, band).sigmoid_().flatten(1)  # (Q, r * W)
        classes[band.start : band.stop] = (probs.T @ inside).max(dim=0).indices.view(-1, upsampler.width).int()
    return classes


def _by_bounds(probs: Tensor, masks: Tensor, upsampler: Upsampler) -> Tensor | None:
    """The same map, most of it without resizing a mask; None where the network is too undecided for that to pay.

    A resized logit is a mean of the mask logits under it, so the least and the greatest of them bound it, and a class's
    score with it. Where one class's lower bound beats every other's upper bound, the answer stands for all pixels over
    these mask pixels, however many they are; the other pixels are scored one by one.
    """
    peaks = masks.amax(dim=(1, 2)).sigmoid()  # (Q,)
    ceilings = peaks @ probs  # (K,): no pixel's score is higher
    order = ceilings.argsort(descending=True)
    tried = order[:CONTENDERS].sort().values
    ceiling = float(ceilings[order[CONTENDERS]]) if len(order) > CONTENDERS else -1.0  # of the classes not tried
    weights = probs[:, tried]  # (Q, T)
    table = masks.flatten(1).T.contiguous()  # (h * w, Q)
    rows, columns = upsampler.cells
    cells, num_open = [], 0
    for taps in rows.taps.split(CELL_ROWS):  # (y, t)
        first = int(taps.min())
        insides = table.view(*masks.shape[1:], -1)[first : int(taps.max()) + 1].sigmoid()  # (s, w, Q)
        most, least = extremes(*extremes(insides, insides, taps - first, dim=0), columns.taps, dim=1)  # (y, x, Q)
        best = (least @ weights).max(dim=2)  # (y, x)
        rivals = (most @ weights).scatter_(2, best.indices[..., None], ceiling).amax(dim=2).clamp_(min=ceiling)
        cells.append(torch.where(best.values > rivals + ROUNDING, tried[best.indices], -1))
        num_open += int((cells[-1] < 0).sum())
        seen = max(sum(map(len, cells)), len(rows.taps) // 4)  # a first impression needs some rows
        if num_open > WORTHWHILE_SHARE * seen * len(columns.taps):
            return None
    classes = torch.cat(cells).int()[rows.of_pixel].index_select(1, columns.of_pixel)
    ys, xs = (classes < 0).nonzero(as_tuple=True)
    for some in torch.arange(len(ys)).split(max(1, CHUNK_VALUES // len(masks))):
        inside = upsampler.pixels(table, ys[some], xs[some]).sigmoid_()  # (P, Q)
        best = (inside @ weights).max(dim=1)
        found = tried[best.indices]
        unsure = best.values <= ceiling + ROUNDING
        found[unsure] = (inside[unsure] @ probs).max(dim=1).indices
        classes[ys[some], xs[some]] = found.int()
    return classes
