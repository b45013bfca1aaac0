"""Class ids and segment ids -> RGB colours that are the same on every run."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RGB = tuple[int, int, int]

GOLDEN = 0.6180339887  # successive multiples modulo 1 never cluster, so neighbours in the order differ clearly
HUE_SPAN = 0.10  # width of the hue band an instance may move in when colours must still name the class
HUE_SPAN_FEW = 0.45  # with up to three countable classes hue is free to tell instances apart


def instance_colors(class_ids: Sequence[int], colors: Sequence[RGB], is_thing: Sequence[bool]) -> NDArray[np.uint8]:
    """Colours (N, 3) of N segments: stuff has its class colour, each further thing of a class a shade of its own.

    The shade depends only on the place of the segment among those of its class, so a picture is drawn alike every time.
    """
    span = HUE_SPAN_FEW if sum(is_thing) <= 3 else HUE_SPAN
    seen: dict[int, int] = {}
    table = np.zeros((len(class_ids), 3), np.uint8)
    for row, class_id in enumerate(class_ids):
        if not 0 <= class_id < len(colors):  # crowd or unknown class: neutral grey
            table[row] = (128, 128, 128)
            continue
        order = seen[class_id] = seen.get(class_id, -1) + 1
        table[row] = shade(colors[class_id], order, span) if is_thing[class_id] else colors[class_id]
    return table


def shade(color: RGB, order: int, span: float) -> RGB:
    """The `order`-th variation of a colour: hue within `span` (part of the circle), saturation and value kept vivid."""
    if order == 0:
        return color
    hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in color))
    turn = (order * GOLDEN) % 1.0 - 0.5
    lift = (order * GOLDEN * GOLDEN) % 1.0 - 0.5
    red, green, blue = colorsys.hsv_to_rgb(
        (hue + turn * span) % 1.0, min(1.0, max(0.45, saturation + 0.3 * lift)), min(1.0, max(0.6, value + 0.5 * lift))
    )
    return round(red * 255), round(green * 255), round(blue * 255)


def luminance(color: Sequence[int]) -> float:
    """Brightness 0..1 of an sRGB colour: Rec. 709 weights on gamma-coded values, enough to choose the ink on it."""
    return (0.2126 * float(color[0]) + 0.7152 * float(color[1]) + 0.0722 * float(color[2])) / 255


def css(color: Sequence[int]) -> str:
    """An RGB colour as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*(int(c) for c in color[:3]))
