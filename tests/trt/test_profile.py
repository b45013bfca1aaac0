"""The sizes an engine takes: batch limits, open heights and widths, and what the graph fixes."""

from __future__ import annotations

from typing import Any

import pytest

from oneformer.engines.graph import Ports
from oneformer.errors import SpecError
from oneformer.spec.engine import GenTrtEngineSpec, TensorrtSpec
from oneformer.trt.profile import profile
from trt.small_graph import about, described


def ports(batch: int | None = None, size: tuple[int | None, int | None] = (64, 96)) -> Ports:
    return Ports({"images": (batch, 3, *size), "task_tokens": (batch, 77)}, {})


def section(batch_size: int = 0, **limits: Any) -> GenTrtEngineSpec:
    return GenTrtEngineSpec(batch_size=batch_size, tensorrt=TensorrtSpec(**limits))


def batches(found: dict[str, Any]) -> list[list[int]]:
    return [[sizes[0] for sizes in found[name]] for name in ("images", "task_tokens")]


def test_both_inputs_share_the_batch() -> None:
    limits = section(min_batch_size=1, opt_batch_size=3, max_batch_size=7)
    found = profile(ports(), about(), limits)
    assert found["images"] == ((1, 3, 64, 96), (3, 3, 64, 96), (7, 3, 64, 96))
    assert found["task_tokens"] == ((1, 77), (3, 77), (7, 77))


def test_batch_size_makes_it_always_as_many() -> None:
    found = profile(ports(), about(), section(batch_size=4, max_batch_size=8))
    assert batches(found) == [[4, 4, 4]] * 2


def test_minus_one_and_zero_take_the_limits() -> None:
    for said in (0, -1):
        assert batches(profile(ports(), about(), section(batch_size=said, max_batch_size=2)))[0] == [1, 1, 2]


def test_a_fixed_batch_is_taken_unless_the_limits_say_otherwise() -> None:
    assert batches(profile(ports(batch=2), about(), section()))[0] == [2, 2, 2]
    assert batches(profile(ports(batch=2), about(), section(batch_size=2)))[0] == [2, 2, 2]
    with pytest.raises(SpecError, match="takes 2 images per call, the engine is to take 1 to 4"):
        profile(ports(batch=2), about(), section(max_batch_size=4))
    with pytest.raises(SpecError, match=r"(?s)gen_trt_engine\.batch_size.*export\.batch_size=-1"):
        profile(ports(batch=2), about(), section(batch_size=3))


def test_open_sizes_take_what_evaluation_makes_of_photos() -> None:
    found = profile(ports(size=(None, None)), about(), section())  # shorter side 64, longest 128
    assert [sizes[2:] for sizes in found["images"]] == [(64, 64), (64, 64), (128, 128)]


def test_open_sizes_are_width_and_height() -> None:
    limits = section(min_size=[64, 32], opt_size=[96, 64], max_size=[192, 160])
    found = profile(ports(size=(None, None)), about(), limits)
    assert [sizes[2:] for sizes in found["images"]] == [(32, 64), (64, 96), (160, 192)]


@pytest.mark.parametrize(
    "given", [{"opt_size": [256, 32]}, {"max_size": [32, 32], "min_size": [32, 32]}, {"min_size": [96, 96]}]
)
def test_what_is_not_said_fits_what_is(given: dict[str, Any]) -> None:
    low, usual, high = (sizes[2:] for sizes in profile(ports(size=(None, None)), about(), section(**given))["images"])
    assert all(a <= b <= c for a, b, c in zip(low, usual, high, strict=True))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"min_size": [100, 64]}, r"steps of 32(.|\n)*\[128, 64\]"),
        ({"min_size": [256, 256]}, "must not fall"),
        ({"min_size": [64, 64], "opt_size": [96, 96], "max_size": [64, 64]}, "must not fall"),
    ],
)
def test_sizes_that_no_engine_has_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        profile(ports(size=(None, None)), about(), section(**given))


def test_a_fixed_size_is_not_opened() -> None:
    assert profile(ports(), about(), section(max_size=[96, 64]))
    with pytest.raises(SpecError, match=r"(?s)\[96, 64\] only.*export\.dynamic_size"):
        profile(ports(), about(), section(max_size=[64, 96]))


def test_with_bytes_as_input_height_and_width_come_first() -> None:
    found = profile(
        Ports({"images": (None, None, None, 3), "task_tokens": (None, 77)}, {}),
        described(embed_preprocess=True),
        section(),
    )
    assert found["images"] == ((1, 64, 64, 3), (1, 64, 64, 3), (1, 128, 128, 3))
