"""Names of the data sets of a list: what is given, or the folder they lie in; no two the same."""

from __future__ import annotations

import pytest

from oneformer.data.formats.part import set_names


@pytest.mark.parametrize(
    ("paths", "given", "names"),
    [
        (["a/city/x.json", "a/farm/x.json"], [], ["city", "farm"]),
        (["s3://b/city/x.json?sig=1", "gtFine/val"], [], ["city", "val"]),
        (["city/x.json", "city/y.json"], [], ["city", "city_1"]),
        (["x.json", "/y.json"], [], ["dataset", "dataset_1"]),
        (["a/x.json", "b/x.json"], ["one", "two"], ["one", "two"]),
        (["a/x.json", "b/x.json"], ["both"], ["both", "both_1"]),
        (["../x.json", "./x.json"], [], ["dataset", "dataset_1"]),
    ],
)
def test_names(paths: list[str], given: list[str], names: list[str]) -> None:
    assert set_names(paths, given) == names
