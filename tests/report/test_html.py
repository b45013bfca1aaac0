"""Claims about the report page: complete, self-contained, small, and safe against names made by strangers."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from oneformer.report.html import Case, Page, render
from report.test_tables import SCORES

EVIL = '<script>alert("x")</script>'


def picture(size: tuple[int, int] = (64, 48), seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def page(**changes: object) -> Page:
    case = Case(EVIL, 12.5, picture(), picture(seed=1), picture(seed=2))
    parts = {
        "title": "best.pth on val", "facts": [("data", EVIL)], "scores": SCORES,
        "classes": {"disk": (True, (220, 60, 40)), "sky": (False, (90, 150, 230))},
        "series": {"train_loss": [(1, 5.0), (2, 4.0)]}, "best": [case], "worst": [case], "spec": EVIL,
        "versions": {"torch": "2"},
    }  # fmt: skip
    return Page(**(parts | changes))  # type: ignore[arg-type]


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "line", "polyline", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "polyline", "circle"):
            assert self.open.pop() == tag


def test_the_page_is_well_formed_and_has_every_part() -> None:
    reader = Reader()
    text = render(page())
    reader.feed(text)
    assert reader.open == []
    assert sum(tag == "img" for tag, _ in reader.tags) == 6
    assert "78.1" in text and "35.2" in text and "polyline" in text and "Worst" in text and "Best" in text


def test_nothing_is_loaded_from_outside() -> None:
    reader = Reader()
    reader.feed(render(page()))
    for tag, attributes in reader.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "srcset", "action"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    assert "@import" not in render(page()) and "url(" not in render(page())


def test_names_made_by_strangers_cannot_run() -> None:
    scores = {
        "semantic": {"mIoU": 1.0, "per_class": {EVIL: {"IoU": 1.0}, '"><img src=x onerror=alert(1)>': {"IoU": 2.0}}}
    }
    text = render(page(scores=scores, title=EVIL, score_name=EVIL, versions={EVIL: EVIL}))
    assert text.count("<script>") == 1
    reader = Reader()
    reader.feed(text)
    assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)
    assert "script-src 'sha256-" in text


def test_pictures_are_shrunk_until_the_page_is_small() -> None:
    cases = [Case(f"{i}", float(i), *(picture((1200, 900), seed=3 * i + j) for j in range(3))) for i in range(12)]
    text = render(page(worst=cases, best=[]))
    assert len(text) < 5_000_000
    assert len(re.findall("<img ", text)) >= 9


@pytest.mark.parametrize(
    "empty", [{"scores": {}}, {"best": (), "worst": ()}, {"series": {}}, {"spec": "", "versions": {}}]
)
def test_empty_parts_are_left_out(empty: dict[str, object]) -> None:
    reader = Reader()
    reader.feed(render(page(**empty)))
    assert reader.open == []


def test_an_image_without_a_score_says_so() -> None:
    assert "not scored" in render(page(best=[Case("a", None, picture(), picture(), picture())]))
