"""`default_specs`: the commented spec of each action, whole and short, and what is laid over it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from oneformer.actions.default_specs import run
from oneformer.cli import main
from oneformer.errors import UserError
from oneformer.schema.inputs import ACTIONS, INPUTS
from oneformer.schema.templates import PRESET_KEYS, required, short_keys, template
from oneformer.spec import ExperimentSpec
from oneformer.spec.load import load, load_spec, preset_names
from oneformer.spec.tree import get, leaves
from oneformer.spec.write import comment, value_text


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "template.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("minimal", [False, True])
@pytest.mark.parametrize("action", ACTIONS)
def test_a_template_loads_as_the_defaults_without_a_warning(tmp_path: Path, action: str, minimal: bool) -> None:
    loaded = load(written(tmp_path, template(action, minimal=minimal)), action=action)
    assert (loaded.spec, loaded.warnings) == (ExperimentSpec(), [])


@pytest.mark.parametrize("minimal", [False, True])
@pytest.mark.parametrize("action", ACTIONS)
def test_beside_each_key_stand_meaning_range_and_default(tmp_path: Path, action: str, minimal: bool) -> None:
    text = template(action, minimal=minimal)
    told = " ".join(line.strip(" #") for line in text.splitlines())
    keys = load(written(tmp_path, text), action=action).set_keys
    assert len(keys) > (5 if minimal else 150)
    for key in keys:
        assert comment(key) in told, key
    assert f"{comment('train.num_gpus')}".endswith("Default: 1.")


@pytest.mark.parametrize("action", ACTIONS)
def test_the_short_form_has_what_the_action_needs_says_so_and_fits_a_screen_or_three(action: str) -> None:
    text = template(action, minimal=True)
    assert len(text.splitlines()) < 100
    told = " ".join(line.strip(" #") for line in text.splitlines())
    for key, note in required(action).items():
        assert f"{comment(key)} {note}" in told, key
    assert len(text) < len(template(action)) / 4


@pytest.mark.parametrize("preset", preset_names())
def test_a_preset_that_is_named_in_the_short_form_acts(tmp_path: Path, preset: str) -> None:
    text = template("train", minimal=True).replace('preset: ""', f"preset: {preset}")
    spec = load_spec(written(tmp_path, text), action="train")
    whole = load_spec(None, [f"preset={preset}"], action="train")
    assert [key for key in said_by_presets() if get(spec, key) != get(whole, key)] == []


def said_by_presets() -> set[str]:
    specs = [load_spec(None, [f"preset={name}"], action="train") for name in preset_names()]
    return {key for key, leaf in leaves().items() for spec in specs if get(spec, key) != leaf.default}


def test_what_a_preset_says_is_no_more_than_a_remark_in_the_short_forms(tmp_path: Path) -> None:
    spec = ExperimentSpec()
    keys = {key for action in ACTIONS for key in short_keys(action, spec, spec)}
    assert keys & said_by_presets() - {"preset"} == set(PRESET_KEYS)
    assert "# lr: 0.0001" in template("train", minimal=True)
    given = load_spec(None, ["preset=nano", "learning_rate=1e-4"], action="train")
    text = template("train", minimal=True, spec=given)
    assert load_spec(written(tmp_path, text), action="train") == given


def test_a_spec_and_overrides_take_the_place_of_the_defaults(tmp_path: Path) -> None:
    given = written(tmp_path, "preset: nano\ntrain: {num_epochs: 7}\nresults_dir: mine\n")
    done = run(["train", f"results_dir={tmp_path / 'out'}", "batch_size=4"], str(given))
    assert done.path == tmp_path / "out" / "experiment.yaml"
    spec = load_spec(done.path, action="train")
    expected = load_spec(given, ["batch_size=4"], action="train")
    expected.evaluate, spec.evaluate = ExperimentSpec().evaluate, ExperimentSpec().evaluate
    assert spec == expected and spec.results_dir == "mine"
    assert "Default: 50." in done.text  # of a value that is another


def test_the_short_form_holds_what_a_spec_changes_and_nothing_that_its_preset_says(tmp_path: Path) -> None:
    given = written(tmp_path, "preset: nano\nmodel: {one_former: {num_object_queries: 60}}\n")
    text = run(["train"], str(given), minimal=True).text
    assert YAML(typ="safe").load(text)["model"] == {"one_former": {"num_object_queries": 60}}
    assert load_spec(written(tmp_path, text), action="train") == load_spec(
        None, ["preset=nano", "model.one_former.num_object_queries=60"], action="train"
    )


def test_the_command_takes_a_spec_a_folder_and_the_short_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = written(tmp_path, "train: {num_epochs: 7}\n")
    words = ["default_specs", "train", "-e", str(given), "--minimal", f"results_dir={tmp_path}", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(tmp_path / "experiment.yaml")}
    assert "num_epochs: 7" in (tmp_path / "experiment.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "minimal", "said"),
    [
        ([], True, "the minimal form is that of one action"),
        (["trian"], False, "neither an action nor results_dir"),
        (["train", "train.num_epoch=3"], False, "did you mean train.num_epochs"),
        (["train", "evaluate"], False, "'evaluate' is neither"),
    ],
)
def test_wrong_words_are_refused(words: list[str], minimal: bool, said: str) -> None:
    with pytest.raises(UserError) as caught:
        run(words, minimal=minimal)
    assert said in caught.value.message


def test_without_an_action_every_key_is_there(tmp_path: Path) -> None:
    assert set(load(written(tmp_path, template()), action="train").set_keys) == set(leaves())


def test_every_need_is_told_once_per_action() -> None:
    for action in ACTIONS:
        assert len(required(action)) == len([one for one in INPUTS[action] if not one.optional])
    assert required("export") == {"export.checkpoint": "Required."}
    assert value_text(leaves()["export.checkpoint"].default) == '""'
