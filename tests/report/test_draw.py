"""Claims about the pictures: what is coloured, what stays, what is written, and that every run draws the same."""

from __future__ import annotations

import time

import numpy as np
import pytest

from oneformer.data.labels import LabelMap
from oneformer.report import draw
from oneformer.report.color import css, instance_colors, luminance
from oneformer.report.place import font_px, page_font_px, place, printable

LABELS = LabelMap(
    names=("disk", "sky", "box", "ground"),
    is_thing=(True, False, True, False),
    colors=((220, 60, 40), (90, 150, 230), (240, 200, 40), (70, 140, 70)),
    category_ids=(2, 5, 6, 11),
)


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)


def test_pixels_without_a_segment_keep_the_photo(photo: np.ndarray) -> None:
    ids = np.zeros((200, 300), np.int32)
    ids[50:150, 100:200] = 7
    picture = np.asarray(draw.panoptic(photo, ids, {7: 0}, LABELS).image)
    assert (picture[ids == 0] == photo[ids == 0]).all()
    assert (picture[ids == 7] != photo[ids == 7]).any(axis=-1).mean() > 0.95


def test_a_segment_is_the_even_mix_of_photo_and_class_colour(photo: np.ndarray) -> None:
    class_map = np.full((200, 300), 1)
    picture = np.asarray(draw.semantic(photo, class_map, LABELS).image).astype(float)
    wanted = (photo.astype(float) + np.array(LABELS.colors[1])) / 2
    apart = np.abs(picture - wanted).max(axis=2)
    assert (apart <= 1).mean() > 0.97, "all but its name"


def test_the_picture_has_the_size_of_the_photo_and_is_the_same_every_time(photo: np.ndarray) -> None:
    ids = np.arange(200 * 300).reshape(200, 300) // 15000 + 1
    first, second = (draw.panoptic(photo, ids, {1: 0, 2: 0, 3: 2, 4: 1}, LABELS) for _ in range(2))
    assert first.image.size == (300, 200)
    assert first.image.tobytes() == second.image.tobytes()


@pytest.mark.parametrize("number", [3, 16_777_215])
def test_large_segment_ids_are_drawn_like_small_ones(photo: np.ndarray, number: int) -> None:
    ids = np.zeros((200, 300), np.int32)
    ids[20:180, 20:280] = number
    small = np.where(ids, 1, 0)
    assert (
        draw.panoptic(photo, ids, {number: 1}, LABELS).image.tobytes()
        == draw.panoptic(photo, small, {1: 1}, LABELS).image.tobytes()
    )


def test_void_and_foreign_class_ids_of_a_semantic_map_stay_clear(photo: np.ndarray) -> None:
    class_map = np.full((200, 300), 255)
    class_map[:, 150:] = -1
    assert draw.semantic(photo, class_map, LABELS).image.tobytes() == photo.tobytes()


def test_a_crowd_is_drawn_grey_and_without_a_label(photo: np.ndarray) -> None:
    ids = np.ones((200, 300), np.int32)
    drawing = draw.panoptic(photo, ids, {1: -1}, LABELS)
    assert (drawing.labels_written, drawing.labels_left_out) == (0, 0)
    assert (
        np.abs(np.asarray(drawing.image).astype(float)[100, 100] - (photo[100, 100].astype(float) + 128) / 2).max() <= 1
    )


