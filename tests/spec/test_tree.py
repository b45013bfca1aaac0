"""Sections <-> plain dictionaries, and what each field carries."""

from __future__ import annotations

import json

import pytest

from oneformer.errors import UserErrors
from oneformer.spec import ExperimentSpec, ModelSpec, OptimSpec
from oneformer.spec.check import value_of
from oneformer.spec.load import load_spec
from oneformer.spec.node import Mark, plain_node
from oneformer.spec.tree import from_dict, leaves, sections, to_dict
from oneformer.spec.write import value_text


def test_a_section_survives_being_stored_as_json() -> None:
    spec = load_spec(None, ["preset=nano", "model.one_former.dropout=0.25"], action="train").model
    assert from_dict(ModelSpec, json.loads(json.dumps(to_dict(spec)))) == spec


def test_a_stored_section_without_a_newer_key_takes_its_default() -> None:
    stored = to_dict(ModelSpec())
    del stored["sem_seg_head"]["mask_position"]
    assert from_dict(ModelSpec, stored) == ModelSpec()


def test_a_stored_section_with_unknown_keys_or_wrong_values_is_refused_by_name() -> None:
    with pytest.raises(UserErrors) as caught:
        from_dict(OptimSpec, {"lr": "fast", "lrr": 3}, where="model.pth")
    assert [e.where for e in caught.value.errors] == ["model.pth", "model.pth"]
    assert "did you mean lr?" in caught.value.message


def test_to_dict_gives_copies() -> None:
    spec = ExperimentSpec()
    to_dict(spec)["train"]["gpu_ids"].append(5)
    assert spec.train.gpu_ids == [0]


def test_every_key_says_what_it_means() -> None:
    assert [key for key, leaf in leaves().items() if not leaf.doc.endswith(".")] == []


def test_every_default_is_allowed() -> None:
    for key, leaf in leaves().items():
        assert value_of(plain_node(leaf.default, Mark("default")), leaf) == leaf.default, key


def test_every_section_says_what_it_means() -> None:
    assert [key for key, (_, doc) in sections().items() if not doc] == []


def test_values_are_written_so_that_every_yaml_reader_agrees() -> None:
    assert value_text(1e-05) == "1.0e-05"
    assert value_text("no") == '"no"'
    assert value_text("1e5") == '"1e5"'
    assert value_text([1.5, None, True, "a"]) == "[1.5, null, true, a]"
    assert value_text(float("inf")) == ".inf"
