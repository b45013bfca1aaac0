"""Two cut-out photos with their labels -> one, a rectangle of the second pasted over the first (CutMix).

Yun et al., "CutMix", ICCV 2019, section 3.1: the share that is pasted is uniform (Beta(1, 1)). Masks and texts follow,
since targets and texts are made of what is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from oneformer.data.augment import holding
from oneformer.data.record import SegmentInfo
from oneformer.data.window import Picked


@dataclass(frozen=True)
class Cut:
    """What augmentation leaves of a photo: uint8 (3, h, w), its labels of the same size, and what those mean.

    `ids` hold the numbers of an `Annotation` of `segments` and `regions`, and the first number beyond for void.
    """

    pixels: torch.Tensor
    ids: Picked
    segments: tuple[SegmentInfo, ...]
    regions: np.ndarray | None = None

    @property
    def numbers(self) -> int:
        """How many numbers mean something; this number itself means void."""
        return len(self.segments) + 1 if self.regions is None else len(self.regions)

    def membership(self) -> np.ndarray:
        """`regions` bool (R, N), made up where every number is one segment."""
        if self.regions is not None:
            return self.regions
        return np.eye(len(self.segments) + 1, len(self.segments), -1, dtype=bool)


def pasted(under: Cut, over: Cut, rng: np.random.Generator) -> Cut:
    """`under` with a random rectangle of what lies at the same place in `over`."""
    height, width = (min(sides) for sides in zip(under.ids.shape, over.ids.shape, strict=True))
    box = pasted_box((height, width), rng)
    pixels = under.pixels.clone()
    pixels[:, box[0], box[1]] = over.pixels[:, box[0], box[1]]
    first, second = under.numbers, over.numbers
    # Unlabelled stays 0, the second photo's numbers follow the first's, void is the first number beyond both.
    void = first + second - 1
    own = np.append(np.arange(first), void)
    other = np.append(0, np.arange(first, void + 1))
    ids = own.astype(holding(under.ids.seen, void).dtype)[under.ids.map()]
    ids[box] = other[over.ids.map()[box]]
    segments = tuple(s._replace(segment_id=i) for i, s in enumerate((*under.segments, *over.segments), start=1))
    regions = None
    if under.regions is not None or over.regions is not None:
        regions = np.zeros((void, len(segments)), bool)
        regions[:first, : len(under.segments)] = under.membership()
        regions[first:, len(under.segments) :] = over.membership()[1:]
    return Cut(pixels, Picked.whole(ids), segments, regions)


def pasted_box(size: tuple[int, int], rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a rectangle of the shape of (height, width) and a uniform share of it, anywhere inside."""
    side = rng.random() ** 0.5
    height, width = (max(1, round(side * length)) for length in size)
    top, left = int(rng.integers(0, size[0] - height + 1)), int(rng.integers(0, size[1] - width + 1))
    return slice(top, top + height), slice(left, left + width)
