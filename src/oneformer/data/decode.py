"""An image or mask file -> uint8 RGB pixels (upright) or an int32 map of segment ids; every unusable file is named."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from oneformer.data.files import examples, open_binary
from oneformer.data.jpeg import decode_jpeg
from oneformer.data.record import SegmentInfo
from oneformer.errors import DataError

# Formats photos come in; others (PDF, EPS, ...) are refused, some of their decoders start programs.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm")
MAX_MPX = 200.0  # the default of dataset.max_image_mpx, in million pixels
# What Pillow's decoders raise on broken files.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)
ORIENTATION, UPRIGHT, QUARTER_TURNED = 0x0112, 1, (5, 6, 7, 8)  # EXIF 2.3
# Modes that Pillow turns into RGB without a choice to be made.
PLAIN_MODES = ("1", "L", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")


def read_image(path: str | Path, *, max_mpx: float = MAX_MPX) -> np.ndarray:
    """A photo as uint8 (H, W, 3), turned upright by its EXIF orientation. Rules and errors: see `open_image`."""
    return np.asarray(open_image(path, max_mpx=max_mpx))


def open_image(path: str | Path, *, max_mpx: float = MAX_MPX) -> Image.Image:
    """A photo as a decoded RGB Pillow image, turned upright by its EXIF orientation.

    Grey, palette and CMYK become RGB. Transparent pixels are laid over white, as viewers show them. 16-bit grey is
    divided by 257 (the full range, not the photo's own, so that brightness stays comparable). 32-bit and other modes
    are refused by name: their range is not known. `max_mpx` limits the size in million pixels before anything is
    decoded. Raises DataError.
    """
    with open_binary(path, what="image file") as file:
        image = _open(file, path, what="image")
        _check_size(image, path, max_mpx)
        try:
            image.load()
            return to_rgb(ImageOps.exif_transpose(image), where=str(path))
        except BROKEN as error:
            raise _broken(path, error, what="image") from None


class Photo:
    """A photo whose size is known; its pixels are decoded when they are asked for."""

    def __init__(self, size: tuple[int, int], decode: Callable[[int], np.ndarray], *, reducible: bool = False) -> None:
        """`size` is (height, width) upright; `decode` is `pixels`; `reducible` says that it can do with less."""
        self.size = size
        self.reducible = reducible
        self._decode = decode

    @classmethod
    def of(cls, pixels: np.ndarray) -> Photo:
        """From pixels uint8 (H, W, 3) that are there already."""
        return cls((pixels.shape[0], pixels.shape[1]), lambda _: pixels)

    def pixels(self, reduce: int = 1) -> np.ndarray:
        """uint8 (H, W, 3); with `reduce` 2, 4 or 8 every so many pixels of a side are one, the last may be fewer.

        Only where `reducible`: a JPEG is decoded at that size at a fraction of the cost. Raises DataError.
        """
        assert reduce == 1 or self.reducible, "this file is decoded whole"
        return self._decode(reduce)


@contextmanager
def open_photo(path: str | Path, *, max_mpx: float = MAX_MPX) -> Iterator[Photo]:
    """A photo by its file, closed at the end. Rules and errors: see `open_image`."""
    with open_binary(path, what="image file") as file:
        image = _open(file, path, what="image")
        _check_size(image, path, max_mpx)
        try:
            if image.format == "JPEG":
                photo = _jpeg_photo(file, image, path)
            else:
                image.load()
                photo = Photo.of(np.asarray(to_rgb(ImageOps.exif_transpose(image), where=str(path))))
        except BROKEN as error:
            raise _broken(path, error, what="image") from None
        yield photo


def _jpeg_photo(file: BinaryIO, image: Image.Image, path: str | Path) -> Photo:
    """A JPEG that is decoded at the size it is needed in."""
    orientation = image.getexif().get(ORIENTATION, UPRIGHT)
    width, height = image.size
    upright = orientation not in range(2, 9)

    def decode(reduce: int) -> np.ndarray:
        try:
            if upright and image.mode == "RGB" and (pixels := decode_jpeg(file, (height, width), reduce)) is not None:
                return pixels
            file.seek(0)
            again = _open(file, path, what="image")  # Pillow decodes an image once, at one size
            if reduce > 1:
                # Rounded down: Pillow takes the largest reduction that is not smaller than asked for.
                again.draft(again.mode, (width // reduce, height // reduce))
            again.load()
            return np.asarray(to_rgb(ImageOps.exif_transpose(again), where=str(path)))
        except BROKEN as error:
            raise _broken(path, error, what="image") from None

    size = (width, height) if orientation in QUARTER_TURNED else (height, width)
    return Photo(size, decode, reducible=upright and image.mode in ("RGB", "L"))


def to_rgb(image: Image.Image, *, where: str) -> Image.Image:
    """A Pillow image of any usable mode as RGB, see `open_image`. Raises DataError naming a mode without a rule."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or (image.mode == "P" and "transparency" in image.info):
        straight = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), straight).convert("RGB")
    if image.mode in PLAIN_MODES or image.mode == "P":
        return image.convert("RGB")
    raise DataError(
        f"the image's pixel format {image.mode} is not supported",
        where=where,
        hint="save it with 8 bits per channel (grey, RGB, RGBA, palette or CMYK) or as 16-bit grey",
        kind="unreadable_file",
    )


