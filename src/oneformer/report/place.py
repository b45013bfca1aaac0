"""A map of segment indices and one text per segment -> where each text fits inside its own segment."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont
from scipy import ndimage

MAX_SIDE = 512  # places are searched on a map reduced to this long side; finer gains nothing at the size of a letter
COVER = 0.8  # part of a text's box that must lie on its own segment
FLATTEN = 2.5  # texts are wide: free room above and below counts this much more than room beside
SHOWN_PX = 360  # width that a page shows a picture with: a third of it on a screen, all of it on a phone
LETTERS_PX = 12  # what letters measure there
MIN_FONT_PX = 9  # smaller letters of the built-in font are not readable


@dataclass(frozen=True)
class Place:
    """A text with its font size and centre, all in pixels of the full-size picture."""

    text: str
    font_px: int
    center: tuple[float, float]  # x, y
    index: int


@lru_cache(maxsize=32)
def font(size_px: int) -> ImageFont.FreeTypeFont:
    """Pillow's built-in scalable font; no file of the machine is read, so pictures are the same everywhere."""
    chosen = ImageFont.load_default(size_px)
    assert isinstance(chosen, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return chosen


def printable(text: str, fallback: str) -> str:
    """The text as the built-in font can write it: accents dropped, `fallback` when a character has no glyph."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    plain = " ".join(plain.split())
    return plain if plain and plain.isascii() and plain.isprintable() else fallback


def font_px(height: int, width: int) -> int:
    """Letter size for a photo: about a thirty-fourth of the short side, never below 10 pixels."""
    return max(10, round(min(height, width) / 34))


def page_font_px(width: int) -> int:
    """Letter size on a picture of this width that is shown on a page, so that its names can be read there."""
    return max(LETTERS_PX, round(width * LETTERS_PX / SHOWN_PX))


def place(index: NDArray[np.integer], texts: Sequence[str], *, size_px: int) -> tuple[list[Place], int]:
    """Find a spot for every non-empty text, and count those without one.

    Args:
        index: (H, W), value i means segment i; -1 belongs to none.
        texts: one per segment, empty for segments that carry no text.
        size_px: the wanted letter size; three quarters of it is tried next, then the text is left out.
    Returns:
        the places, large segments first, and the number of texts left out.
    """
    step = max(1, -(-max(index.shape) // MAX_SIDE))
    small = np.ascontiguousarray(index[step // 2 :: step, step // 2 :: step])
    wanted = [i for i, text in enumerate(texts) if text]
    if not small.size or not wanted:
        return [], len(wanted)
    peaks = ndimage.maximum_position(_room(small), small, wanted)
    area = np.bincount(small[small >= 0].ravel(), minlength=len(texts))
    board = _Board(small, step)
    places: list[Place] = []
    for i, peak in sorted(zip(wanted, peaks, strict=True), key=lambda item: (-int(area[item[0]]), item[0])):
        found = board.fit(texts[i], i, peak, sizes=_sizes(size_px)) if area[i] else None
        if found:
            places.append(found)
    return places, len(wanted) - len(places)


def _sizes(size_px: int) -> tuple[int, ...]:
    return tuple(sorted({size_px, max(MIN_FONT_PX, round(size_px * 0.75))}, reverse=True))


def _room(small: NDArray[np.integer]) -> NDArray[np.floating]:
    """Distance of every pixel to the next segment boundary or picture edge, in one transform for all segments."""
    inside = np.zeros((small.shape[0] + 2, small.shape[1] + 2), bool)
    inside[1:-1, 1:-1] = True
    core = inside[1:-1, 1:-1]
    core[:, 1:] &= small[:, 1:] == small[:, :-1]
    core[1:] &= small[1:] == small[:-1]
    room = ndimage.distance_transform_edt(inside, sampling=(FLATTEN, 1.0))
    return np.asarray(room)[1:-1, 1:-1]


class _Board:
    """The reduced map and the boxes already written on it."""

    def __init__(self, small: NDArray[np.integer], step: int) -> None:
        self.small = small
        self.step = step
        self.taken = np.zeros(small.shape, bool)

    def fit(self, text: str, index: int, peak: Sequence[int], *, sizes: Sequence[int]) -> Place | None:
        """The text at the first size whose box around the peak is free and lies on its own segment."""
        row, column = int(peak[0]), int(peak[1])
        height, width = self.small.shape
        for size in sizes:
            left, top, right, bottom = font(size).getbbox(text, anchor="mm")
            half_w, half_h = ((right - left) / 2 + 1) / self.step, ((bottom - top) / 2 + 1) / self.step
            y0, y1 = round(row - half_h), round(row + half_h) + 1
            x0, x1 = round(column - half_w), round(column + half_w) + 1
            if y0 < 0 or x0 < 0 or y1 > height or x1 > width or self.taken[y0:y1, x0:x1].any():
                continue
            if np.mean(self.small[y0:y1, x0:x1] == index) >= COVER:
                self.taken[y0:y1, x0:x1] = True
                middle = self.step // 2 + 0.5
                return Place(text, size, (column * self.step + middle, row * self.step + middle), index)
        return None
