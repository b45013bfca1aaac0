"""A photo and its maps or masks -> the photo with coloured segments, contours and labels, at its own size.

Photos are uint8 (H, W, 3); maps are (H, W) integers. Every picture is built by one lookup in a table of colours per
segment; no pixel is visited in Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from oneformer.report.color import RGB, instance_colors, luminance
from oneformer.report.place import Place, font, font_px, place, printable

if TYPE_CHECKING:
    from oneformer.data.labels import LabelMap

Photo = NDArray[np.uint8]

ALPHA = 0.5  # strength of the colour over the photo
SCALE = 256  # blending is done in integers of 1/256
INK, PAPER = (16, 16, 16), (255, 255, 255)
MAX_PER_CLASS = (
    6  # names of one class in a panoptic picture: the largest segments; eighty times "nucleus" hides the nuclei
)
CHUNK_ROWS = 512  # rows blended at a time: temporaries of a 100 megapixel photo stay small


@dataclass(frozen=True)
class Drawing:
    """A finished picture, how many labels were written on it and how many found no room."""

    image: Image.Image
    labels_written: int = 0
    labels_left_out: int = 0


@dataclass(frozen=True)
class Look:
    """How masks are drawn."""

    alpha: float = ALPHA
    """Strength of the colour over the photo."""
    size_px: int | None = None
    """Size of the letters; None goes by the photo's size."""
    min_score: float = 0.0
    """Instances with a lower score are not drawn."""


PLAIN = Look()


@dataclass(frozen=True)
class _Layer:
    """What is painted: an index per pixel (-1 leaves the photo), and colour and text of each index."""

    index: NDArray[np.int32]  # (H, W)
    colors: NDArray[np.uint8]  # (N, 3)
    texts: Sequence[str] = field(default_factory=list)


def semantic(photo: Photo, class_map: NDArray[np.integer], labels: LabelMap, *, look: Look = PLAIN) -> Drawing:
    """The class of each pixel as its class colour, one label per class where it has most room.

    Pixels with ids outside the classes keep the photo.
    """
    count = labels.num_classes
    index = np.where((class_map >= 0) & (class_map < count), class_map, -1).astype(np.int32)
    present = np.bincount(index[index >= 0].ravel(), minlength=count) > 0
    texts = [printable(name, f"#{i}") if present[i] else "" for i, name in enumerate(labels.names)]
    colors = np.asarray(labels.colors, np.uint8).reshape(count, 3)
    return _paint(photo, _Layer(index, colors, texts), look)


def panoptic(
    photo: Photo,
    id_map: NDArray[np.integer],
    class_ids: Mapping[int, int],
    labels: LabelMap,
    *,
    look: Look = PLAIN,
) -> Drawing:
    """Segments in shades of their class colour with contours and class names.

    Args:
        id_map: (H, W) segment ids; ids missing from `class_ids` (void is one) leave the photo as it is.
        class_ids: segment id -> class id; a class outside the label map (a crowd) is drawn grey without a label.
    """
    ids = sorted(class_ids)
    classes = [int(class_ids[i]) for i in ids]
    names = [printable(labels.names[c], f"#{c}") if 0 <= c < labels.num_classes else "" for c in classes]
    index = _compact(id_map, ids)
    kept = _largest_of_each(index, classes, MAX_PER_CLASS) if len(ids) > MAX_PER_CLASS else set(range(len(ids)))
    texts = [name if i in kept else "" for i, name in enumerate(names)]
    layer = _Layer(index, instance_colors(classes, labels.colors, labels.is_thing), texts)
    drawing = _paint(photo, layer, look)
    dropped = sum(map(bool, names)) - sum(map(bool, texts))
    return replace(drawing, labels_left_out=drawing.labels_left_out + dropped)


def instances(
    photo: Photo,
    masks: Sequence[NDArray[np.bool_]] | NDArray[np.bool_],
    class_ids: Sequence[int],
    labels: LabelMap,
    *,
    scores: Sequence[float] | None = None,
    look: Look = PLAIN,
) -> Drawing:
    """N masks (H, W) in shades of their class colour with contours, name and score; the highest score lies on top."""
    count = len(class_ids)
    values = [float(s) for s in scores] if scores is not None else [1.0] * count
    order = sorted((i for i in range(count) if values[i] >= look.min_score), key=lambda i: (-values[i], i))
    classes = [int(class_ids[i]) for i in order]
    index = np.full(photo.shape[:2], -1, np.int32)
    for row in range(len(order) - 1, -1, -1):
        index[masks[order[row]]] = row
    texts = [
        _scored(printable(labels.names[c], f"#{c}"), values[i] if scores is not None else None)
        for c, i in zip(classes, order, strict=True)
    ]
    return _paint(photo, _Layer(index, instance_colors(classes, labels.colors, labels.is_thing), texts), look)