def read_panoptic(path: str | Path, *, max_mpx: float = MAX_MPX) -> np.ndarray:
    """A panoptic mask as int32 (H, W) of segment ids, 0 = void.

    RGB (and RGBA without transparency) holds R + 256 G + 65536 B; 8- and 16-bit grey hold the ids themselves. A palette
    is refused: its colours and its indices could both be meant. Raises DataError.
    """
    image = _open_mask(path, max_mpx=max_mpx)
    if image.mode == "L" or image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.int32)
    if image.mode == "RGBA" and np.asarray(image)[..., 3].min() == 255:
        image = image.convert("RGB")
    if image.mode != "RGB":
        hint = "save the mask as 8-bit RGB with id = R + 256 G + 65536 B"
        what = f"the mask's pixel format {image.mode} cannot hold segment ids"
        raise DataError(what, where=str(path), hint=hint, kind="wrong_encoding")
    return _packed(image)


class LabelPixels(NamedTuple):
    """A label image as it was saved: numbers or packed colours, and the packed colour of each number in a palette."""

    values: np.ndarray  # int32 (H, W): the pixel's number, or R + 256 G + 65536 B where `is_color`
    is_color: bool
    palette: np.ndarray | None = None  # int32 (P,)


def read_label_image(path: str | Path, *, max_mpx: float = MAX_MPX) -> LabelPixels:
    """A label image: 1-, 8-, 16- and 32-bit grey and palettes give numbers, RGB gives colours. Raises DataError."""
    image = _open_mask(path, max_mpx=max_mpx)
    if image.mode == "P":
        palette = np.array(image.getpalette() or [], np.int32).reshape(-1, 3)
        return LabelPixels(np.asarray(image).astype(np.int32), False, palette @ np.array([1, 256, 65536], np.int32))
    if image.mode in ("1", "L", "I") or image.mode.startswith("I;16"):
        return LabelPixels(np.asarray(image).astype(np.int32), False)
    if image.mode in ("RGB", "RGBA"):
        return LabelPixels(_packed(image), True)
    hint = "save it with one channel of 8 or 16 bits (the labels), with a palette, or as 8-bit RGB (a colour per class)"
    what = f"the label image's pixel format {image.mode} holds no labels"
    raise DataError(what, where=str(path), hint=hint, kind="wrong_encoding")


def read_mask(path: str | Path, *, max_mpx: float = MAX_MPX) -> np.ndarray:
    """The mask of one object as bool (H, W): what is not black, or not transparent where it is all one colour."""
    image = _open_mask(path, max_mpx=max_mpx)
    if "A" in image.getbands():
        alpha = np.asarray(image.getchannel("A")) > 0
        if not alpha.all():
            return np.asarray(alpha)
        image = image.convert("RGB")
    if image.mode == "P":
        image = image.convert("RGB")
    pixels = np.asarray(image)
    return np.asarray(pixels.any(axis=2) if pixels.ndim == 3 else pixels != 0)


def _open_mask(path: str | Path, *, max_mpx: float) -> Image.Image:
    """A decoded mask or label image. Raises DataError when it is missing, broken, too large or a JPEG."""
    with open_binary(path, what="mask file") as file:
        image = _open(file, path, what="mask")
        _check_size(image, path, max_mpx)
        if image.format == "JPEG":
            what = "the mask is a JPEG, which does not keep ids exactly"
            raise DataError(what, where=str(path), hint="masks are PNG files", kind="wrong_encoding")
        try:
            image.load()
        except BROKEN as error:
            raise _broken(path, error, what="mask") from None
    return image


