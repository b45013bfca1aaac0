"""A JPEG file -> pixels uint8 (H, W, 3) by simplejpeg where that is installed: Pillow's own, in two thirds of the time.

Both use libjpeg-turbo with the same settings, so no sample depends on which of them is there; `tests/data/test_jpeg.py`
compares them.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import BinaryIO

import numpy as np


@cache
def simplejpeg() -> ModuleType | None:
    """The package, or None."""
    try:
        import simplejpeg as package
    except ImportError:
        return None
    return package


def decode_jpeg(file: BinaryIO, size: tuple[int, int], reduce: int) -> np.ndarray | None:
    """The pixels of a colour JPEG of `size` (height, width) at 1 / `reduce` of it, rounded up.

    None where simplejpeg is missing or finds any fault: then Pillow decides what can be used.
    """
    package = simplejpeg()
    if package is None:
        return None
    height, width = (-(-side // reduce) for side in size)
    file.seek(0)
    try:
        pixels: np.ndarray = package.decode_jpeg(file.read(), "RGB", min_height=height, min_width=width)
    except (ValueError, RuntimeError):
        return None
    finally:
        file.seek(0)
    return pixels if pixels.shape == (height, width, 3) else None