def test_large_segments_carry_their_name_and_small_ones_are_counted() -> None:
    photo = np.zeros((256, 256, 3), np.uint8)
    ids = np.ones((256, 256), np.int32)
    rows, columns = np.mgrid[:256, :256]
    for i in range(80):  # as many nuclei as a busy microscope image holds
        y, x = 15 + 28 * (i // 9), 15 + 28 * (i % 9)
        ids[(rows - y) ** 2 + (columns - x) ** 2 < 36] = i + 2
    ids[200:] = 1
    drawing = draw.panoptic(photo, ids, {1: 3} | dict.fromkeys(np.unique(ids[ids > 1]).tolist(), 0), LABELS)
    assert drawing.labels_written == 1
    assert drawing.labels_left_out == len(np.unique(ids)) - 1


def test_a_class_with_many_segments_is_named_on_its_largest_ones() -> None:
    photo = np.zeros((600, 800, 3), np.uint8)
    ids = (np.arange(600)[:, None] // 200 * 3 + np.minimum(np.arange(800)[None] // 200, 2) + 1).astype(np.int32)
    drawing = draw.panoptic(photo, ids, dict.fromkeys(range(1, 10), 0), LABELS)
    assert (drawing.labels_written, drawing.labels_left_out) == (6, 3)
    classes = {i: (0, 1, 2)[i % 3] for i in range(1, 10)}
    assert draw.panoptic(photo, ids, classes, LABELS).labels_written == 9


def test_a_label_lies_on_its_own_segment() -> None:
    index = np.zeros((240, 320), np.int32)
    index[:, 160:] = 1
    places, left_out = place(index, ["left", "right"], size_px=14)
    assert left_out == 0
    assert {p.text: index[round(p.center[1]), round(p.center[0])] for p in places} == {"left": 0, "right": 1}


def test_letters_on_a_page_have_one_size_whatever_the_picture(photo: np.ndarray) -> None:
    assert [page_font_px(width) for width in (100, 360, 720)] == [12, 12, 24]
    small, large = (draw.semantic(photo, np.ones((200, 300), int), LABELS, look=draw.Look(size_px=s)) for s in (12, 40))
    assert np.asarray(small.image).tobytes() != np.asarray(large.image).tobytes()
    assert small.labels_written == large.labels_written == 1


def test_the_letter_size_follows_the_photo() -> None:
    assert font_px(256, 256) == 10
    assert font_px(2000, 3000) > 2 * font_px(800, 1200) - 2


@pytest.mark.parametrize(
    ("name", "written"), [("Straße", "#4"), ("café", "cafe"), ("木", "#4"), ("a\nb", "a b"), ("", "#4")]
)
def test_names_the_font_cannot_write_are_replaced(name: str, written: str) -> None:
    assert printable(name, "#4") == written


def test_the_best_of_two_overlapping_instances_lies_on_top(photo: np.ndarray) -> None:
    masks = np.zeros((2, 200, 300), bool)
    masks[0, 40:160, 40:260] = masks[1, 40:160, 40:260] = True
    top = draw.instances(photo, masks, [0, 2], LABELS, scores=[0.3, 0.9]).image
    alone = draw.instances(photo, masks[1:], [2], LABELS, scores=[0.9]).image
    assert top.tobytes() == alone.tobytes()


def test_instances_below_the_score_limit_are_not_drawn(photo: np.ndarray) -> None:
    masks = np.ones((1, 200, 300), bool)
    assert (
        draw.instances(photo, masks, [0], LABELS, scores=[0.3], look=draw.Look(min_score=0.5)).image.tobytes()
        == photo.tobytes()
    )


def test_nothing_to_draw_is_the_photo_itself(photo: np.ndarray) -> None:
    assert draw.panoptic(photo, np.zeros((200, 300), np.int32), {}, LABELS).image.tobytes() == photo.tobytes()
    assert draw.instances(photo, np.zeros((0, 200, 300), bool), [], LABELS).image.tobytes() == photo.tobytes()


def test_things_of_one_class_differ_and_stuff_does_not() -> None:
    colors = instance_colors([0, 0, 0, 1, 1], LABELS.colors, LABELS.is_thing)
    assert len({tuple(c) for c in colors[:3]}) == 3
    assert tuple(colors[3]) == tuple(colors[4]) == LABELS.colors[1]


def test_the_legend_wraps_and_keeps_its_width() -> None:
    entries = [(f"a rather long class name {i}", (i, 200, 90)) for i in range(12)]
    narrow, wide = draw.legend(entries, width=220), draw.legend(entries, width=2000)
    assert (narrow.width, wide.width) == (220, 2000)
    assert narrow.height > 3 * wide.height


def test_colours_as_text_and_brightness() -> None:
    assert css((255, 0, 16)) == "#ff0010"
    assert luminance((255, 255, 255)) == pytest.approx(1)
    assert luminance((0, 255, 0)) > luminance((0, 0, 255))


def test_a_twelve_megapixel_photo_is_drawn_in_seconds() -> None:
    photo = np.zeros((3000, 4000, 3), np.uint8)
    ids = (np.arange(3000)[:, None] // 300 * 10 + np.arange(4000)[None] // 400 + 1).astype(np.int32)
    start = time.perf_counter()
    drawing = draw.panoptic(photo, ids, dict.fromkeys(range(1, 101), 0), LABELS)
    assert time.perf_counter() - start < 20  # about 1 s; a loop over pixels would take minutes
    assert drawing.labels_written == 6
    assert drawing.labels_left_out == 94
