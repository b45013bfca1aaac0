"""TAO's settings of a search: each is known, means what it means there or says why not, and contradicts nothing silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from oneformer import cli
from oneformer.errors import UserErrors
from oneformer.spec import AutomlSpec, ExperimentSpec
from oneformer.spec.load import Loaded, load
from oneformer.spec.tao_settings import GOAL, IDLE, KEYS, KNOWN, LENGTHS, NARROWING, NESTED, OURS, READ_BY
from oneformer.spec.tree import leaves

# All that NVIDIA TAO's runner knows (reference: tao-automl, KNOWN_AUTOML_SETTINGS and its aliases).
THEIRS = """algorithm allow_unsafe_effective_batch api_key automl_checkpoint_retention_strategy automl_crossover_prob
automl_delete_intermediate_ckpt automl_early_stop_threshold automl_eval_interval automl_kde_samples
automl_max_concurrent automl_max_epochs automl_max_experiments automl_max_generations automl_max_recommendations
automl_max_trials automl_min_early_stop_epochs automl_min_points_in_model automl_min_top_configs
automl_mutation_factor automl_perturbation_factor automl_population_size automl_range_override
automl_reduction_factor automl_top_n_percent base_url baseline_metric baseline_record_path direction
enable_llm_range_narrowing epoch_multiplier evaluation_records_dir experiment_id final_evaluation
final_evaluation_metric final_evaluation_record_path hybrid_enable_llm_range_narrowing include_latency
latency_direction latency_metric latency_objective latency_scale latency_weight llm_analysis_interval llm_api_key
llm_endpoint llm_max_tokens llm_model llm_temperature metric metric_scale metric_weight model multi_objective
num_recommendations objectives research_program reuse_best_metric_for_final_evaluation run_baseline
run_final_evaluation session_id train_sample_count training_sample_count num_train_samples train_samples
dataset_sample_count dataset_size samples_per_epoch""".split()  # noqa: SIM905


def settings(said: str, *words: str) -> Loaded:
    return load(None, [f"automl_settings={{{said}}}", *words], action="automl run")


def automl(said: str, *words: str) -> AutomlSpec:
    found = settings(said, *words)
    assert not found.warnings, found.warnings
    return found.spec.automl


def wrong(*words: str) -> str:
    with pytest.raises(UserErrors) as error:
        load(None, words, action="automl run")
    return error.value.message


def test_every_setting_of_tao_is_known_once() -> None:
    assert set(THEIRS) <= set(KNOWN) and len(KNOWN) == len(set(KNOWN))
    assert set(OURS.values()) <= set(leaves()) and set(READ_BY) <= {*OURS, *LENGTHS}
    groups = (OURS, IDLE, LENGTHS, KEYS, NARROWING, GOAL, (NESTED,))
    assert sum(len(group) for group in groups) == len(KNOWN)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("algorithm: bayesian, automl_max_recommendations: 7", {"algorithm": "bayesian", "max_trials": 7}),
        ("algorithm: b, num_recommendations: 7", {"algorithm": "bayesian", "max_trials": 7}),
        ("automl_algorithm: HES, automl_early_stop_threshold: 0.2", {"algorithm": "hyperband_es"}),
        (
            "algorithm: asha, automl_max_trials: 30, automl_reduction_factor: 4",
            {"max_trials": 30, "reduction_factor": 4},
        ),
        ("algorithm: asha, automl_max_concurrent: 4, automl_min_top_configs: 5", {"max_concurrent": 4}),
        ("algorithm: pbt, automl_population_size: 6, automl_eval_interval: 2", {"max_trials": 6, "min_epochs": 2}),
        ("algorithm: bohb, automl_kde_samples: 64, automl_top_n_percent: 15.0", {"algorithm": "bohb"}),
        ("algorithm: dehb, automl_mutation_factor: .5, automl_crossover_prob: 0.5", {"algorithm": "dehb"}),
        ("algorithm: autoresearch, automl_max_experiments: 50", {"max_trials": 50}),
        ("algorithm: bayesian, metric: kpi, direction: maximize", {"metric": "mIoU"}),
        ("algorithm: bayesian, metric: loss, direction: minimize", {"metric": "train_loss"}),
        ("algorithm: bayesian, random_seed: 7, run_baseline: true", {"seed": 7}),
        ("algorithm: bayesian, automl_hyperparameters: '[\"train.optim.lr\"]'", {"parameters": ["train.optim.lr"]}),
        ("algorithm_specific_params: {automl_max_trials: 9}, automl_algorithm: asha", {"max_trials": 9}),
        ("algorithm: bayesian, automl_delete_intermediate_ckpt: true, metric: null", {"metric": "auto"}),
    ],
)
def test_settings_mean_what_they_mean_there(said: str, expected: dict[str, Any]) -> None:
    found = automl(said)
    assert {key: getattr(found, key) for key in expected} == expected


def test_the_language_model_is_named_by_either_name() -> None:
    said = (
        "algorithm: llm, base_url: 'http://127.0.0.1:1/v1', model: m, llm_temperature: 0.7, llm_max_tokens: 99, "
        "llm_timeout: 60, llm_max_retries: 3, research_program: leaves of maize"
    )
    llm = automl(said).llm
    assert (llm.endpoint, llm.model, llm.temperature, llm.max_tokens) == ("http://127.0.0.1:1/v1", "m", 0.7, 99)
    assert (llm.timeout_s, llm.retries, llm.notes) == (60.0, 3, "leaves of maize")


@pytest.mark.parametrize("name", ["llm_api_key", "api_key"])
def test_a_key_in_a_spec_is_refused_and_not_repeated(name: str) -> None:
    told = wrong(f"automl_settings={{algorithm: llm, {name}: sk-very-secret}}")
    assert f"automl_settings.{name} is not read" in told and "AUTOML_LLM_API_KEY" in told and "very-secret" not in told


def test_the_longest_training_is_the_whole_one() -> None:
    found = settings("algorithm: hyperband, automl_max_epochs: 27").spec
    assert (found.train.num_epochs, found.automl.min_epochs) == (27, 1)
    found = settings("algorithm: asha, automl_R: 9, epoch_multiplier: 2").spec
    assert (found.train.num_epochs, found.automl.min_epochs) == (18, 2)
    assert settings("algorithm: asha, automl_max_epochs: 27", "preset=nano").spec.train.num_epochs == 27
    told = wrong("automl_settings={algorithm: asha, automl_max_epochs: 27}", "train.num_epochs=10")
    assert "automl_settings.automl_max_epochs is 27, but train.num_epochs is 10" in told
    assert "whole number" in wrong("automl_settings={algorithm: asha, automl_max_epochs: many}")


def test_a_policy_is_whether_a_search_is_wanted() -> None:
    assert settings("automl_enabled: true").spec.automl_policy == "on"
    assert "automl_policy is the text 'off'" in wrong("automl_settings={automl_enabled: true}", "automl_policy=off")


@pytest.mark.parametrize(
    ("said", "warning"),
    [
        ("session_id: abc", "automl_settings.session_id has no effect: the folder is the identity"),
        ("run_baseline: false", "always trained first"),
        ("run_final_evaluation: true", "oneformer automl verify"),
        ("automl_delete_intermediate_ckpt: false", "always removed"),
        ("automl_checkpoint_retention_strategy: terminal", "the best checkpoint of a trial is kept"),
        ("train_sample_count: 900", "the images are counted"),
        ("algorithm: bayesian, automl_max_epochs: 27", "only asha, hyperband, hyperband_es, bohb and dehb read it"),
        ("algorithm: asha, automl_population_size: 6", "only pbt reads it, and automl.algorithm is asha"),
        ("algorithm: pbt, automl_max_recommendations: 6", "automl.algorithm is pbt"),
        ("algorithm: pbt, automl_perturbation_factor: 1.5", "0.8 and 1.2"),
        ("algorithm: asha, llm_model: m", "only llm, hybrid and autoresearch read it"),
        ("metric: kpi, metric_weight: 2", "there is one objective"),
        ("latency_weight: 2", "include_latency is not set"),
        ("selection_mode: latency", "automl.combine says"),
        ("algorithm: asha, enable_llm_range_narrowing: true", "automl.algorithm is asha, not hybrid"),
    ],
)
def test_what_has_no_effect_says_why(said: str, warning: str) -> None:
    (told,) = settings(said).warnings
    assert warning in told


def test_every_idle_setting_is_silent_only_where_it_says_what_happens_anyway() -> None:
    for name, (fine, why) in IDLE.items():
        assert why and not settings(f"'{name}': null").warnings
        assert [f"automl_settings.{name} has no effect: {why}"] == settings(f"'{name}': something").warnings
        for value in fine:
            assert not settings(f"'{name}': {str(value).lower()}").warnings, name


def test_a_hybrid_that_may_narrow_ranges_is_autoresearch() -> None:
    found = settings("hybrid_enable_llm_range_narrowing: true, algorithm: hybrid")
    assert found.spec.automl.algorithm == "autoresearch" and "is read as autoresearch" in found.warnings[0]
    assert automl("hybrid_enable_llm_range_narrowing: false, algorithm: hybrid").algorithm == "hybrid"


def test_objectives_are_those_of_ours() -> None:
    listed = "objectives: [{metric: PQ, direction: maximize, weight: 2}, {metric: latency, direction: minimize}]"
    assert automl(f"{listed}, multi_objective: true").objectives == {
        "PQ": {"direction": "maximize", "weight": 2}, "latency_ms": {"direction": "minimize"}
    }  # fmt: skip
    table = "objectives: {kpi: maximize, loss: {direction: minimize, scale: 3}}"
    assert automl(table).objectives == {
        "mIoU": {"direction": "maximize"}, "train_loss": {"direction": "minimize", "scale": 3}
    }  # fmt: skip
    latency = automl("metric: kpi, metric_weight: 3, include_latency: true, latency_weight: 0.5, latency_scale: 10")
    assert latency.metric == "mIoU" and latency.objectives == {
        "mIoU": {"direction": "maximize", "weight": 3},
        "latency_ms": {"direction": "minimize", "weight": 0.5, "scale": 10},
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("automl_settings={algorithim: b}",), "did you mean algorithm?"),
        (("automl_settings=bayesian",), "must be a table"),
        (("automl_settings={algorithm: smac}",), "automl.algorithm is the text 'smac'"),
        (("automl_settings={metric: mAP50}",), "automl.metric is the text 'mAP50'"),
        (("automl_settings={algorithm: b}", "automl.algorithm=asha"), "but automl.algorithm is the text 'asha'"),
        (("automl_settings={algorithm: b, automl_algorithm: asha}",), "and both say automl.algorithm"),
        (("automl_settings={num_recommendations: 5, automl_max_recommendations: 20}",), "both say automl.max_trials"),
        (("automl_settings={llm_model: a, model: b, algorithm: llm}",), "both say automl.llm.model"),
        (
            ("automl_settings={automl_max_trials: 5, algorithm_specific_params: {automl_max_trials: 6}}",),
            "algorithm_specific_params.automl_max_trials is 6, but automl_settings.automl_max_trials is 5",
        ),
        (("automl_settings={metric: kpi, direction: minimize}",), "but automl_settings.metric is mIoU, of which more"),
        (("automl_settings={direction: minimize}",), "automl.metric is auto"),
        (("automl_settings={direction: up}",), "must be minimize or maximize"),
        (("automl_settings={include_latency: true}",), "needs automl_settings.metric"),
        (("automl_settings={metric: kpi, include_latency: true, latency_metric: p99}",), "there is no latency p99"),
        (("automl_settings={objectives: [PQ]}",), "tables with metric and direction"),
        (
            ("automl_settings={objectives: {PQ: maximize, loss: minimize}, multi_objective: false}",),
            "is false, but there are the objectives PQ, train_loss",
        ),
        (("automl_hyperparameters=[train.optim.lr]", "automl.parameters=[train.optim.power]"), "automl_hyperparameters is"),
        (("custom_param_ranges=7",), "custom_param_ranges is 7, but must be a table"),
        (("automl_settings={automl_range_override: [{valid_min: 1}]}",), "names its parameter"),
        (
            (
                "custom_param_ranges={train.optim.lr: {valid_max: 1e-2}}",
                "automl_settings={automl_range_override: [{parameter: train.optim.lr, valid_max: 1e-3}]}",
            ),
            "custom_param_ranges.train.optim.lr is a table",
        ),
        (
            ("custom_param_ranges={train.optim.lr: {valid_max: 1e-2}}", "automl.ranges={train.optim.lr: {valid_max: 1e-3}}"),
            "but automl.ranges.train.optim.lr is",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_or_contradicts_is_told_by_its_name(words: tuple[str, ...], message: str) -> None:
    assert message in wrong(*words)


def test_the_same_said_twice_is_no_contradiction() -> None:
    said = "num_recommendations: 5, automl_max_recommendations: 5, algorithm: bayesian, metric: kpi"
    assert automl(said, "automl.algorithm=bayesian", "automl.metric=kpi").max_trials == 5


def test_ranges_and_lists_stand_beside_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "tao.yaml"
    file.write_text(
        """
