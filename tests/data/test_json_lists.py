"""Large JSON files are read item by item: the same values, the same words for what is wrong, and no memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oneformer.data import json_lists
from oneformer.data.files import read_json
from oneformer.data.formats import iter_records
from oneformer.data.json_lists import Items, LargeObject, listed, read_object
from oneformer.data.labels import collect_labels
from oneformer.errors import DataError, UserError
from oneformer.spec.data import DatasetSpec
from tiny import TinyDataset

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@pytest.fixture(autouse=True)
def all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is taken for a large one, seen through a window of a few signs."""
    monkeypatch.setattr(json_lists, "LARGE", 1)
    monkeypatch.setattr(json_lists, "WINDOW", 16)


def plain(content: Any, names: list[str]) -> dict[str, Any]:
    return {name: list(v) if isinstance(v := content.get(name), Items) else v for name in names}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.dictionaries(st.text(max_size=6), VALUES, max_size=5), data=st.data())
def test_values_are_those_of_the_whole_file(tmp_path_factory: Any, value: dict[str, Any], data: st.DataObject) -> None:
    file = tmp_path_factory.mktemp("json") / "a.json"
    mark = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    text = json.dumps(value, indent=data.draw(st.sampled_from([None, 1])), ensure_ascii=data.draw(st.booleans()))
    file.write_bytes(mark + text.encode("utf-8", "surrogatepass"))
    try:
        expected = read_json(file, what="file")
    except DataError as error:  # half a surrogate pair is no UTF-8
        with pytest.raises(DataError) as told:
            read_object(file, what="file")
        assert told.value.message == error.message
        return
    found = read_object(file, what="file")
    assert isinstance(found, LargeObject)
    assert plain(found, list(value)) == expected
    assert found.get("no such name") is None
    for name, inner in value.items():
        assert (listed(found, name) is not None) == isinstance(inner, list)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, 2', '{"a": [1 2]}', '{"a": [1,]}', '{"a": 1} x', '{"a": 1, "a": 2}', "[1]", "3", "", '{"a": "\n"}',
        '{"a": [1], }', "{a: 1}", '{"a": nul}', '{"a": [{"b": "é', '{"a" [1]}', '{"a": 1 "b": 2}', '["a"', "{", '{"a": [[[',
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_as_for_small_files(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(text, encoding="utf-8")

    def outcome(read: Callable[..., Any]) -> Any:
        try:
            return read(file, what="annotation file")
        except UserError as error:
            return error.message

    assert outcome(read_object) == outcome(read_json)


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b'{"a": ["\xff\xfe"]}')
    with pytest.raises(DataError, match="not UTF-8"):
        read_object(file, what="annotation file")


def test_a_file_that_changes_while_it_is_read_is_told(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"a": list(range(10_000))}))
    items = iter(read_object(file, what="file").get("a"))
    assert next(items) == 0
    file.write_text("x" * 100_000)
    with pytest.raises(DataError, match="changed while it was read"):
        list(items)
    with pytest.raises(DataError, match="changed while it was read"):
        list(Items(str(tmp_path / "none"), 0))


def everything(dataset: DatasetSpec) -> tuple[Any, ...]:
    errors: list[UserError] = []
    warnings: list[DataError] = []
    labels = collect_labels(dataset, errors=errors)
    assert labels is not None
    records = list(iter_records(dataset, "train", labels, errors=errors, warnings=warnings))
    return labels, records, [e.message for e in errors], [w.message for w in warnings]


def test_records_and_faults_are_the_same(
    broken: TinyDataset, section: Any, edit_json: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edit(content: Any) -> None:
        content["annotations"].append({**content["annotations"][0], "id": 7})
        content["annotations"].append(content["annotations"][1] | {"id": 7, "image_id": 999})
        content["images"].append({"id": 5, "file_name": "none.png"})
        content["annotations"][2]["segments_info"][0]["category_id"] = 77

    edit_json(broken.annotations, edit)
    large = everything(section(broken))
    monkeypatch.setattr(json_lists, "LARGE", 1 << 40)
    small = everything(section(broken))
    assert large == small
    assert len(large[1]) == 3 and len(large[2]) >= 3


def test_memory_does_not_grow_with_the_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lists, "WINDOW", 1 << 16)
    file = tmp_path / "a.json"
    entry = json.dumps({"file_name": "x" * 40, "segments_info": [{"id": i, "area": i} for i in range(20)]})
    file.write_text('{"annotations": [' + ",".join([entry] * 5000) + "]}")
    tracemalloc.start()
    try:
        assert sum(1 for _ in listed(read_object(file, what="file"), "annotations") or ()) == 5000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < file.stat().st_size / 4 < 1 << 20
