"""Class and mask logits of one image -> its map of class ids (H, W) at the photo's own size."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oneformer.segments.resize import Band, Frame, Size, Upsampler, exact, rows_first

CONTENDERS = 24  # classes tried first; a speed setting without effect on the result
WORTHWHILE_SHARE = 0.25  # of undecided pixels; picking more of them costs more than scoring every pixel
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
    frame = Frame(input_size, size, original_size)
    masks = rows_first(mask_logits)  # (h, Q, w)
    upsampler = Upsampler((mask_logits.shape[1], mask_logits.shape[2]), frame, device=mask_logits.device)
    weights = probs.T.contiguous()  # (K, Q)
    row_peaks = masks.amax(dim=2)  # (h, Q)
    few_first = weights.shape[0] > 2 * CONTENDERS and weights.device.type == "cpu"  # on a GPU products are cheap
    classes = torch.empty(original_size, dtype=torch.int32, device=mask_logits.device)
    for band in upsampler.bands(masks.shape[1]):
        inside = upsampler.rows(masks, band).sigmoid_()  # (r, Q, W)
        found = _best_of_few(weights, inside, _ceilings(weights, row_peaks, band)) if few_first else None
        few_first = found is not None  # where it does not pay once, the network is undecided and it will not pay below
        classes[band.start : band.stop] = _best_of_all(weights, inside) if found is None else found
    return classes.cpu().numpy()


def _best_of_all(weights: Tensor, inside: Tensor) -> Tensor:
    """Argmax over classes (r, W) of `weights` (K, Q) @ `inside` (r, Q, W), the first class where several are equal."""
    return (weights @ inside).max(dim=1).indices.int()


def _ceilings(weights: Tensor, row_peaks: Tensor, band: Band) -> Tensor:
    """Per class (K,), a score that no pixel of the band can exceed.

    A resized logit is a mean of mask logits, so the band's highest mask logit bounds it; the sigmoid keeps the order.
    """
    return weights @ row_peaks[band.first : band.last].amax(dim=0).sigmoid()


def _best_of_few(weights: Tensor, inside: Tensor, ceilings: Tensor) -> Tensor | None:
    """What `_best_of_all` gives, by scoring first only the classes that promise most; None where that does not pay.

    Where the best of them beats every other class's ceiling the answer stands; the other pixels are scored for all.
    """
    order = ceilings.argsort(descending=True)
    tried = order[:CONTENDERS].sort().values
    best = (weights[tried] @ inside).max(dim=1)  # values and indices (r, W)
    unsure = best.values <= ceilings[order[CONTENDERS]] + ROUNDING
    share = float(unsure.float().mean())
    if share > WORTHWHILE_SHARE:
        return None
    found = tried[best.indices].int()
    if share > 0:
        found[unsure] = (weights @ inside.transpose(1, 2)[unsure].T).max(dim=0).indices.int()
    return found
