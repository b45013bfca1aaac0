"""Decoding: every pixel format opens right or is refused by name, broken files are named, ids come out exactly."""

from __future__ import annotations

import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oneformer.data.annotation import PanopticPng, read_annotated
from oneformer.data.decode import (
    image_size,
    index_map,
    open_photo,
    read_image,
    read_label_image,
    read_mask,
    read_panoptic,
)
from oneformer.data.record import Record, SegmentInfo, Source
from oneformer.errors import DataError
from tiny import ids_to_rgb


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def ramp(height: int = 20, width: int = 30) -> np.ndarray:
    """RGB pixels whose channels differ and which is not symmetric."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 5, columns * 4, rows + columns + 40], axis=-1).astype(np.uint8)


def test_rgb_png_comes_out_as_it_is(tmp_path: Path) -> None:
    path = save(Image.fromarray(ramp()), tmp_path / "a.png")
    assert np.array_equal(read_image(path), ramp()) and read_image(path).dtype == np.uint8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_photo_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    # How each orientation stores an upright photo (EXIF 2.3, tag 0x0112).
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](ramp())
    path = save(Image.fromarray(np.ascontiguousarray(stored)), tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(path), ramp())
    assert image_size(path) == (30, 20)


def test_grey_palette_and_bilevel_become_rgb(tmp_path: Path) -> None:
    grey = Image.fromarray(ramp()).convert("L")
    expected = np.repeat(np.asarray(grey)[..., None], 3, axis=-1)
    assert np.array_equal(read_image(save(grey, tmp_path / "l.png")), expected)
    palette = Image.fromarray(ramp()).quantize(16)
    assert np.array_equal(read_image(save(palette, tmp_path / "p.png")), np.asarray(palette.convert("RGB")))
    assert set(np.unique(read_image(save(grey.convert("1"), tmp_path / "1.png")))) == {0, 255}


def test_transparent_pixels_are_laid_over_white(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0] = (10, 20, 30, 255)
    pixels[1] = (10, 20, 30, 0)
    for name, image in {"rgba": Image.fromarray(pixels), "la": Image.fromarray(pixels[..., 2:], "LA")}.items():
        out = read_image(save(image, tmp_path / f"{name}.png"))
        assert (out[1] == 255).all() and out[0, 0, 2] == 30
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 50, 60, 70])
    palette.putdata([0, 1])
    out = read_image(save(palette, tmp_path / "p.png", transparency=0))
    assert out.tolist() == [[[255, 255, 255], [50, 60, 70]]]


def test_16_bit_grey_keeps_its_brightness(tmp_path: Path) -> None:
    grey = np.array([[0, 128, 257, 32768, 65535]], np.uint16)
    for suffix in ("png", "tif"):
        out = read_image(save(Image.fromarray(grey), tmp_path / f"deep.{suffix}"))
        assert out[0, :, 0].tolist() == [0, 0, 1, 128, 255], "0 to 65535 become 0 to 255"


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    out = read_image(save(image, tmp_path / "c.jpg", quality=95))
    assert out[4, 4, 0] > 200 and out[4, 4, 1:].max() < 60


@pytest.mark.parametrize("mode", ["F", "I"])
def test_32_bit_images_are_refused_by_name(tmp_path: Path, mode: str) -> None:
    path = save(Image.new(mode, (4, 4)), tmp_path / "deep.tif")
    with pytest.raises(DataError, match=rf"deep\.tif: the image's pixel format {mode} is not supported"):
        read_image(path)


def test_a_truncated_jpeg_is_named(tmp_path: Path) -> None:
    path = save(Image.fromarray(ramp(200, 300)), tmp_path / "cut.jpg")
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(DataError, match=r"cut\.jpg: the image file is broken: .*truncated(.|\n)*copy or download"):
        read_image(path)


@pytest.mark.parametrize("keep", [0, 4, 20, 40, 60])
def test_a_png_cut_anywhere_is_named(tmp_path: Path, keep: int) -> None:
    path = save(Image.fromarray(ramp()), tmp_path / "cut.png")
    path.write_bytes(path.read_bytes()[:keep])
    for read in (read_image, read_panoptic):
        with pytest.raises(DataError, match=r"cut\.png"):
            read(path)


def test_a_png_with_flipped_bytes_is_named(tmp_path: Path) -> None:
    path = save(Image.fromarray(ramp()), tmp_path / "bad.png")
    content = bytearray(path.read_bytes())
    content[60:80] = bytes(20)
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"bad\.png: the mask file is broken"):
        read_panoptic(path)


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.jpg"
    path.write_text("hello")
    with pytest.raises(DataError, match=r"text\.jpg: the image file is not an image of a known format"):
        read_image(path)
    with pytest.raises(DataError, match=r"gone\.jpg: the image file does not exist"):
        read_image(tmp_path / "gone.jpg")


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    # 60,000 x 60,000 pixels in a file of a few bytes: decoding would take gigabytes and then fail.
    path = save(Image.new("L", (4, 4)), tmp_path / "bomb.bmp")
    content = bytearray(path.read_bytes())
    content[18:26] = (60_000).to_bytes(4, "little") * 2
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"bomb\.bmp: the image has 60000 x 60000 pixels, more than the limit of 200"):
        read_image(path)
    small = save(Image.fromarray(ramp(100, 100)), tmp_path / "small.png")
    with pytest.raises(DataError, match=r"dataset\.max_image_mpx"):
        read_image(small, max_mpx=0.005)


def test_mask_colours_are_ids(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 255], [256, 65536, 2**24 - 1]], np.int32)
    rgb = Image.fromarray(ids_to_rgb(ids))
    opaque = rgb.convert("RGBA")
    for name, image in {"rgb": rgb, "rgba": opaque}.items():
        out = read_panoptic(save(image, tmp_path / f"{name}.png"))
        assert np.array_equal(out, ids) and out.dtype == np.int32


def test_grey_masks_hold_the_ids_themselves(tmp_path: Path) -> None:
    for dtype, values in ((np.uint8, [0, 7, 255]), (np.uint16, [0, 300, 65535])):
        path = save(Image.fromarray(np.array([values], dtype)), tmp_path / f"{np.dtype(dtype)}.png")
        assert read_panoptic(path).tolist() == [values]


def test_masks_that_cannot_hold_ids_are_refused(tmp_path: Path) -> None:
    palette = save(Image.fromarray(ramp()).quantize(8), tmp_path / "palette.png")
    with pytest.raises(DataError, match=r"palette\.png: the mask's pixel format P cannot hold segment ids"):
        read_panoptic(palette)
    clear = Image.fromarray(ramp()).convert("RGBA")
    clear.putalpha(100)
    with pytest.raises(DataError, match="pixel format RGBA"):
        read_panoptic(save(clear, tmp_path / "clear.png"))
    lossy = save(Image.fromarray(ramp()), tmp_path / "lossy.jpg")
    with pytest.raises(DataError, match=r"lossy\.jpg: the mask is a JPEG"):
        read_panoptic(lossy)


SEGMENTS = (SegmentInfo(70_000, 2, False, 0), SegmentInfo(5, 0, True, 0))


def test_ids_become_places_and_areas_are_counted() -> None:
    ids = np.array([[0, 5, 5], [70_000, 5, 0]], np.int32)
    index, segments = index_map(ids, SEGMENTS, where="mask.png")
    assert index.tolist() == [[0, 2, 2], [1, 2, 0]] and index.dtype == np.int16
    assert [s.area for s in segments] == [1, 3]


def test_ids_missing_on_either_side_are_named() -> None:
    with pytest.raises(DataError, match=r"mask\.png: the mask has segment ids .* does not list: 8, 70001"):
        index_map(np.array([[5, 8, 70_000, 70_001]], np.int32), SEGMENTS, where="mask.png")
    with pytest.raises(DataError, match=r"mask\.png: .* segment ids without a pixel in the mask: 5"):
        index_map(np.array([[0, 70_000]], np.int32), SEGMENTS, where="mask.png")


def record(image: Path, mask: Path, size: tuple[int, int] = (30, 20)) -> Record:
    return Record(1, str(image), str(mask), size[0], size[1], (), Source("coco_panoptic", PanopticPng()))


def test_a_mask_of_another_size_is_named_with_both(tmp_path: Path) -> None:
    image = save(Image.fromarray(ramp()), tmp_path / "photo.png")
    mask = save(Image.new("RGB", (29, 20)), tmp_path / "mask.png")
    with pytest.raises(DataError, match=r"photo\.png: the photo is 30 x 20, its mask .*mask\.png is 29 x 20"):
        read_annotated(record(image, mask))


def test_a_photo_turned_by_exif_beside_an_unturned_mask_is_explained(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = save(Image.fromarray(ramp()), tmp_path / "photo.jpg", exif=exif)
    mask = save(Image.new("RGB", (30, 20)), tmp_path / "mask.png")
    with pytest.raises(DataError, match="turned by its EXIF orientation"):
        read_annotated(record(image, mask))
    turned = save(Image.new("RGB", (20, 30)), tmp_path / "turned.png")
    photo, labelled = read_annotated(record(image, turned))
    assert photo.size == (20, 30) and labelled.index.shape == (30, 20)


def test_a_wrong_size_in_the_annotation_file_is_named(tmp_path: Path) -> None:
    image = save(Image.fromarray(ramp()), tmp_path / "photo.png")
    mask = save(Image.new("RGB", (30, 20)), tmp_path / "mask.png")
    with pytest.raises(DataError, match=r"the photo is 30 x 20, the annotation file says 64 x 64"):
        read_annotated(record(image, mask, (64, 64)))


def huge(path: Path, *, side: int = 60_000) -> Path:
    """A PNG of a few hundred kilobytes that decodes to ten gigabytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    packed = zlib.compressobj(9)
    rows = b"".join(packed.compress(bytes(1 + 3 * side)) for _ in range(300)) + packed.flush()
    parts = chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def test_a_huge_png_costs_neither_time_nor_memory(tmp_path: Path) -> None:
    path = huge(tmp_path / "bomb.png")
    tracemalloc.start()
    start = time.process_time()
    for read in (read_image, read_panoptic, read_label_image, read_mask):
        with pytest.raises(DataError, match=r"bomb\.png: the image has 60000 x 60000 pixels"):
            read(path)
    with pytest.raises(DataError, match="60000 x 60000"), open_photo(path):
        pass
    assert image_size(path) == (60_000, 60_000), "told by the header alone"
    assert time.process_time() - start < 1.0 and tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp", "gif"])
