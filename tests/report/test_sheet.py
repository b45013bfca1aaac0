"""The page of tables and pictures: complete, self-contained, and safe against names from strangers."""

from __future__ import annotations

import re

from PIL import Image

from oneformer.report.sheet import Pictures, Sheet, Table, render


def picture() -> Image.Image:
    return Image.new("RGB", (60, 40), "orange")


def page(name: str = "a cell") -> str:
    rows = [(name, 12345, 0.5), ("other", 7, None)]
    table = Table("Classes", ("class", "objects", "share"), rows, note="a note", colors=[(1, 2, 3), (4, 5, 6)])
    shown = Pictures(name, "train", [("photo", picture()), (name, picture())], note="why")
    return render(Sheet("over", "The title", [("images", "3")], [table, Table("Empty", ("a",), [])], pictures=[shown]))


def test_everything_is_on_the_page() -> None:
    text = page()
    assert "<title>The title</title>" in text and "<dt>images</dt><dd>3</dd>" in text
    assert (
        '<td data-value="12345">12,345</td>' in text
        and '<td data-value="0.5">0.50</td>' in text
        and "<td>-</td>" in text
    )
    assert text.count('class="swatch" style="background:') == 2 and "Empty" not in text
    assert text.count("data:image/jpeg;base64,") == 2 and "a note" in text and "why" in text
    assert re.findall(r'<th scope="col" data-kind="(\w+)"', text) == ["text", "number", "number"]


def test_words_stand_to_the_left_and_long_ones_are_broken() -> None:
    long = "the photo is 480 x 360, its mask is 100 x 100"
    text = render(Sheet("over", "title", tables=[Table("t", ("kind", "count", "what"), [("size", 3, long)])]))
    assert '<td class="text">size</td><td data-value="3">3</td>' in text
    assert f'<td class="text long">{long}</td>' in text and '<table class="classes told">' in text
    assert '<table class="classes">' in page()


def test_names_cannot_run_or_load_anything() -> None:
    text = page('<script>alert("x")</script>"\'&')
    assert "<script>alert" not in text and "&lt;script&gt;" in text
    assert re.search(r"script-src 'sha256-[^']+'", text) and "default-src 'none'" in text
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
