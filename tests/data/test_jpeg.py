"""JPEGs: with and without simplejpeg the same pixels, at every fraction; what it refuses goes to Pillow."""

from __future__ import annotations

import io
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from oneformer.data import decode, jpeg
from oneformer.errors import DataError

PHOTOS = sorted((Path(__file__).resolve().parents[2] / "samples" / "photos" / "images").iterdir())


def by_pillow(path: Path, reduce: int) -> np.ndarray:
    with mock.patch.object(decode, "decode_jpeg", lambda *_: None), decode.open_photo(path) as photo:
        return photo.pixels(reduce)


@pytest.mark.parametrize("reduce", [1, 2, 4, 8])
def test_both_decoders_give_the_same_pixels(reduce: int) -> None:
    pytest.importorskip("simplejpeg")
    for path in PHOTOS[:6]:
        with decode.open_photo(path) as photo:
            assert np.array_equal(photo.pixels(reduce), by_pillow(path, reduce))


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (7, 9), (1, 40)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_fraction_is_rounded_up(tmp_path: Path, size: tuple[int, int], mode: str) -> None:
    path = tmp_path / "a.jpg"
    Image.new(mode, size[::-1], 90).save(path)
    for reduce in (r for r in (2, 4, 8) if min(size) >= r):
        expected = (*(-(-side // reduce) for side in size), 3)
        with decode.open_photo(path) as photo:
            assert photo.size == size and photo.reducible
            assert photo.pixels(reduce).shape == by_pillow(path, reduce).shape == expected


@pytest.mark.parametrize("reduce", [1, 2])
def test_a_cut_off_file_is_named_with_either(tmp_path: Path, reduce: int) -> None:
    path = tmp_path / "cut.jpg"
    path.write_bytes(PHOTOS[0].read_bytes()[:-4000])
    with decode.open_photo(path) as photo, pytest.raises(DataError, match=r"cut\.jpg: the image file is broken"):
        photo.pixels(reduce)


def test_only_upright_photos_are_decoded_at_a_fraction(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.fromarray(np.arange(48 * 32 * 3, dtype=np.uint8).reshape(48, 32, 3)).save(path, exif=exif)
    with decode.open_photo(path) as photo:
        assert photo.size == (32, 48) and not photo.reducible
        assert np.array_equal(photo.pixels(), decode.read_image(path))


def test_colours_that_are_not_plain_go_to_pillow(tmp_path: Path) -> None:
    path = tmp_path / "cmyk.jpg"
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path)
    with decode.open_photo(path) as photo:
        assert not photo.reducible and np.array_equal(photo.pixels(), decode.read_image(path))


def test_a_photo_is_decoded_at_any_fraction_after_another_without_the_package() -> None:
    with mock.patch.object(jpeg, "simplejpeg", lambda: None), decode.open_photo(PHOTOS[0]) as photo:
        shapes = [photo.pixels(reduce).shape for reduce in (4, 1, 2)]
    assert shapes == [by_pillow(PHOTOS[0], reduce).shape for reduce in (4, 1, 2)]


def test_without_the_package_there_is_no_answer() -> None:
    with mock.patch.object(jpeg, "simplejpeg", lambda: None):
        assert jpeg.decode_jpeg(io.BytesIO(b""), (1, 1), 1) is None
