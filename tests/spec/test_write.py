"""A spec written as YAML loads again to the same spec, whatever its values."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneformer.spec import ExperimentSpec
from oneformer.spec.field import Tao
from oneformer.spec.load import load
from oneformer.spec.node import parse_yaml
from oneformer.spec.tree import leaves, sections
from oneformer.spec.unread import UNREAD, reason
from oneformer.spec.write import to_yaml, value_text


def test_the_written_defaults_load_again_without_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(to_yaml(ExperimentSpec()), encoding="utf-8")
    loaded = load(file, action="train")
    assert loaded.spec == ExperimentSpec()
    assert loaded.warnings == []
    assert set(loaded.set_keys) == set(leaves())


def test_the_written_defaults_say_what_each_key_means() -> None:
    text = " ".join(line.strip(" #") for line in to_yaml(ExperimentSpec()).splitlines())
    acting = [leaf for leaf in leaves().values() if not reason(leaf.key)]
    assert [leaf.key for leaf in acting if leaf.doc.rstrip(".") not in text] == []


def test_no_line_of_the_written_defaults_is_long() -> None:
    assert max(len(line) for line in to_yaml(ExperimentSpec()).splitlines()) <= 120


def test_comments_can_be_left_out() -> None:
    text = to_yaml(ExperimentSpec(), comments=False)
    assert "#" not in text
    assert len(text.splitlines()) == len(leaves()) + len(sections())


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(values)
@settings(max_examples=150, deadline=None)
def test_any_value_survives_being_written_and_read(value: object) -> None:
    text = value_text(value)
    node = parse_yaml(text, "test")
    assert node.plain() == value


@pytest.mark.parametrize("key", UNREAD)
def test_every_entry_without_effect_is_a_key_or_section(key: str) -> None:
    assert any(k == key or k.startswith(f"{key}.") for k in leaves())


def test_a_key_without_effect_gives_one_warning_that_names_it() -> None:
    loaded = load(None, ["dataset.workers=3", "model_name=mine", "train.num_epochs=3"], action="train")
    assert [w.split()[0] for w in loaded.warnings] == ["dataset.workers", "model_name"]
    assert all("has no effect:" in w for w in loaded.warnings)


def test_a_key_that_the_chosen_pixel_decoder_does_not_read_gives_a_warning() -> None:
    head = "model.sem_seg_head."
    said = [f"{head}num_points=2", f"{head}dim_feedforward=256", f"{head}in_features=[res5, res4, res3, res2]"]
    for name, warned in (
        ("MSDeformAttnPixelDecoder", []),
        ("TransformerEncoderPixelDecoder", ["num_points"]),
        ("BasePixelDecoder", ["num_points", "dim_feedforward"]),
    ):
        loaded = load(None, [f"{head}pixel_decoder_name={name}", *said], action="train")
        assert [w.split()[0] for w in loaded.warnings] == [head + key for key in warned]


def test_a_key_of_another_backbone_than_the_chosen_gives_a_warning() -> None:
    words = ["model.backbone.name=resnet50", "model.backbone.swin.window_size=7", "model.backbone.resnet.depth=101"]
    (warning,) = load(None, words, action="train").warnings
    assert warning == "model.backbone.swin.window_size has no effect: the backbone is resnet (model.backbone.name)"
    assert load(None, ["preset=swin_t", "model.backbone.name=resnet50"], action="train").warnings == []


def test_only_keys_of_tao_are_without_effect_and_each_has_its_reason() -> None:
    idle = {key for key in leaves() if reason(key)}
    marks = {key: [m for m in leaves()[key].marks if isinstance(m, Tao)] for key in idle}
    assert [key for key, found in marks.items() if not found] == []
    assert len(idle) < 25 and all(len(why.split()) > 3 for why in UNREAD.values())


def test_the_published_spelling_of_no_normalisation_is_understood() -> None:
    assert load(None, ['model.sem_seg_head.norm=""'], action="train").spec.model.sem_seg_head.norm == "none"


def test_a_key_without_effect_at_its_default_gives_no_warning() -> None:
    assert load(None, ["dataset.workers=8", "quantize.backend_kwargs=null"], action="train").warnings == []