automl_settings:
  algorithm: asha
  automl_max_trials: 12
  metric: kpi
  automl_range_override:
    - {parameter: train.optim.weight_decay, valid_max: 0.1}
automl_hyperparameters: [train.optim.lr, train.optim.weight_decay]
custom_param_ranges:
  train.optim.lr: {valid_min: 1.0e-5, valid_max: 1.0e-3, math_cond: "> 0.0", depends_on: null, disable_list: true}
automl:
  max_concurrent: 2
train: {num_epochs: 9}
""",
        encoding="utf-8",
    )
    found = load(file, action="automl run")
    assert not found.warnings
    assert found.spec.automl == AutomlSpec(
        algorithm="asha", max_trials=12, metric="mIoU", max_concurrent=2,
        parameters=["train.optim.lr", "train.optim.weight_decay"],
        ranges={
            "train.optim.lr": {
                "valid_min": 1e-5, "valid_max": 1e-3, "math_cond": "> 0.0", "depends_on": None, "disable_list": True
            },
            "train.optim.weight_decay": {"valid_max": 0.1},
        },
    )  # fmt: skip
    assert cli.main(["automl", "space", "-e", str(file)]) == cli.DONE


def test_an_error_stands_where_the_setting_does(tmp_path: Path) -> None:
    file = tmp_path / "tao.yaml"
    file.write_text("automl:\n  seed: 3\nautoml_settings:\n  random_seed: 4\n", encoding="utf-8")
    with pytest.raises(UserErrors) as error:
        load(file, action="automl run")
    assert error.value.message.startswith(f"{file}:4:3: automl_settings.random_seed is 4, but automl.seed is 3")
    assert f"({file}:2:9)" in error.value.message


def test_a_spec_without_them_is_left_alone() -> None:
    assert load(None, ["automl_settings={}"], action="automl run").spec.automl == ExperimentSpec().automl
    assert "there is no key automl_setings" in wrong("automl_setings={}")


def test_the_command_line_wins_over_a_file_as_everywhere(tmp_path: Path) -> None:
    file = tmp_path / "tao.yaml"
    file.write_text(
        "automl_settings: {algorithm: asha, automl_max_trials: 12, automl_max_epochs: 9}\n"
        "custom_param_ranges: {train.optim.lr: {valid_max: 1.0e-3}}\nautoml: {seed: 3}\n",
        encoding="utf-8",
    )
    words = ("automl.max_trials=4", "train.num_epochs=2", "automl_settings.random_seed=5")
    found = load(file, words, action="automl run").spec
    assert (found.automl.max_trials, found.train.num_epochs, found.automl.seed) == (4, 2, 5)
    assert found.automl.algorithm == "asha" and "train.optim.lr" in found.automl.ranges
    with pytest.raises(UserErrors, match="both say automl.max_trials"):
        load(file, ["automl_settings={algorithm: asha, automl_max_trials: 1, num_recommendations: 2}"], action="a")
