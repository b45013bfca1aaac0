"""`oneformer skill check`: each fault that is planted into a copy is named with its place and its remedy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from oneformer import cli
from oneformer.errors import SpecError, UserError, UserErrors
from oneformer.skill.check import faults
from oneformer.skill.check_documents import command
from oneformer.skill.commands import build, check
from oneformer.skill.fault import Fault, of_error
from oneformer.skill.markdown import read


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(str(tmp_path_factory.mktemp("built") / "oneformer")).folder


@dataclass(frozen=True)
class Plant:
    """A change of one file, and what has to be said about it."""

    file: str
    change: Callable[[str], str]
    where: str
    what: str
    mend: str


def swap(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text, old
        return text.replace(old, new, 1)

    return change


def put(key: str, name: str, value: object) -> Callable[[str], str]:
    """Change a fact of a leaf in a schema."""

    def change(text: str) -> str:
        tree = json.loads(text)
        node = tree
        for part in key.split("."):
            node = node["properties"][part]
        if name:
            assert node[name] != value
            node[name] = value
        else:
            above = tree
            for part in key.split(".")[:-1]:
                above = above["properties"][part]
            del above["properties"][key.rpartition(".")[2]]
        return json.dumps(tree)

    return change


S, R = "schemas/train.schema.json", "references/spec_template_train.yaml"
INFO, M = "references/skill_info.yaml", "SKILL.md"
PLANTS = {
    "a default of a schema": Plant(S, put("train.num_epochs", "default", 5), S, "default of train.num_epochs is 5, in the spec tree 50", "build"),
    "a bound of a schema": Plant(S, put("train.optim.lr", "maximum", 2.0), S, "maximum of train.optim.lr is 2.0", "build"),
    "a key that a schema lost": Plant(S, put("train.seed", "", None), S, "the key train.seed is missing", "build"),
    "a schema that is not strict": Plant(S, swap('"maximum": 1.0', '"maximum": Infinity'), S, "Infinity is no JSON", "build"),
    "a schema that is cut off": Plant(S, lambda text: text[:1000], S, "this is no JSON", "build"),
    "a manifest without its file": Plant("schemas/manifest.json", swap("schemas/export.schema.json", "schemas/exports.schema.json"), "schemas/manifest.json", "path of export names no file", "build"),
    "a manifest of another search": Plant("schemas/manifest.json", swap('"train.optim.lr"', '"train.optim.gamma"'), "schemas/manifest.json", "automl_default_parameters of", "build"),
    "a key of a template": Plant(R, swap("  num_epochs:", "  num_epoch:"), f"{R}:", "there is no key train.num_epoch", "did you mean train.num_epochs"),
    "a value of a template": Plant(R, swap("  num_epochs: 50", "  num_epochs: 0"), f"{R}:", "train.num_epochs is 0", ""),
    "a template that is no YAML": Plant(R, lambda text: text + "\n  - [", R, "", ""),
    "a command of the description": Plant(INFO, swap("oneformer export -e", "oneformer exports -e"), f"{INFO}:", "there is no command exports", "did you mean export?"),
    "a command that runs no spec": Plant(INFO, swap("oneformer train -e {config_path}", "oneformer train"), f"{INFO}:", "the command of train runs no spec", "-e {config_path}"),
    "an input of the description": Plant(INFO, swap("dataset.train.images:\n        type: folder", "dataset.train.image:\n        type: folder"), f"{INFO}:", "there is no key dataset.train.image", "dataset.train.images"),
    "a kind of input": Plant(INFO, swap("type: folder", "type: directory"), f"{INFO}:", "is neither a file nor a folder", "file or folder"),
    "a root": Plant(INFO, swap("source: train_datasets", "source: train_dataset"), f"{INFO}:", "comes from train_dataset, which is no root", "train_datasets"),
    "a function": Plant(INFO, swap(": parent_model", ": parents_model"), f"{INFO}:", "there is no function parents_model", "did you mean parent_model"),
    "a short name": Plant(INFO, swap('learning_rate: "train.optim.lr"', 'learning_rate: "train.optim.gamma"'), f"{INFO}:", "learning_rate does not stand for train.optim.gamma", "write train.optim.lr"),
    "a template that is not there": Plant(INFO, swap("spec_template_train.yaml", "spec_template_trian.yaml"), f"{INFO}:", "the template of train is not there", "build"),
    "a command of the guide": Plant(M, swap("oneformer evaluate -e", "oneformer evalaute -e"), f"{M}:", "there is no command evalaute", "did you mean evaluate?"),
    "an option": Plant(M, swap("specs/nuclei.yaml --dry-run", "specs/nuclei.yaml --dryrun"), f"{M}:", "oneformer train has no option --dryrun", "did you mean --dry-run?"),
    "an override": Plant(M, swap("train.overwrite=true", "train.overwrites=true"), f"{M}:", "there is no key train.overwrites", "train.overwrite"),
    "a value of an override": Plant(M, swap("train.overwrite=true", "train.num_epochs=none"), f"{M}:", "train.num_epochs is the text 'none'", ""),
    "a command within the text": Plant(M, swap("`oneformer doctor`", "`oneformer docter`"), f"{M}:", "there is no command docter", "did you mean doctor?"),
    "a key within the text": Plant(M, swap("`train.pretrained_backbone` for", "`train.pretrained_backbones` for"), f"{M}:", "there is no key train.pretrained_backbones", "train.pretrained_backbone"),
    "a value within the text": Plant(M, swap("`train.num_gpus=4`", "`train.num_gpus=0`"), f"{M}:", "train.num_gpus is 0", ""),
    "a default of a table": Plant(M, swap("| `train.num_epochs` | `50` |", "| `train.num_epochs` | `40` |"), f"{M}:", "the default of train.num_epochs is not 40", "write 50"),
    "a short name of a table": Plant(M, swap("| `num_epochs` | `train.num_epochs` |", "| `epochs` | `train.num_epochs` |"), f"{M}:", "there is no short name epochs", "num_epochs"),
    "a link": Plant(M, swap("](references/deploy.md)", "](references/deployment.md)"), f"{M}:", "the link references/deployment.md leads nowhere", "references/deploy.md"),
    "a link out of the folder": Plant(M, swap("](references/deploy.md)", "](../../README.md)"), f"{M}:", "leads out of the folder", "a file of the skill"),
    "a heading": Plant(M, swap("](references/deploy.md)", "](references/deploy.md#stepps)"), f"{M}:", "there is no heading #stepps", ""),
    "a block without an end": Plant(M, lambda text: text + "\n```bash\noneformer doctor\n", f"{M}:", "does not end", "```"),
    "the name": Plant(M, swap("name: oneformer", "name: OneFormer"), f"{M}:2", "name is 'OneFormer'", "name: oneformer"),
    "the name of another folder": Plant(M, swap("name: oneformer", "name: other"), f"{M}:2", "is not that of the folder", "other"),
    "the description": Plant(M, swap("description: Train", "description: " + "x" * 1100 + " Train"), f"{M}:3", "needs 1 to 1024", "when to use it"),
    "the front matter": Plant(M, swap("---\n", ""), f"{M}:1", "there is no front matter", "begin with ---"),
    "a colon in the front matter": Plant(M, swap("description: Train", "description: a: Train"), f"{M}:1", "no YAML", "quotes"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_is_named_with_its_place_and_its_remedy(
    name: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant = PLANTS[name]
    copy = shutil.copytree(whole, tmp_path / "oneformer")
    file = copy / plant.file
    file.write_text(plant.change(file.read_text(encoding="utf-8")), encoding="utf-8")
    assert cli.main(["skill", "check", str(copy)]) == cli.FAILED
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.startswith(plant.where) and plant.what in line and plant.mend in line.partition("; mend: ")[2]
        for line in lines
    ), lines
    assert lines[-1].endswith(("fault", "faults"))
    assert all("; mend: " in line for line in lines[:-1])


@pytest.mark.parametrize("file", [M, S, "schemas/manifest.json", INFO, "references/deploy.md"])
def test_a_file_that_is_gone_is_named(file: str, whole: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(whole, tmp_path / "oneformer")
    (copy / file).unlink()
    assert any(file in fault.line for fault in faults(copy))


def test_bytes_that_are_no_text_are_faults(whole: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(whole, tmp_path / "oneformer")
    for file in (S, R, INFO, "references/deploy.md"):
        (copy / file).write_bytes(b"\xff\xfe\x00")
    found = "\n".join(fault.line for fault in faults(copy))
    assert all(file in found for file in (S, R, INFO, "references/deploy.md"))


def test_a_folder_of_the_builder_has_no_fault_and_one_of_someone_else_is_told_what_it_lacks(
    whole: Path, tmp_path: Path
) -> None:
    assert check(str(whole)).table().endswith("no fault") and check(str(whole)).exit_code == 0
    told = [fault.where for fault in check(str(tmp_path)).found]
    assert told == ["SKILL.md", "schemas/manifest.json", "references/skill_info.yaml"]
    with pytest.raises(UserError, match="no such folder"):
        check(str(tmp_path / "none"))


def test_the_result_for_programs_has_the_parts(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(whole, tmp_path / "oneformer")
    (copy / M).unlink()
    assert cli.main(["skill", "check", str(copy), "--json"]) == cli.FAILED
    told = json.loads(capsys.readouterr().out)["faults"][0]
    assert set(told) == {"where", "what", "mend"} and told["where"] == "SKILL.md"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("train -e a.yaml num_epochs=3 --train-dataset s3://a", ""),
        ("jobs submit train -e a.yaml --parent x train.num_epochs=3", ""),
        ("default_specs train --minimal results_dir=specs", ""),
        ("explain train.optim.lr", ""),
        ("benchmark a.pth b.onnx --images photos", ""),
        ("jobs", ""),
        ("--help", ""),
        ("jobs sumbit train", "there is no command jobs sumbit"),
        ("jobs submit train num_epoch=3", "there is no key num_epoch"),
        ("train results_dir=RESULTS train.num_epochs=<N>", ""),
    ],
)
def test_commands_are_read_as_the_program_reads_them(line: str, what: str) -> None:
    found = [fault.what for fault in command(line.split(), "here")]
    assert found == [] if not what else what in found[0]


def test_what_markdown_holds_is_found_with_its_line() -> None:
    found = read(
        "# A head\ntext `train.seed` [link](a.md#b) `[no](link)`\n\n```bash\n# note\noneformer train \\\n  a=1 | tee x\n```\n"
        "| key | default |\n|---|---|\n| `a` | b \\| c |\n"
    )
    assert found.commands == [(5, "# note"), (6, "oneformer train   a=1")]
    assert found.spans[:1] == [(2, "train.seed")] and found.links == [(2, "a.md#b")] and found.anchors == {"a-head"}
    assert [(row.line, row.cells) for row in found.rows] == [(11, {"key": "`a`", "default": "b | c"})]


def test_messages_of_several_faults_become_lines_each() -> None:
    both = UserErrors([SpecError("one\nmore", where="x/a.yaml:3:1", hint="do"), SpecError("two")])
    assert list(of_error(both, "a.yaml")) == [
        Fault("a.yaml:3:1", "one\nmore", "do"),
        Fault("a.yaml", "two", "correct the value"),
    ]
    assert next(iter(of_error(both, "a.yaml"))).line == "a.yaml:3:1: one more; mend: do"
