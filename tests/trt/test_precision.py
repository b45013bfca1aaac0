"""Which product is computed in which precision: the data type, the parts that are kept, and the user's rules."""

from __future__ import annotations

from typing import Any

import pytest

from oneformer.errors import UserError
from oneformer.trt.precision import counts, precisions
from trt.small_graph import small_model

ATTENTION = "decoder.layers.0.attn/MatMul"
OUT = "decoder.layers.0.out/MatMul"


@pytest.mark.parametrize("data_type", ["fp16", "bf16"])
def test_sixteen_bits_reach_every_product_but_the_task(data_type: str) -> None:
    found = precisions(small_model(), data_type, [])
    assert found.pop("task.mlp.0/MatMul") == "fp32"
    assert set(found.values()) == {data_type} and len(found) == 6


def test_eight_bits_reach_products_with_a_weight_outside_the_decoder() -> None:
    found = precisions(small_model(), "int8", [])
    assert counts(found) == {"fp32": 1, "fp16": 4, "int8": 2}
    assert found["stem/Conv"] == found["class_embed/MatMul"] == "int8"
    assert found[OUT] == found["masks/MatMul"] == "fp16"
    found = precisions(small_model(), "fp8", [])
    assert counts(found) == {"fp32": 1, "fp16": 5, "fp8": 1} and found["class_embed/MatMul"] == "fp8"


def test_a_rule_takes_8_bits_further_where_a_weight_is() -> None:
    found = precisions(small_model(), "int8", ["decoder:int8"])
    assert found[OUT] == "int8"
    assert found[ATTENTION] == "fp16", "two results are multiplied, none of them is known beforehand"


@pytest.mark.parametrize(
    "rule",
    [f"{OUT}:fp32", "decoder.layers.0.out:fp32", "*.out/*:fp32", "decoder.layers.0.out/MatMul: FP32 ", {OUT: "fp32"}],
)
def test_a_rule_names_a_product_a_part_or_a_pattern(rule: Any) -> None:
    found = precisions(small_model(), "fp16", [rule])
    assert found[OUT] == "fp32" and found[ATTENTION] == "fp16"


def test_the_last_rule_wins_and_even_kept_parts_obey() -> None:
    found = precisions(small_model(), "fp16", ["decoder.layers.0:bf16", f"{ATTENTION}:fp32", "task.mlp*:fp16"])
    assert (found[ATTENTION], found[OUT], found["task.mlp.0/MatMul"]) == ("fp32", "bf16", "fp16")


def test_a_part_is_no_beginning_of_a_word() -> None:
    with pytest.raises(UserError, match="no product"):
        precisions(small_model(), "fp16", ["decoder.layers.0.ou:fp32"])


def test_all_wrong_rules_are_told_at_once() -> None:
    with pytest.raises(UserError) as told:
        precisions(small_model(), "fp16", ["stem:fp64", "stem", ":fp16", 3])
    assert told.value.message.count("is no layer with a precision") == 4 and "fp8" in told.value.message
    with pytest.raises(UserError) as told:
        precisions(small_model(), "fp16", ["/post_processor/Mul:fp32", "decoder.layers.1:fp32", f"{ATTENTION}:int8"])
    assert "'decoder.layers.1'" in told.value.message and "decoder.layers.0.out/MatMul" in told.value.message
    assert "multiplies two results" in told.value.message and told.value.exit_code == 2
