"""YAML and overrides -> one spec, or every fault at once with its place and a way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from oneformer.errors import SpecError, UserErrors
from oneformer.spec import ExperimentSpec
from oneformer.spec.load import load, load_spec, preset_names


def spec_of(tmp_path: Path, text: str, *overrides: str) -> ExperimentSpec:
    file = tmp_path / "spec.yaml"
    file.write_text(text, encoding="utf-8")
    return load_spec(file, overrides, action="train")


def faults_of(tmp_path: Path, text: str, *overrides: str) -> list[SpecError]:
    with pytest.raises(UserErrors) as caught:
        spec_of(tmp_path, text, *overrides)
    assert caught.value.exit_code == 2
    return [e for e in caught.value.errors if isinstance(e, SpecError)]


def fault_of(tmp_path: Path, text: str, *overrides: str) -> SpecError:
    (only,) = faults_of(tmp_path, text, *overrides)
    return only


def test_nothing_said_gives_the_defaults() -> None:
    assert load_spec(None, action="train") == ExperimentSpec()


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert spec_of(tmp_path, "# nothing\n") == ExperimentSpec()


def test_an_empty_section_keeps_its_defaults(tmp_path: Path) -> None:
    assert spec_of(tmp_path, "train:\ndataset: {train: }\n") == ExperimentSpec()


def test_overrides_win_over_the_file_which_wins_over_the_preset(tmp_path: Path) -> None:
    text = "preset: swin_t\nmodel: {backbone: {swin: {window_size: 8, embed_dim: 48}}}\n"
    swin = spec_of(tmp_path, text, "model.backbone.swin.window_size=16").model.backbone.swin
    assert (swin.window_size, swin.embed_dim, swin.depths) == (16, 48, [2, 2, 6, 2])


def test_the_last_of_two_overrides_wins(tmp_path: Path) -> None:
    assert spec_of(tmp_path, "", "train.num_epochs=3", "train.num_epochs=4").train.num_epochs == 4


def test_the_preset_can_come_from_the_command_line() -> None:
    assert load_spec(None, ["preset=nano"], action="train").model.sem_seg_head.mask_position is True


@pytest.mark.parametrize("name", preset_names())
def test_every_packaged_preset_loads_without_a_warning(name: str) -> None:
    loaded = load(None, [f"preset={name}"], action="train")
    assert loaded.spec != ExperimentSpec(preset=name) or name == "swin_l"
    assert loaded.warnings == []


def test_the_presets_are_those_of_the_plan() -> None:
    backbones = ["convnext_l", "convnext_xl", "dinat_l", "r50", "swin_b", "swin_l", "swin_s", "swin_t"]
    assert preset_names() == sorted(["nano", *backbones])


def test_a_preset_that_does_not_exist_names_those_that_do(tmp_path: Path) -> None:
    fault = fault_of(tmp_path, "preset: swin_x\n")
    assert fault.where.endswith("spec.yaml:1:9")
    assert "swin_t" in fault.hint


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("32", "fp32"),
        ('"32"', "fp32"),
        ("32-true", "fp32"),
        ("FP32", "fp32"),
        ("fp16", "fp16"),
        ("16", "fp16"),
        ('"16"', "fp16"),
        ("16-mixed", "fp16"),
        ("bf16", "bf16"),
        ("bf16-mixed", "bf16"),
        ("auto", "auto"),
    ],
)
def test_every_spelling_of_a_precision_means_what_it_says(tmp_path: Path, said: str, meant: str) -> None:
    assert spec_of(tmp_path, f"train: {{precision: {said}}}\n").train.precision == meant
    assert load_spec(None, [f"evaluate.precision={said}"], action="evaluate").evaluate.precision == meant


@pytest.mark.parametrize("said", ["MultiStep", "multistep", "MULTI_STEP"])
def test_a_choice_is_found_in_any_letter_case(tmp_path: Path, said: str) -> None:
    assert spec_of(tmp_path, f"train: {{optim: {{lr_scheduler: {said}}}}}").train.optim.lr_scheduler == "MultiStep"


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.optim.lr=1e-4", 1e-4),
        ("train.optim.lr='1e-4'", 1e-4),
        ("train.optim.lr=1", 1.0),
        ("train.num_epochs=1e2", 100),
        ("train.optim.steps=[100, 200]", [100, 200]),
        ("train.optim.max_iter=null", None),
        ("train.clip_gradients.norm_type=.inf", float("inf")),
        ("results_dir=2024", "2024"),
        ("results_dir=007", "007"),
        ("results_dir='a b: c'", "a b: c"),
        ("results_dir=s3://bucket/a=b", "s3://bucket/a=b"),
        ("results_dir=", ""),
        ("train.freeze=null", []),
        ("dataset.train.images=[a, b]", ["a", "b"]),
        ("dataset.train.images=a", "a"),
        ("dataset.image_size=[640, 480]", [640, 480]),
    ],
)
def test_the_value_of_an_override_is_yaml(override: str, value: Any) -> None:
    key = override.partition("=")[0]
    extra = ["dataset.train.annotations=[x, y]"] if key == "dataset.train.images" else []
    found: Any = load_spec(None, [*extra, override], action="train")
    for name in key.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


def test_an_override_can_change_one_entry_of_a_table(tmp_path: Path) -> None:
    text = "dataset: {task_prob_train: {semantic: 0.5, instance: 0.5}}\n"
    spec = spec_of(tmp_path, text, "dataset.task_prob_train.semantic=0.25", "dataset.task_prob_train.panoptic=0.25")
    assert spec.dataset.task_prob_train == {"semantic": 0.25, "instance": 0.5, "panoptic": 0.25}


def test_a_table_in_the_file_replaces_the_default_as_a_whole(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "dataset: {task_prob_train: {semantic: 1}}\n")
    assert spec.dataset.task_prob_train == {"semantic": 1.0}


@pytest.mark.parametrize("word", ["foo", "-train.num_epochs", "train.num_epochs=[3", "=3", "train=3"])
def test_a_word_that_is_no_override_says_how_one_looks(tmp_path: Path, word: str) -> None:
    fault = fault_of(tmp_path, "", word)
    assert fault.where.startswith("command line")
    assert fault.hint


def test_all_faults_of_a_spec_come_together_each_with_its_place(tmp_path: Path) -> None:
    text = "train:\n  num_epochs: 0\n  optim: {lr: -1, lrr: 3}\ndataset:\n  min_scale: 3.0\n"
    faults = faults_of(tmp_path, text, "evaluate.task=all_of_them", "nonsense")
    places = sorted(f.where.replace(str(tmp_path), "") for f in faults)
    assert places == [
        "/spec.yaml:2:15",
        "/spec.yaml:3:15",
        "/spec.yaml:3:19",
        "/spec.yaml:5:14",
        "command line",
        "command line, evaluate.task",
    ]


@pytest.mark.parametrize(
    ("text", "place", "near"),
    [
        ("trian: {num_epochs: 3}", "1:1", "train"),
        ("train: {num_epoch: 3}", "1:9", "train.num_epochs"),
        ("train: {lr: 3}", "1:9", "train.optim.lr"),
        ("train: {learning_rate: 3}", "1:9", "train.optim.lr"),
        ("batch_size: 3", "1:1", "dataset.train.batch_size"),
        ("model: {num_classes: 3}", "1:9", "model.sem_seg_head.num_classes"),
        ("model: {swin: {embed_dim: 3}}", "1:9", "model.backbone.swin"),
    ],
)
def test_an_unknown_key_names_the_right_one(tmp_path: Path, text: str, place: str, near: str) -> None:
    fault = fault_of(tmp_path, text + "\n")
    assert fault.where.endswith(f"spec.yaml:{place}")
    assert near in fault.hint.removeprefix("did you mean ").removesuffix("?").split(" or ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {optim: {lr: 3}}", "above 0 and at most 1"),
        ("train: {optim: {lr: 0}}", "above 0 and at most 1"),
        ("train: {optim: {lr: .nan}}", "above 0 and at most 1"),
        ("model: {one_former: {mask_weight: .inf}}", "of at least 0"),
        ("train: {num_epochs: 1.5}", "a whole number of at least 1"),
        ("train: {num_epochs: true}", "a whole number of at least 1"),
        ("train: {num_epochs: null}", "a whole number of at least 1"),
        ("train: {num_epochs: [3]}", "a whole number of at least 1"),
        ("train: {seed: 4294967296}", "at most 4294967295"),
        ("train: {verbose: yes}", "true or false"),
        ("train: {verbose: 1}", "true or false"),
        ("train: {gpu_ids: 0}", "a list of whole numbers of at least 0"),
        ("train: {gpu_ids: [0, -1]}", "(its part -1)"),
        ("results_dir: [a]", "must be text"),
        ("results_dir: true", "must be text"),
        ("dataset: {pixel_mean: [1, 2]}", "a list of 3 numbers of at least 0 and at most 255"),
        ("dataset: {augmentation: {train_crop_size: [512]}}", "a list of 2 whole numbers of at least 1 (pixels)"),
        ("inference: {mode: panoptics}", "one of semantic, instance, panoptic, all"),
        ("model: {backbone: {swin: {out_features: [res6]}}}", "res2, res3, res4 or res5"),
        ("quantize: {device: 'cuda:x'}", "cuda, cuda:<number>, cpu or trt"),
        ("train: 3", "it is a section"),
        ("model: {sem_seg_head: {norm: LN}}", "must be one of GN, BN, none"),
        ("model: {one_former: {dec_layers: 1}}", "of at least 2"),
    ],
)
def test_a_value_out_of_range_says_what_is_allowed(tmp_path: Path, text: str, said: str) -> None:
    assert said in fault_of(tmp_path, text + "\n").what


@pytest.mark.parametrize("said", ["false", "3", "wide", "{a: 1}"])
def test_what_is_no_list_is_refused_where_a_list_or_nothing_may_stand(tmp_path: Path, said: str) -> None:
    with pytest.raises(UserErrors, match="model.backbone.dinat.dilations is .*but must be"):
        load(None, [f"model.backbone.dinat.dilations={said}"], action="train")


def test_a_quoted_number_says_to_take_the_quotes_away(tmp_path: Path) -> None:
    assert fault_of(tmp_path, 'train: {num_epochs: "50"}\n').hint == "take the quotes away"


def test_a_mistyped_choice_names_the_nearest(tmp_path: Path) -> None:
    assert fault_of(tmp_path, "inference: {mode: panoptics}\n").hint == "did you mean panoptic?"


def test_a_word_where_a_list_belongs_is_shown_as_a_list(tmp_path: Path) -> None:
    assert fault_of(tmp_path, "train: {freeze: backbone}\n").hint == "write [backbone]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1,\n", "not valid YAML"),
        ("train:\n\tnum_epochs: 3\n", "not valid YAML"),
        ("train: *unknown\n", "not valid YAML"),
        ("- 1\n- 2\n", "a spec is a table"),
        ("just words\n", "a spec is a table"),
        ("train: {num_epochs: 1, num_epochs: 2}\n", "a second time"),
        ("train: {num_epochs: 1}\nmodel: {}\ntrain: {}\n", "a second time"),
        ("results_dir: !!python/object/apply:os.system [ls]\n", "tag"),
        ("results_dir: !custom x\n", "tag"),
        ("train: !!set {a, b}\n", "tag"),
        ("train: &x {optim: *x}\n", "contains itself"),
        ("? [a, b]\n: 3\n", "has to be a word"),
        ("a: 1\n---\nb: 2\n", "another document"),
    ],
)
def test_broken_or_dangerous_yaml_is_one_clear_fault_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    fault = fault_of(tmp_path, text)
    assert said in fault.what
    assert "spec.yaml:" in fault.where


def test_nested_aliases_cannot_fill_the_memory(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert "more than" in fault_of(tmp_path, "\n".join(lines)).what


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_bytes(b"\xff\xfe\x00binary\x80")
    with pytest.raises(UserErrors, match=r"spec\.yaml: the file is not UTF-8"):
        load_spec(file, action="train")


def test_a_missing_file_names_the_nearest_folder_and_its_specs(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("{}")
    with pytest.raises(UserErrors) as caught:
        load_spec(tmp_path / "no" / "where" / "spec.yaml", action="train")
    assert f"{tmp_path} holds other.yaml" in caught.value.message


def test_a_folder_instead_of_a_file_names_its_specs(tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text("{}")
    with pytest.raises(UserErrors, match=r"this is a folder(.|\n)*holds mine\.yml"):
        load_spec(tmp_path, action="train")


def test_aliases_and_merges_share_values(tmp_path: Path) -> None:
    text = "dataset:\n  train: &split {batch_size: 4, images: a}\n  val: *split\n  test: {<<: *split, images: b}\n"
    data = spec_of(tmp_path, text).dataset
    assert (data.val.images, data.test.images, data.test.batch_size) == ("a", "b", 4)


def test_a_seed_of_minus_one_becomes_a_drawn_one_that_can_be_used_again() -> None:
    seeds = {load_spec(None, ["train.seed=-1"], action="train").train.seed for _ in range(4)}
    assert len(seeds) > 1
    assert min(seeds) >= 0


def test_loading_twice_never_shares_a_list() -> None:
    first, second = load_spec(None, action="train"), load_spec(None, action="train")
    first.train.optim.milestones.append(7)
    assert second.train.optim.milestones == [88, 96]


def test_only_set_keys_count_as_set() -> None:
    loaded = load(None, ["preset=swin_t", "train.num_epochs=3"], action="train")
    assert set(loaded.set_keys) == {"preset", "train.num_epochs"}


def test_an_entry_deep_within_a_table_brings_the_others_along() -> None:
    words = (
        "automl.objectives={PQ: {direction: maximize, weight: 2}}", "automl.objectives.PQ.weight=3",
        "automl.objectives.size_mib={direction: minimize}", "automl.ranges.train.optim.lr={valid_max: 1e-3}",
        "automl.ranges.train.optim.weight_decay={valid_max: 0.1}", "automl.ranges.train.optim.lr={valid_max: 1e-2}",
    )  # fmt: skip
    automl = load_spec(None, words, action="automl run").automl
    assert automl.objectives == {"PQ": {"direction": "maximize", "weight": 3}, "size_mib": {"direction": "minimize"}}
    assert automl.ranges == {"train.optim.weight_decay": {"valid_max": 0.1}, "train.optim.lr": {"valid_max": 0.01}}
    one = load_spec(None, [*words[:1], "automl.objectives.PQ={direction: maximize}"], action="automl run").automl
    assert one.objectives == {"PQ": {"direction": "maximize"}}