def legend(entries: Sequence[tuple[str, RGB]], *, width: int, size_px: int = 13) -> Image.Image:
    """A strip `width` pixels wide with a swatch and a name per entry, wrapped into as many rows as needed."""
    pad, swatch = size_px // 2, size_px
    row_height = round(size_px * 1.7)
    boxes: list[tuple[int, int, str, RGB]] = []
    x, y = pad, 0
    for name, color in entries:
        text = _shorten(printable(name, "?"), size_px, max(size_px, width - 3 * pad - swatch))
        need = swatch + pad + round(font(size_px).getlength(text)) + 2 * pad
        if x > pad and x + need > width:
            x, y = pad, y + row_height
        boxes.append((x, y, text, color))
        x += need
    strip = Image.new("RGB", (width, y + row_height + pad if boxes else 1), PAPER)
    pen = ImageDraw.Draw(strip)
    for left, top, text, color in boxes:
        middle = top + (row_height + pad) / 2
        pen.rectangle(
            (left, middle - swatch / 2, left + swatch, middle + swatch / 2), fill=tuple(color), outline=(190, 190, 190)
        )
        pen.text((left + swatch + pad, middle), text, fill=INK, font=font(size_px), anchor="lm")
    return strip


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures one below the other, left-aligned on white."""
    assert pictures, "nothing to stack"
    out = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), PAPER)
    top = 0
    for picture in pictures:
        out.paste(picture, (0, top))
        top += picture.height
    return out


def _largest_of_each(index: NDArray[np.int32], classes: Sequence[int], count: int) -> set[int]:
    """The `count` largest segments of every class."""
    areas = np.bincount(index[index >= 0], minlength=len(classes))
    order = sorted(range(len(classes)), key=lambda i: (classes[i], -int(areas[i]), i))
    runs: dict[int, int] = {}
    kept = set()
    for i in order:
        runs[classes[i]] = runs.get(classes[i], 0) + 1
        if runs[classes[i]] <= count:
            kept.add(i)
    return kept


def _compact(id_map: NDArray[np.integer], ids: Sequence[int]) -> NDArray[np.int32]:
    """Segment ids -> their place in `ids`, -1 for others: a table lookup for small ids, else a binary search."""
    if not ids:
        return np.full(id_map.shape, -1, np.int32)
    keys = np.asarray(ids, np.int64)
    top = int(max(keys[-1], id_map.max(initial=0)))
    if top < 1 << 20 and int(id_map.min(initial=0)) >= 0 and keys[0] >= 0:
        table = np.full(top + 1, -1, np.int32)
        table[keys] = np.arange(len(keys), dtype=np.int32)
        return np.asarray(table[id_map])
    at = np.minimum(np.searchsorted(keys, id_map), len(keys) - 1)
    return np.where(keys[at] == id_map, at, -1).astype(np.int32)


def _paint(photo: Photo, layer: _Layer, look: Look) -> Drawing:
    assert photo.dtype == np.uint8 and photo.ndim == 3 and photo.shape[2] == 3, "a photo is uint8 (H, W, 3)"
    assert layer.index.shape == photo.shape[:2], (
        f"the map {layer.index.shape} is not of the photo's size {photo.shape[:2]}"
    )
    size = look.size_px or font_px(*photo.shape[:2])
    image = Image.fromarray(_blend(photo, layer, look.alpha))
    places, left_out = place(layer.index, layer.texts, size_px=size)
    _write(image, places, layer.colors)
    return Drawing(image, len(places), left_out)


def _blend(photo: Photo, layer: _Layer, alpha: float) -> Photo:
    """Photo x (1 - alpha) + colour x alpha inside the segments, contours in a lighter or darker tone of the colour."""
    strength = round(alpha * SCALE)
    count = len(layer.colors)
    add = np.zeros((2 * count + 1, 3), np.uint16)  # rows: fill of each segment, contour of each segment, untouched
    add[:count] = layer.colors.astype(np.uint16) * strength
    add[count:-1] = _edge_colors(layer.colors).astype(np.uint16) * (SCALE - 1)
    keep = np.full(2 * count + 1, SCALE, np.uint16)
    keep[:count] = SCALE - strength
    keep[count:-1] = 0
    index = np.where(layer.index < 0, 2 * count, layer.index)
    edge = _edges(layer.index, width=contour_px(*layer.index.shape))
    index[edge] += count
    out = np.empty_like(photo)
    for top in range(0, len(photo), CHUNK_ROWS):
        rows = index[top : top + CHUNK_ROWS]
        out[top : top + CHUNK_ROWS] = (photo[top : top + CHUNK_ROWS] * keep[rows][..., None] + add[rows]) >> 8
    return out


def contour_px(height: int, width: int) -> int:
    """Contour thickness: one pixel up to a short side of 480, then in proportion."""
    return max(1, round(min(height, width) / 480))


def _edges(index: NDArray[np.int32], *, width: int) -> NDArray[np.bool_]:
    """Pixels of segments with another segment, or none, within `width` pixels up, down, left or right."""
    edge = np.zeros(index.shape, bool)
    for d in range(1, width + 1):
        rows = index[d:] != index[:-d]
        edge[d:] |= rows
        edge[:-d] |= rows
        columns = index[:, d:] != index[:, :-d]
        edge[:, d:] |= columns
        edge[:, :-d] |= columns
    edge &= index >= 0
    return edge


def _edge_colors(colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Dark colours get a lighter contour and light colours a darker one, so that it stands out against its own fill."""
    light = np.array([luminance(c) > 0.6 for c in colors], bool).reshape(-1, 1)
    return np.where(light, colors * 0.55, colors * 0.45 + 255 * 0.55).astype(np.uint8)


def _write(image: Image.Image, places: Sequence[Place], colors: NDArray[np.uint8]) -> None:
    pen = ImageDraw.Draw(image)
    for spot in places:
        dark = luminance(colors[spot.index]) > 0.62
        ink, outline = (INK, PAPER) if dark else (PAPER, INK)
        stroke = max(1, round(spot.font_px / 9))
        pen.text(
            spot.center,
            spot.text,
            fill=ink,
            font=font(spot.font_px),
            anchor="mm",
            stroke_width=stroke,
            stroke_fill=outline,
        )


def _scored(name: str, score: float | None) -> str:
    return name if score is None else f"{name} {score:.2f}"


def _shorten(text: str, size_px: int, room: int) -> str:
    face = font(size_px)
    if face.getlength(text) <= room:
        return text
    while text and face.getlength(text + "…") > room:
        text = text[:-1]
    return text + "…"
