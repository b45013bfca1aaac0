"""The schema and the loader take and refuse the same specs, and what is loaded is written so that it loads again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator

from oneformer.errors import UserErrors
from oneformer.spec import ExperimentSpec
from oneformer.spec.flat import merge
from oneformer.spec.load import PRESETS, load, preset_names
from oneformer.spec.node import Mark, plain_node, read_yaml
from oneformer.spec.rules import faults
from oneformer.spec.tree import from_dict
from oneformer.spec.write import to_yaml
from schema.draws import SCHEMA, specs

VALIDATOR = Draft202012Validator(SCHEMA)
# The quick one draws the same specs each time, the long one others.
QUICK = settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
LONG = settings(QUICK, max_examples=10_000, derandomize=False)


def over_preset(spec: dict[str, Any]) -> dict[str, Any]:
    """The spec with the values of the preset that it names below its own."""
    if spec.get("preset") not in preset_names():
        return spec
    preset = read_yaml(PRESETS / f"{spec['preset']}.yaml")
    return cast(dict[str, Any], merge(preset, plain_node(spec, Mark("spec"))).plain())


def loads(file: Path, spec: dict[str, Any]) -> str:
    """`yes`, `no`, or `rules` where each value is right and several of them do not go together."""
    file.write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")  # JSON is YAML
    try:
        load(file, action="train")
    except UserErrors as caught:
        try:
            known = {fault.what for fault in faults(from_dict(ExperimentSpec, over_preset(spec)))}
        except UserErrors:
            return "no"
        return "rules" if {error.what for error in caught.errors} <= known else "no"
    return "yes"


def alike(file: Path, how: settings) -> Counter[str]:
    """Draw specs and compare both verdicts; how often each came."""
    seen: Counter[str] = Counter()

    @given(specs(faults=True))
    @how
    def compare(spec: dict[str, Any]) -> None:
        verdict = loads(file, spec)
        errors = [f"{list(e.absolute_path)}: {e.message[:200]}" for e in VALIDATOR.iter_errors(spec)]
        seen[verdict] += 1
        assert (verdict == "no") == bool(errors), (verdict, errors, spec)

    compare()
    return seen


def identical(file: Path, how: settings) -> None:
    """Draw specs that load, write them, and load what was written."""

    @given(specs(faults=False))
    @how
    def round_trip(spec: dict[str, Any]) -> None:
        if loads(file, spec) != "yes":
            return
        first = load(file, action="train").spec
        file.write_text(to_yaml(first), encoding="utf-8")
        assert load(file, action="train").spec == first
        file.write_text(to_yaml(first, comments=False), encoding="utf-8")
        assert load(file, action="train").spec == first

    round_trip()


def test_some_hundred_random_specs_are_taken_or_refused_by_both(tmp_path: Path) -> None:
    seen = alike(tmp_path / "spec.yaml", QUICK)
    assert seen["yes"] > 40 and seen["no"] > 20


def test_random_specs_are_the_same_when_written_and_read(tmp_path: Path) -> None:
    identical(tmp_path / "spec.yaml", settings(QUICK, max_examples=8))


@pytest.mark.slow
@pytest.mark.parametrize("check", [alike, identical])
def test_ten_thousand_random_specs(check: Callable[[Path, settings], Any], tmp_path: Path) -> None:
    check(tmp_path / "spec.yaml", LONG if check is alike else settings(LONG, max_examples=1_000))


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"train": {"precision": "FP32"}}, "letter case"),
        ({"train": {"optim": {"lr": "1e-4"}}}, "a number in scientific notation within quotes"),
    ],
)
def test_two_things_are_forgiven_by_the_loader_alone(tmp_path: Path, values: dict[str, Any], why: str) -> None:
    assert loads(tmp_path / "spec.yaml", values) == "yes" and not VALIDATOR.is_valid(values), why


@pytest.mark.parametrize(
    "values",
    [
        {"model": {"one_former": {"hidden_dim": 250}}},
        {"dataset": {"task_prob_train": {"semantic": 0.5}}},
        {"inference": {"image_size": [640]}},
        {"preset": "nano", "model": {"backbone": {"swin": {"embed_dim": 1}}}},
    ],
)
def test_what_concerns_several_keys_is_refused_by_the_loader_alone(tmp_path: Path, values: dict[str, Any]) -> None:
    assert loads(tmp_path / "spec.yaml", values) == "rules" and VALIDATOR.is_valid(values)
