"""The schemas in TAO's dialect against the facts of TAO's own files, leaf by leaf."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import pytest

from oneformer.schema import tao_schema as room
from oneformer.schema.differences import FILE, differences
from oneformer.schema.inputs import ACTIONS
from oneformer.schema.tao_schema import leaf_schema, manifest, shorthand, tao_schema
from oneformer.spec.field import Tao
from oneformer.spec.load import load
from oneformer.spec.tree import Leaf, leaves, sections
from oneformer.spec.unread import reason

TAO: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).resolve().parents[1] / "spec" / "tao_leaves.json").read_text(encoding="utf-8")
)
# Leaves that each of TAO's files holds.
COUNTS = {"train": 176, "evaluate": 184, "export": 188, "inference": 186, "quantize": 176, "gen_trt_engine": 189}
SHARED = ("model_name", "encryption_key", "results_dir", "wandb", "model", "dataset", "train")


def theirs(action: str) -> dict[str, dict[str, Any]]:
    """The leaves of TAO's file of an action: of the sections of actions it has its own, `train` and `quantize`."""
    left_out = set(ACTIONS) - {"train", "quantize", action}
    return {key: fact for key, fact in TAO.items() if key.split(".")[0] not in left_out}


def flat(node: dict[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, child in node["properties"].items():
        found |= flat(child, f"{prefix}{name}.") if "properties" in child else {prefix + name: child}
    return found


@pytest.mark.parametrize("action", ACTIONS)
def test_every_leaf_of_taos_file_is_there_with_what_it_says(action: str) -> None:
    ours = flat(tao_schema(action))
    assert len(theirs(action)) == COUNTS[action]
    for key, fact in theirs(action).items():
        listed = {name for name in differences().get(key, {}) if name in ("default", "maximum")}
        for name, said in fact.items():
            found = ours[key].get(name)
            if name == "enum":
                assert set(said) <= set(found), key  # choices of our own come beside theirs
            elif name not in listed:
                assert (found, type(found)) == (said, type(said)), (key, name)
        if "default" not in listed:
            assert ("default" in ours[key]) == ("default" in fact), key


def test_each_difference_that_is_listed_is_one_and_has_its_reason() -> None:
    for key, said in differences().items():
        assert key in leaves(), key
        assert set(said) <= {"default", "maximum", "why", "does"} and said, key
        assert ("why" in said) == bool({"default", "maximum"} & set(said)), key
        if "default" in said:
            assert said["default"] == TAO[key].get("default") != leaves()[key].default, key
        if "maximum" in said:
            assert said["maximum"] == TAO[key]["maximum"], key
        for sentence in (said.get("why", "x"), said.get("does", "x")):
            assert sentence and sentence == sentence.strip(" ."), key
    assert len([said for said in differences().values() if "why" in said]) < 20


def test_what_tao_does_is_not_told_of_keys_that_do_nothing_here_either() -> None:
    assert [key for key, said in differences().items() if "does" in said and reason(key)] == []


def test_the_list_of_differences_is_in_order() -> None:
    assert list(json.loads(FILE.read_text(encoding="utf-8"))) == sorted(differences())


@pytest.mark.parametrize("action", ACTIONS)
def test_a_schema_is_strict_json_and_its_defaults_are_a_spec(action: str, tmp_path: Path) -> None:
    schema = tao_schema(action)
    text = json.dumps(schema, allow_nan=False)
    file = tmp_path / "schema.json"
    file.write_text(text, encoding="utf-8")
    assert load(file, action=action).warnings == []
    (tmp_path / "default.yaml").write_text(json.dumps(schema["default"]), encoding="utf-8")
    assert load(tmp_path / "default.yaml", action=action).warnings == []


@pytest.mark.parametrize("action", ACTIONS)
def test_the_top_of_a_schema_tells_of_what_is_in_it(action: str) -> None:
    schema = tao_schema(action)
    inside = flat(schema)
    above = {key for key in sections() if any(k.startswith(f"{key}.") for k in inside)}
    assert tuple(schema["properties"])[1:8] == SHARED
    assert {"train", "quantize", action} <= set(schema["properties"])
    assert set(schema["automl_default_parameters"]) == {k for k, node in inside.items() if node.get("automl_enabled")}
    assert set(schema["automl_disabled_parameters"]) == above | {
        k for k, node in inside.items() if node.get("automl_enabled") is False
    }
    assert schema["x_tao_schema"]["action"] == schema["x_tao_schema"]["schema_action"] == action
    assert set(schema["required"]) <= set(schema["properties"])
    assert schema["popular"]["model"] == {
        "sem_seg_head": {"transformer_enc_layers": 6, "convs_dim": 256, "mask_dim": 256}
    }


def test_taos_seven_parameters_of_automl_are_those_of_train() -> None:
    assert set(tao_schema("train")["automl_default_parameters"]) >= {
        "dataset.augmentation.test_max_size", "dataset.augmentation.test_min_size",
        "dataset.augmentation.train_max_size", "train.optim.backbone_multiplier", "train.optim.lr",
        "train.optim.momentum", "train.optim.weight_decay",
    }  # fmt: skip


def test_a_section_tells_its_own_lists() -> None:
    optim = tao_schema("train")["properties"]["train"]["properties"]["optim"]
    assert (optim["type"], optim["automl_enabled"]) == ("collection", False)
    assert "train.optim.lr" in optim["automl_default_parameters"]
    assert set(optim["automl_disabled_parameters"]) == {"train.optim.milestones", "train.optim.steps"}
    assert set(optim["popular"]) == {"momentum", "weight_decay", "backbone_multiplier"}
    assert optim["default"]["gamma"] == 0.1
    assert tao_schema("export")["properties"]["export"]["required"] == ["checkpoint"]


def test_marks_for_samplers_are_written_where_a_field_has_them() -> None:
    mark = Tao("size", kind="ordered_int", math_cond="^ 2")
    schema = leaf_schema(Leaf("train.num_epochs", Annotated[int, mark], 3, "A size."))
    assert (schema["type"], schema["math_cond"]) == ("ordered_int", "^ 2")


def test_marks_that_no_file_of_taos_has_are_not_written() -> None:
    """`option_weights`, `depends_on` and `parent_param` have no value in TAO's six files, so ours have none either."""
    idle = {"option_weights", "depends_on", "parent_param"}
    assert [key for key, fact in TAO.items() if idle & set(fact)] == []
    assert [key for action in ACTIONS for key, node in flat(tao_schema(action)).items() if idle & set(node)] == []


def test_a_limit_that_is_not_allowed_itself_is_a_condition_too() -> None:
    found = flat(tao_schema("train"))["train.clip_gradients.clip_value"]
    assert (found["minimum"], found["math_cond"]) == (0.0, "> 0.0")


def test_the_manifest_names_a_schema_and_a_template_for_each_action() -> None:
    told = manifest()
    assert {k: told[k] for k in ("schema_version", "model", "network_arch", "automl_enabled", "failures")} == {
        "schema_version": 1, "model": "oneformer", "network_arch": "oneformer", "automl_enabled": True, "failures": {},
    }  # fmt: skip
    assert list(told["actions"]) == sorted(ACTIONS)
    for action, row in told["actions"].items():
        assert row["path"] == f"schemas/{action}.schema.json"
        assert row["spec_template"] == f"references/spec_template_{action}.yaml"
        assert row["popular"] == tao_schema(action)["popular"]


def test_changing_what_was_given_changes_no_default() -> None:
    tao_schema("train")["default"]["train"]["gpu_ids"].append(7)
    assert leaves()["train.gpu_ids"].default == [0] == tao_schema("train")["default"]["train"]["gpu_ids"]


def test_short_names_are_those_of_the_command_line() -> None:
    assert shorthand("train")["batch_size"] == "dataset.train.batch_size"
    assert shorthand("gen_trt_engine")["batch_size"] == "dataset.val.batch_size"
    assert set(shorthand("train").values()) <= set(leaves())
    assert room.roots("export")[-3:] == ("train", "export", "quantize")
