"""The `quantize` section as a request: which combinations exist, and which layers a pattern means."""

from __future__ import annotations

from typing import Any

import pytest

from oneformer.errors import UserErrors
from oneformer.quantize.request import NATIVE, SUPPORTED, Formats, Layer, understood
from oneformer.spec.quantize import QuantizeSpec

LAYERS = [
    Layer("task.mlp.layers.0", "Linear"),
    Layer("backbone.patch_embed.proj", "Conv2d"),
    Layer("backbone.layers.0.blocks.0.attn.qkv", "Linear"),
    Layer("pixel_decoder.layers.0.attn.sampling_offsets", "Linear"),
    Layer("decoder.layers.0.ffn.linear1", "Linear", ("decoder.layers.0.ffn.linear1/MatMul", "MatMul")),
    Layer("decoder.class_embed", "Linear"),
]


def chosen(**values: Any) -> dict[str, Formats]:
    return understood(QuantizeSpec(**values)).chosen(LAYERS)


def refused(**values: Any) -> str:
    with pytest.raises(UserErrors) as told:
        chosen(**values)
    return told.value.message


@pytest.mark.parametrize("pair", SUPPORTED)
def test_every_supported_pair_has_a_default_that_quantizes_something(pair: tuple[str, str]) -> None:
    backend, mode = pair
    found = chosen(backend=backend, mode=mode)
    assert list(found) == ["backbone.layers.0.blocks.0.attn.qkv", "decoder.layers.0.ffn.linear1"]
    assert all((f.activations == NATIVE) == (mode == "weight_only_ptq") for f in found.values())


def test_names_classes_and_taos_prefix_are_patterns_and_later_rules_win() -> None:
    rules = [
        {"module_name": "Linear", "weights": {"dtype": "int8"}},
        {"module_name": "model.decoder.*", "weights": {"dtype": "float8_e4m3fn"}},
        {"module_name": "decoder.class_embed", "weights": "native"},
    ]
    found = chosen(layers=rules, skip_names=["backbone.*"])
    assert found == {
        "task.mlp.layers.0": Formats("int8"),
        "pixel_decoder.layers.0.attn.sampling_offsets": Formats("int8"),
        "decoder.layers.0.ffn.linear1": Formats("fp8_e4m3fn"),
    }
    assert list(chosen(layers=[{"module_name": "MatMul"}])) == ["decoder.layers.0.ffn.linear1"]


def test_a_rule_without_a_name_is_for_the_default_set() -> None:
    found = chosen(layers=[{"weights": {"dtype": "int4"}}, {"module_name": "decoder.class_embed"}])
    assert found == {
        "backbone.layers.0.blocks.0.attn.qkv": Formats("int4"),
        "decoder.layers.0.ffn.linear1": Formats("int4"),
        "decoder.class_embed": Formats("int8"),
    }


def test_a_mode_that_rounds_activations_does_so_where_a_rule_does_not_say() -> None:
    assert chosen(mode="dynamic_ptq", layers=[{"module_name": "decoder.layers.*"}]) == {
        "decoder.layers.0.ffn.linear1": Formats("int8", "int8")
    }
    only_weights = [{"module_name": "decoder.layers.*", "activations": {"dtype": "native"}}]
    assert chosen(mode="dynamic_ptq", layers=only_weights) == {"decoder.layers.0.ffn.linear1": Formats("int8")}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"backend": "torchao", "mode": "static_ptq"}, "torchao has no mode static_ptq"),
        ({"backend": "onnxruntime"}, "onnxruntime has no mode weight_only_ptq"),
        ({"backend": "onnxruntime", "mode": "static_ptq", "algorithm": "awq_lite"}, "has no algorithm awq_lite"),
        ({"layers": ["backbone.*"]}, "a rule is a table"),
        ({"layers": [{"module_name": 3}]}, "a rule is a table"),
        ({"layers": [{"module_name": "x", "dtype": "int8"}]}, "no key 'dtype'"),
        ({"layers": [{"module_name": "Linear", "weights": {"dtype": "int2"}}]}, "no number format 'int2'"),
        ({"layers": [{"module_name": "Linear", "activations": "int8"}]}, "has no int8 activations"),
        (
            {"mode": "dynamic_ptq", "layers": [{"module_name": "Linear", "weights": "native"}]},
            "activations alone",
        ),
        ({"layers": [{"module_name": "encoder.*"}]}, "'encoder.*' fits no layer"),
        ({"skip_names": ["decoder.layers.0.fnn*"]}, "quantize.skip_names[0]"),
        ({"skip_names": ["*"]}, "no layer is left"),
    ],
)
def test_what_cannot_be_is_refused_in_words(values: dict[str, Any], said: str) -> None:
    assert said in refused(**values)


def test_an_algorithm_where_there_is_none_is_only_said_to_be_ignored(caplog: pytest.LogCaptureFixture) -> None:
    assert len(chosen(algorithm="entropy")) == 2
    assert "quantize.algorithm has no effect" in caplog.text


def test_all_faults_are_told_together_with_names_that_resemble() -> None:
    text = refused(layers=[{"module_name": "decoder.layers.0.fnn.linear1"}], skip_names=["nothing.*"])
    assert "[1/2]" in text and "[2/2]" in text and "decoder.layers.0.ffn.linear1" in text
