"""The strict schemas: valid themselves, as strict as they say, and true of every YAML file that ships."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from oneformer import cli
from oneformer.runs.editor import MARK, schema_file, schema_line
from oneformer.schema.inputs import ACTIONS, INPUTS, path_format
from oneformer.schema.json_schema import as_text, json_schema
from oneformer.schema.templates import template
from oneformer.spec.field import Pattern
from oneformer.spec.load import PRESETS
from oneformer.spec.tree import leaves, sections
from oneformer.spec.unread import reason

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted([*(ROOT / "specs").rglob("*.yaml"), *PRESETS.glob("*.yaml")])


def nested(values: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *above, name = key.split(".")
        at = tree
        for section in above:
            at = at.setdefault(section, {})
        at[name] = value
    return tree


def at(schema: dict[str, Any], key: str) -> dict[str, Any]:
    for part in key.split("."):
        schema = schema["properties"][part]
    return schema


def faults(values: dict[str, Any], action: str = "") -> list[str]:
    return [error.message for error in Draft202012Validator(json_schema(action)).iter_errors(nested(values))]


@pytest.mark.parametrize("action", ["", *ACTIONS])
def test_each_schema_fits_the_schema_of_schemas_and_is_strict_json(action: str) -> None:
    text = as_text(json_schema(action))
    assert "Infinity" not in text and "NaN" not in text
    schema = json.loads(text)
    assert schema == json_schema(action)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_schema_has_every_key_and_no_other_closed_at_each_level() -> None:
    schema = json_schema()
    for key, leaf in leaves().items():
        found = at(schema, key)
        assert found["default"] == leaf.default and found["description"].startswith(leaf.doc), key
        assert found.get("deprecated", False) == bool(reason(key)), key
    for key in sections():
        assert at(schema, key)["additionalProperties"] is False, key
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("train.num_epochs", [1, 10**6, 3.0, "${train.num_gpus}"], [0, -1, 1.5, "3", None, True, [1]]),
        ("train.optim.lr", [1, 1e-5, 0.5], [0, 0.0, 1.01, "fast", None]),
        ("train.optim.momentum", [0, 0.99], [1, -0.1]),
        ("train.optim.max_iter", [None, 5], [0, "5"]),
        ("train.precision", ["fp32", "32", 32, "16-mixed", "auto"], ["fp8", 64, None]),
        ("train.freeze", [[], ["a"], None, "${train.freeze}"], ["backbone", 3, [True]]),
        ("train.clip_gradients.norm_type", [2, float("inf")], [0, "2"]),
        ("dataset.train.images", ["a", "", ["a", "b"], 3, None], [True, {"a": 1}]),
        ("dataset.pixel_mean", [[1, 2, 3.5], [0, 0, 255]], [[1, 2], [1, 2, 3, 4], [1, 2, 256], None, "1"]),
        ("dataset.task_prob_train", [{"semantic": 1}, {}, None], [{"semantic": 2}, [1], "even"]),
        ("model.backbone.resnet.depth", [50, 101], [34, "50"]),
        ("model.backbone.dinat.dilations", [None, [[1], [2]]], [[1], [[0]]]),
        ("model.sem_seg_head.in_features", [["res3"], ["res2", "res5"]], [["res6"], "res3"]),
        ("quantize.device", ["cuda:1"], ["cuda:", "gpu"]),
        ("quantize.backend_kwargs", [{"a": [1, {"b": None}]}, {}], [[1]]),
        ("inference.image_size", [[], [3, 4]], [[1, 2, 3], [0, 1]]),
        ("preset", ["", "nano", None], ["nan", 3, "${model_name}"]),
        ("wandb.enable", [True], [1, "yes"]),
        ("model", [{}, None], [[], "swin"]),
        ("train.optim", [None], [3]),
    ],
)  # fmt: skip
def test_a_key_takes_what_the_loader_takes(key: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert faults({key: value}) == [], value
    for value in bad:
        assert faults({key: value}), value


@pytest.mark.parametrize("key", ["train.num_epoch", "epochs", "model.backbone.swing", "train.optim.lr.value"])
def test_an_unknown_key_is_refused(key: str) -> None:
    assert faults({key: 1})


@pytest.mark.parametrize("action", ACTIONS)
def test_what_an_action_needs_is_required_and_any_of_several_is_enough(action: str) -> None:
    needs = [one for one in INPUTS[action] if one.always]
    assert needs
    everything = {one.keys[0]: "a" for one in needs}
    assert faults(everything, action) == []
    for one in needs:
        others = {k: v for k, v in everything.items() if k not in one.keys}
        assert faults(others, action) and faults(others) == []
        for key in one.keys:
            assert faults({**others, key: "a"}, action) == []
        for empty in ("", None):
            assert faults({**others, one.keys[0]: empty}, action)


def test_what_an_action_needs_with_some_value_only_is_required_with_it() -> None:
    conditional = [(action, one) for action in ACTIONS for one in INPUTS[action] if one.only_if[0]]
    assert len(conditional) == 2
    for action, one in conditional:
        key, values = one.only_if
        given = {need.keys[0]: "a" for need in INPUTS[action] if need.always}
        for value in values:
            assert faults({**given, key: value}, action)
            for other in one.keys:
                assert faults({**given, key: value, other: "a"}, action) == []


@pytest.mark.parametrize("action", ACTIONS)
def test_the_command_refuses_what_lacks_an_input_and_names_its_key(
    action: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table of needs is that of the commands themselves."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.json").write_text('[{"id": 1, "name": "a", "isthing": 1}]', encoding="utf-8")
    assert cli.main([action, "preset=nano", "dataset.label_map=labels.json"]) == cli.WRONG_REQUEST
    named = [key for one in INPUTS[action] if one.always for key in one.keys]
    assert any(key in capsys.readouterr().err for key in named[:2])


def test_patterns_mean_the_same_in_every_language() -> None:
    """`\\d` and `\\w` take letters of all scripts in Python and not elsewhere."""
    found = [m.regex for leaf in leaves().values() for m in marks_of(leaf.annotation) if isinstance(m, Pattern)]
    assert len(found) > 5 and [regex for regex in found if re.search(r"\\[dwsbAZ]|\(\?", regex)] == []


def marks_of(annotation: Any) -> list[Any]:
    inner = [mark for part in get_args(annotation) if part is not annotation for mark in marks_of(part)]
    return [*getattr(annotation, "__metadata__", ()), *inner]


def test_paths_are_marked_as_such() -> None:
    first = ("Folder ", "Weight file", "Annotation file", "ONNX file", "File ", "JSON file", "TensorRT engine",
             "Checkpoint ", "Engine file", "Weights of", "Cache of")  # fmt: skip
    texts = [k for k, leaf in leaves().items() if leaf.default == "" and leaf.doc.startswith(first)]
    assert len(texts) > 25
    assert [key for key in texts if not path_format(key)] == []
    schema = json_schema()
    assert at(schema, "dataset.train.images")["format"] == "directory-path"
    assert at(schema, "export.checkpoint")["format"] == "file-path"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_every_yaml_that_ships_names_the_schema_and_fits_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    first = text.splitlines()[0]
    assert first.startswith(MARK)
    assert (path.parent / first.removeprefix(MARK)).resolve() == schema_file()
    assert not list(Draft202012Validator(json_schema()).iter_errors(YAML(typ="safe").load(text)))


@pytest.mark.parametrize("minimal", [False, True])
@pytest.mark.parametrize("action", ACTIONS)
def test_a_template_names_the_schema_of_its_action_and_lacks_only_what_it_asks_for(action: str, minimal: bool) -> None:
    text = template(action, minimal=minimal)
    first = text.splitlines()[0]
    assert first + "\n" == schema_line(action) and schema_file(action).as_uri() in first
    assert schema_file(action).name == f"{action}.schema.json"
    schema = json.loads(schema_file(action).read_text(encoding="utf-8"))
    errors = list(Draft202012Validator(schema).iter_errors(YAML(typ="safe").load(text)))
    assert len(errors) == len([one for one in INPUTS[action] if one.always])


def test_actions_without_a_schema_of_their_own_have_that_of_any_spec() -> None:
    assert schema_file("doctor") == schema_file() and schema_file().parent == ROOT / "src" / "oneformer"
