"""Claims about the plain-text tables."""

from __future__ import annotations

from oneformer.report.tables import align, class_rows, per_class, shorten, summary, width

SCORES = {
    "semantic": {
        "mIoU": 78.1234,
        "fwIoU": 80.0,
        "mAcc": None,
        "pAcc": 95.5,
        "per_class": {"disk": {"IoU": 50.0}, "sky": {"IoU": None}},
    },
    "panoptic": {
        "all": {"PQ": 45.2, "SQ": 80.0, "RQ": 50.0},
        "things": {"PQ": 35.2, "SQ": 80.0, "RQ": 50.0},
        "stuff": {"PQ": None, "SQ": None, "RQ": None},
        "per_class": {"disk": {"PQ": 1.0, "SQ": 2.0, "RQ": 3.0}, "sky": {"PQ": None, "SQ": None, "RQ": None}},
    },
    "instance": None,
}


def test_the_summary_names_each_scored_task_and_no_other() -> None:
    text = summary(SCORES)
    assert "78.12" in text and "45.20" in text
    assert "mIoU" in text and "PQ" in text and "AP" not in text


def test_a_missing_value_is_a_dash() -> None:
    row = next(line for line in summary(SCORES).splitlines() if line.startswith("stuff"))
    assert row.split() == ["stuff", "-", "-", "-"]


def test_columns_without_any_value_are_left_out_per_class() -> None:
    lines = per_class(SCORES, is_thing={"disk": True, "sky": False}).splitlines()
    assert lines[0].split() == ["class", "kind", "IoU", "PQ", "SQ", "RQ"]
    assert lines[2].split() == ["disk", "thing", "50.00", "1.00", "2.00", "3.00"]
    assert lines[3].split() == ["sky", "stuff", "-", "-", "-", "-"]


def test_rows_of_the_tasks_are_joined_by_class() -> None:
    rows = class_rows(SCORES)
    assert [r.name for r in rows] == ["disk", "sky"]
    assert rows[0].values["IoU"] == 50.0 and rows[0].values["PQ"] == 1.0
    assert rows[0].isthing is None


def test_every_line_of_a_table_ends_its_columns_at_the_same_place() -> None:
    table = align(("name", "a", "bb"), [("木木", "1.00", "-"), ("xyz", "100.00", "2")])
    head, rule, first, second = table.splitlines()
    assert width(head) == width(rule) == width(first) == width(second)


def test_long_names_end_in_an_ellipsis_and_control_characters_are_shown() -> None:
    assert shorten("a" * 40, 10) == "aaaaaaaaa…"
    assert width(shorten("木" * 40, 10)) <= 10
    assert shorten("evil\x1b[31m") == "evil?[31m"


def test_nothing_scored_is_an_empty_table() -> None:
    assert per_class({"semantic": None}) == ""
    assert summary({}) == ""