def test_files_cut_anywhere_are_named_or_read(tmp_path: Path, suffix: str) -> None:
    """No error of Pillow's gets out, wherever a file ends."""
    whole = save(Image.fromarray(ramp(40, 50)), tmp_path / f"whole.{suffix}").read_bytes()
    path = tmp_path / f"cut.{suffix}"
    refused = 0
    for keep in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:keep])
        try:
            with open_photo(path) as photo:
                assert photo.pixels().shape == (40, 50, 3)
        except DataError as error:
            refused += 1
            assert "cut." in str(error.where)
    assert refused > 20


def test_a_fault_of_the_caller_is_not_taken_for_a_broken_file(tmp_path: Path) -> None:
    path = save(Image.fromarray(ramp()), tmp_path / "a.png")
    with pytest.raises(ValueError, match="mine"), open_photo(path):
        raise ValueError("mine")


def test_photos_know_their_size_before_they_are_decoded(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, options in {"a.jpg": {"exif": exif}, "a.png": {"exif": exif}, "b.jpg": {}, "b.webp": {}}.items():
        path = save(Image.fromarray(ramp()), tmp_path / name, **options)
        with open_photo(path) as photo:
            assert photo.size == photo.pixels().shape[:2] == ((30, 20) if options else (20, 30))
            assert np.array_equal(photo.pixels(), read_image(path))
