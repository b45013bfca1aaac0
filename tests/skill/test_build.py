"""The skill folder: complete, the same each time, and true of commands, keys, files and figures."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from oneformer import cli
from oneformer.actions.verbs import VERBS
from oneformer.data.sources.roots import FILES, LABEL_MAP, SPLITS
from oneformer.errors import UserError
from oneformer.jobs.fields import FUNCTIONS, TABLE
from oneformer.schema.inputs import ACTIONS, INPUTS
from oneformer.schema.tao_schema import tao_schema
from oneformer.schema.templates import template
from oneformer.skill import tables
from oneformer.skill.commands import build
from oneformer.skill.files import DOCUMENTS, SOURCE, files
from oneformer.skill.info import DEPLOY, ROOTS, deploy_info, skill_info
from oneformer.spec.load import load
from oneformer.spec.tree import leaves

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "skills" / "oneformer"
# What TAO's two description files have, and every row of theirs that names a key that acts here.
TAO_ACTIONS = {"main": ("train", "evaluate", "export", "inference", "quantize"), "deploy": DEPLOY}


def yaml_of(name: str) -> Any:
    return YAML(typ="safe").load((HERE / "references" / name).read_text(encoding="utf-8"))


def test_the_folder_of_the_repository_is_what_the_builder_writes(tmp_path: Path) -> None:
    built = build(str(tmp_path / "oneformer"))
    assert len(built.files) == 27
    for place in built.files:
        assert (built.folder / place).read_bytes() == (HERE / place).read_bytes(), f"{place}: run `make docs`"
    there = {path.relative_to(HERE).as_posix() for path in HERE.rglob("*") if path.is_file()}
    assert there == set(built.files)


def test_building_again_writes_the_same(tmp_path: Path) -> None:
    first = files("oneformer")
    assert cli.main(["skill", "build", str(tmp_path / "oneformer")]) == cli.DONE
    assert cli.main(["skill", "build", str(tmp_path / "oneformer")]) == cli.DONE
    assert files("oneformer") == first


def test_every_file_of_taos_layout_is_there() -> None:
    names = set(files("oneformer"))
    assert {"SKILL.md", "schemas/manifest.json", "references/skill_info.yaml", "references/deploy.md"} <= names
    assert {f"schemas/{action}.schema.json" for action in ACTIONS} <= names
    assert {f"references/spec_template_{action}.yaml" for action in ACTIONS} <= names
    assert {f"references/spec_template_deploy_{action}.yaml" for action in DEPLOY} <= names


def test_a_folder_of_another_name_gives_a_skill_of_that_name(tmp_path: Path) -> None:
    build(str(tmp_path / "segment-images"))
    assert "\nname: segment-images\n" in (tmp_path / "segment-images" / "SKILL.md").read_text(encoding="utf-8")
    assert cli.main(["skill", "check", str(tmp_path / "segment-images")]) == cli.DONE


@pytest.mark.parametrize("name", ["My_Skill", "-a", "a--b", "a" * 65])
def test_a_folder_whose_name_is_none_for_a_skill_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no name for one"):
        build(str(tmp_path / name))


def test_nothing_is_written_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="no skill folder"):
        build(str(tmp_path / "work"))
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["notes.txt"]


def test_the_head_of_the_guide_is_what_agents_choose_by() -> None:
    text = (HERE / "SKILL.md").read_text(encoding="utf-8")
    head = YAML(typ="safe").load(text.split("---\n")[1])
    assert head["name"] == "oneformer" and 200 < len(head["description"]) <= 1024 and len(head["compatibility"]) <= 500
    for word in ("segmentation", "train", "evaluate", "ONNX", "Use it when", "TAO"):
        assert word in head["description"]
    assert len(text.splitlines()) < 500


@pytest.mark.parametrize(
    "heading",
    ["When to use it", "When somebody asks for a training", "What a training needs", "What has to be set",
     "Which checkpoint", "Important parameters", "Several GPUs and machines", "Hardware", "When something goes wrong",
     "Jobs, and what they fill in", "Deployment"],
)  # fmt: skip
def test_the_guide_has_what_an_agent_asks_for(heading: str) -> None:
    assert f"## {heading}" in (HERE / "SKILL.md").read_text(encoding="utf-8")


def test_every_table_is_filled_in() -> None:
    for source in DOCUMENTS:
        assert set(re.findall(r"<!-- table: ([a-z ]+) -->", (SOURCE / source).read_text("utf-8"))) <= set(tables.TABLES)
    text = (HERE / "SKILL.md").read_text(encoding="utf-8")
    assert "<!--" not in text
    assert [name for name in VERBS if f"| `oneformer {name}` |" not in text] == []
    assert [key for action in ACTIONS for one in INPUTS[action] if not one.optional for key in one.keys
            if f"`{key}`" not in text] == []  # fmt: skip


def test_the_important_keys_are_keys_and_the_functions_are_those_of_the_jobs() -> None:
    assert set(tables.IMPORTANT) <= set(leaves())
    used = {function for table in TABLE.values() for function in table.values()}
    assert used == set(tables.FUNCTIONS) <= set(FUNCTIONS)


def test_figures_are_those_of_the_benchmarks() -> None:
    measured = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    text = (HERE / "SKILL.md").read_text(encoding="utf-8")
    told = re.findall(r"(\d+ MiB)", text[text.index("## Hardware") : text.index("## When something goes wrong")])
    assert len(told) == 2
    for figure, precision in zip(told, ("fp32", "bf16"), strict=True):
        assert re.search(rf"peak memory of it, {precision} +\| {figure} ", measured), figure
    assert "Swin-T step, 1 image of 512x512" in measured and "AMD EPYC, 2 cores" in measured


@pytest.mark.parametrize("path", sorted((HERE / "references").glob("spec_*.yaml")), ids=lambda p: p.stem)
def test_a_template_loads_for_its_action_and_fits_the_schema_that_it_names(path: Path) -> None:
    action = next(name for name in ACTIONS if path.stem.endswith(f"_{name}"))
    text = path.read_text(encoding="utf-8")
    assert load(path, action=action).warnings == []
    first = text.splitlines()[0]
    assert first == "# yaml-language-server: $schema=oneformer.schema.json"
    schema = json.loads((path.parent / "oneformer.schema.json").read_text(encoding="utf-8"))
    assert Draft202012Validator(schema).is_valid(YAML(typ="safe").load(text))
    if "deploy" not in path.stem:
        assert text.partition("\n")[2] == template(action, minimal="minimal" in path.stem).partition("\n")[2]


def test_no_file_names_a_path_of_this_machine() -> None:
    for place, text in files("oneformer").items():
        assert "file://" not in text or place.startswith("references/oneformer.schema"), place
        assert str(ROOT) not in text, place


def test_the_schemas_are_strict_and_those_of_the_spec_tree() -> None:
    for action in ACTIONS:
        text = (HERE / "schemas" / f"{action}.schema.json").read_text(encoding="utf-8")
        assert json.loads(text) == tao_schema(action) and "Infinity" not in text


def test_the_description_says_what_every_action_reads_and_which_key_may_stand_for_another() -> None:
    told = yaml_of("skill_info.yaml")
    assert told == skill_info("oneformer") and set(told["actions"]) == set(ACTIONS)
    for action, row in told["actions"].items():
        assert row["command"] == f"oneformer {action} -e {{config_path}}"
        assert set(row["inputs"]) == {key for one in INPUTS[action] for key in one.keys}
        needed = {key for key, said in row["inputs"].items() if not said.get("optional")}
        assert needed == {one.keys[0] for one in INPUTS[action] if one.always}
        assert row["outputs"] == {"results_dir": {"type": "folder"}} and row["upload_excludes"] == ["inputs/"]
        assert (HERE / "references" / told["spec_templates"][action]).is_file()
    train = told["actions"]["train"]["inputs"]
    assert train["dataset.train.images"]["type"] == "folder" and train["dataset.train.annotations"]["type"] == "file"


def test_the_roots_are_those_that_the_loader_fills() -> None:
    told = skill_info("oneformer")["data_sources"]
    for action, splits in SPLITS.items():
        for split, source in splits.items():
            for name, names in FILES.items():
                if action in ACTIONS:
                    assert told[action][f"dataset.{split}.{name}"]["source"] == source in ROOTS
                    assert told[action][f"dataset.{split}.{name}"]["path"] == names[0]
    assert told["train"]["dataset.label_map"] == {"source": "train_datasets", "path": LABEL_MAP[0]}
    assert told["inference"]["inference.images_dir"]["runtime"] == "extracted_folder"


def test_the_parameters_and_short_names_are_taos() -> None:
    main, deploy = yaml_of("skill_info.yaml"), yaml_of("deploy.skill_info.yaml")
    assert deploy == deploy_info("oneformer") and set(deploy["actions"]) == set(DEPLOY)
    assert main["spec_params"] == TABLE and len(main["spec_shorthand_keys"]) == 31
    assert len(deploy["spec_shorthand_keys"]) == 11
    assert deploy["spec_shorthand_keys"]["batch_size"] == "dataset.val.batch_size"
    for action in ("evaluate", "inference"):
        key = f"{action}.trt_engine"
        assert not deploy["actions"][action]["inputs"][key].get("optional")
        assert deploy["spec_params"][action] == {
            "encryption_key": "key", "results_dir": "output_dir", key: "parent_model",
        }  # fmt: skip


@pytest.mark.parametrize("words", [["build"], ["check"]])
def test_neither_command_loads_torch(words: list[str], tmp_path: Path) -> None:
    build(str(tmp_path / "oneformer"))
    code = f"""
import sys
from oneformer.cli import main
main(["skill", *{words!r}, {str(tmp_path / "oneformer")!r}])
sys.exit(any(name in sys.modules for name in ("torch", "lightning", "scipy")))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_it_is_quick_to_check(tmp_path: Path) -> None:
    import time

    from oneformer.skill.check import faults

    began = time.process_time()
    assert list(faults(HERE)) == []
    assert time.process_time() - began < 5
