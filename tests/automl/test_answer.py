"""Answers of a language model: data that is checked, and nothing more."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from automl.simulated import PLANE
from oneformer.automl.answer import Advice, Wrong, read
from oneformer.automl.dimension import Dimension
from oneformer.automl.space import Space

LR, DROP, LAYERS, CURVE = (d.key for d in PLANE.dimensions)
FINE = {LR: 2e-3, DROP: 0.25, LAYERS: 4, CURVE: "constant"}
WIDEST = ((1e-6, 1.0), (0.0, 0.99), (1, 100), None)
WIDE = Space(tuple(replace(d, widest=widest) for d, widest in zip(PLANE.dimensions, WIDEST, strict=True)), {})


def answer(values: Any = FINE, **more: Any) -> str:
    return json.dumps({"values": values, **more})


THOUGHTS = '<think>{"values": {"train.optim.lr": 9}} {is} too {much: 3}</think>{}'


@pytest.mark.parametrize(
    "around", ["{}", "Let me think: it is\n```json\n{}\n```\nThat is {{best}}.", "\n\n {}", THOUGHTS]
)
def test_values_are_taken_whatever_stands_around_them(around: str) -> None:
    found = read(around.replace("{}", answer(why="a rate\x1b[2J in\nthe middle"), 1), PLANE, ranges=False)
    assert found == Advice(FINE, "a rate [2J in the middle")


def test_values_are_those_that_the_space_could_have_drawn() -> None:
    found = read(answer({**FINE, LR: 0.00123456789, LAYERS: 4.0}), PLANE, ranges=False).values
    assert found[LR] == 0.001235 and found[LAYERS] == 4 and type(found[LAYERS]) is int
    assert read(answer(PLANE.own()), PLANE, ranges=False).values == PLANE.own()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("I would rather not.", "no JSON object"),
        ('{"values": {', "no valid JSON"),
        ('{"a":' * 100_000, "no valid JSON"),
        (answer(7), '"values" has to be an object'),
        (answer({**FINE, LR: float("nan")}), "no valid JSON"),
        (answer({**FINE, LR: float("inf")}), "no valid JSON"),
        (answer({**FINE, LR: 1.0}), f"{LR} has to be from 1e-05 to 0.1"),
        (answer({**FINE, LR: -1e-3}), f"{LR} has to be from"),
        (answer({**FINE, LR: "1e-3"}), f"{LR} has to be a number"),
        (answer({**FINE, LR: True}), f"{LR} has to be a number"),
        (answer({**FINE, LR: None}), f"{LR} has to be a number"),
        (answer({**FINE, LR: [1e-3]}), f"{LR} has to be a number"),
        (answer({**FINE, LAYERS: 4.5}), f"{LAYERS} has to be a whole number"),
        (answer({**FINE, LAYERS: 10**400}), f"{LAYERS} has to be a whole number"),
        (answer({**FINE, CURVE: "Cosine"}), f'{CURVE} has to be one of ["cosine"'),
        (answer({**FINE, CURVE: {"__class__": "os.system"}}), "has to be one of"),
        (answer({k: v for k, v in FINE.items() if k != DROP}), f"{DROP} is missing"),
        (answer({**FINE, "train.num_epochs": 10**6}), "'train.num_epochs' is not searched"),
        (answer(command="rm -rf /"), "there is no 'command'"),
        (answer(ranges={LR: [1e-4, 1e-3]}), "ranges cannot be changed"),
    ],
)
def test_what_is_no_point_of_the_space_is_refused(text: str, message: str) -> None:
    with pytest.raises(Wrong) as error:
        read(text, PLANE, ranges=False)
    assert message in str(error.value)


def test_truth_is_no_number_among_choices() -> None:
    switch = Space((Dimension("train.ema.enabled", "choice", False, choices=(False, True)),), {})
    assert read(answer({"train.ema.enabled": True}), switch, ranges=False).values == {"train.ema.enabled": True}
    for wrong in (1, 0, "true"):
        with pytest.raises(Wrong):
            read(answer({"train.ema.enabled": wrong}), switch, ranges=False)


def test_multiples_are_asked_for() -> None:
    width = Space((Dimension("model.one_former.dim_feedforward", "int", 500, 256, 1024, step=32),), {})
    for good in (512, 500):
        assert read(answer({"model.one_former.dim_feedforward": good}), width, ranges=False).values == {
            "model.one_former.dim_feedforward": good
        }
    with pytest.raises(Wrong, match="multiple of 32"):
        read(answer({"model.one_former.dim_feedforward": 520}), width, ranges=False)


def test_all_faults_are_told_at_once_but_not_hundreds() -> None:
    with pytest.raises(Wrong) as error:
        read(answer({LR: 7, DROP: 7, LAYERS: 700, CURVE: 7, **{f"x{n}": 1 for n in range(300)}}), PLANE, ranges=False)
    assert len(error.value.faults) == 5


def test_ranges_are_narrowed_and_widened_within_what_the_key_may_hold() -> None:
    said = answer({**FINE, LR: 5e-6}, ranges={LR: [1e-6, 1e-3], LAYERS: [3, 5]}, why="the best lie at the end")
    found = read(said, WIDE, ranges=True)
    assert found.ranges == {LR: (1e-6, 1e-3), LAYERS: (3, 5)} and found.values[LR] == 5e-6


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ([], "has to be an object"),
        ({"train.seed": [0, 1]}, "'train.seed' cannot be changed"),
        ({CURVE: ["cosine", "constant"]}, "cannot be changed"),
        ({LR: [1e-3, 1e-4]}, "has to rise"),
        ({LR: [1e-3, 10.0]}, "lie within 1e-06 to 1"),
        ({LR: [0, 1e-3]}, "lie within"),
        ({LR: [1e-4]}, "two numbers"),
        ({LAYERS: [2.5, 7]}, "two whole numbers"),
        ({LR: [1e-3, 1e-2], DROP: [True, 1]}, f"range of {DROP}"),
        ({LR: [3e-3, 1e-2]}, f"{LR} has to be from 0.003 to 0.01"),
    ],
)
def test_ranges_that_cannot_be_are_refused(ranges: Any, message: str) -> None:
    with pytest.raises(Wrong) as error:
        read(answer(ranges=ranges), WIDE, ranges=True)
    assert message in str(error.value)


def test_a_range_of_the_users_stays() -> None:
    with pytest.raises(Wrong, match="cannot be changed"):
        read(answer(ranges={LR: [1e-4, 1e-2]}), PLANE, ranges=True)