def _packed(image: Image.Image) -> np.ndarray:
    """RGB or RGBA -> int32 (H, W) of R + 256 G + 65536 B."""
    # Pillow keeps four bytes a pixel, which are one little-endian number: three channels in one step.
    quads = np.frombuffer(image.tobytes("raw", "RGBX" if image.mode == "RGB" else "RGBA"), "<i4")
    return np.bitwise_and(quads, 0xFFFFFF, dtype=np.int32).reshape(image.height, image.width)


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) of an image from its header, upright; nothing is decoded. Raises DataError."""
    with open_binary(path, what="image file") as file:
        image = _open(file, path, what="image")
        try:
            # A PNG's own `getexif` decodes it in search of marks behind the pixels.
            quarter_turned = Image.Image.getexif(image).get(ORIENTATION, UPRIGHT) in QUARTER_TURNED
        except BROKEN as error:
            raise _broken(path, error, what="image") from None
        return (image.height, image.width) if quarter_turned else (image.width, image.height)


def _open(file: BinaryIO, path: str | Path, *, what: str) -> Image.Image:
    """The image with its header read.

    `Image.open` is not used because its own size limit is a global of Pillow's; ours is the spec's and is checked next.
    """
    head = file.read(16)
    # The common formats first: preparing all takes Pillow half a second.
    for prepare in (Image.preinit, Image.init):
        prepare()
        for factory, accept in (Image.OPEN[name] for name in FORMATS if name in Image.OPEN):
            if accept is None or accept(head) is not True:
                continue
            file.seek(0)
            try:
                return factory(file, str(path))
            except BROKEN as error:
                raise _broken(path, error, what=what) from None
    hint = "the file is empty" if not head else f"formats that can be read: {', '.join(FORMATS)}"
    text = f"the {what} file is not an image of a known format"
    raise DataError(text, where=str(path), hint=hint, kind="unreadable_file")


def _check_size(image: Image.Image, path: str | Path, max_mpx: float) -> None:
    mpx = image.width * image.height / 1e6
    if mpx > max_mpx:
        raise DataError(
            f"the image has {image.width} x {image.height} pixels, more than the limit of {max_mpx:g} million",
            where=str(path),
            hint="make it smaller, or raise dataset.max_image_mpx",
            kind="unreadable_file",
        )


def _broken(path: str | Path, error: Exception, *, what: str) -> DataError:
    hint = "copy or download it again" if "truncated" in str(error) else ""
    text = f"the {what} file is broken: {error or type(error).__name__}"
    return DataError(text, where=str(path), hint=hint, kind="unreadable_file")


def index_map(
    ids: np.ndarray, segments: Sequence[SegmentInfo], *, where: str
) -> tuple[np.ndarray, tuple[SegmentInfo, ...]]:
    """Segment ids (H, W) -> small ints (H, W), i + 1 for `segments[i]` and 0 for void; the segments with counted areas.

    Raises DataError when the map holds an id that no segment has, or lacks one that a segment has; `where` is the mask
    file.
    """
    known = np.array([0, *(s.segment_id for s in segments)], np.int64)
    order = np.argsort(known)
    flat = ids.ravel()
    # Neighbouring pixels mostly belong together: looking up runs instead of pixels is ten times faster.
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    values, lengths = flat[starts], np.diff(starts, append=flat.size)
    place = order[np.minimum(np.searchsorted(known[order], values), len(known) - 1)]
    strange = known[place] != values
    if strange.any():
        raise _unlisted(np.unique(values[strange]).tolist(), segments, where=where)
    areas = np.bincount(place, weights=lengths, minlength=len(known)).astype(np.int64)
    absent = [s.segment_id for s, area in zip(segments, areas[1:], strict=True) if area == 0]
    if absent:
        what = f"the annotation file lists segment ids without a pixel in the mask: {examples(absent)}"
        hint = "take them out of segments_info, or draw them"
        raise DataError(what, where=where, hint=hint, kind="empty_segment", items=[str(i) for i in absent])
    dtype = np.int16 if len(segments) < 2**15 else np.int32
    index = np.repeat(place.astype(dtype), lengths).reshape(ids.shape)
    return index, tuple(s._replace(area=int(area)) for s, area in zip(segments, areas[1:], strict=True))


def _unlisted(ids: list[int], segments: Sequence[SegmentInfo], *, where: str) -> DataError:
    """The message for ids that only the mask has; recognises red and blue that changed places."""
    what = f"the mask has segment ids that the annotation file does not list: {examples(ids)}"
    turned = {(i & 255) << 16 | i & 0xFF00 | i >> 16 for i in ids}
    kind, hint = "unlisted_id", "list them in segments_info, or paint their pixels black (0, void)"
    if turned <= {s.segment_id for s in segments}:
        kind, hint = (
            "wrong_encoding",
            "red and blue changed places when the mask was saved (OpenCV writes BGR): swap them",
        )
    return DataError(what, where=where, hint=hint, kind=kind, items=[str(i) for i in ids])
