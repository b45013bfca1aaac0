"""The settings of NVIDIA TAO's AutoML -> what each means here, or why it has no effect."""

from __future__ import annotations

from typing import Any

NAMES = {"b": "bayesian", "h": "hyperband", "hes": "hyperband_es"}
METRICS = {"kpi": "mIoU", "loss": "train_loss", "latency": "latency_ms"}
BRACKETS = ("asha", "hyperband", "hyperband_es", "bohb", "dehb")
_MODELS = ("llm", "hybrid", "autoresearch")

# TAO's setting -> our key.
OURS: dict[str, str] = {
    "algorithm": "automl.algorithm",
    "automl_algorithm": "automl.algorithm",
    "metric": "automl.metric",
    "random_seed": "automl.seed",
    "num_recommendations": "automl.max_trials",
    "automl_max_recommendations": "automl.max_trials",
    "automl_max_trials": "automl.max_trials",
    "automl_max_experiments": "automl.max_trials",
    "automl_population_size": "automl.max_trials",
    "automl_max_concurrent": "automl.max_concurrent",
    "automl_reduction_factor": "automl.reduction_factor",
    "automl_nu": "automl.reduction_factor",
    "automl_early_stop_threshold": "automl.early_stop_threshold",
    "automl_eval_interval": "automl.min_epochs",
    "automl_hyperparameters": "automl.parameters",
    "automl_range_override": "automl.ranges",
    "automl_enabled": "automl_policy",
    "llm_endpoint": "automl.llm.endpoint",
    "base_url": "automl.llm.endpoint",
    "llm_model": "automl.llm.model",
    "model": "automl.llm.model",
    "llm_temperature": "automl.llm.temperature",
    "llm_max_tokens": "automl.llm.max_tokens",
    "llm_timeout": "automl.llm.timeout_s",
    "llm_max_retries": "automl.llm.retries",
    "research_program": "automl.llm.notes",
}
# TAO's setting -> the algorithms that read it; the others read it all.
READ_BY: dict[str, tuple[str, ...]] = {
    "num_recommendations": ("bayesian", "bfbo", "random", "llm", *BRACKETS, "hybrid", "autoresearch"),
    "automl_max_recommendations": ("bayesian", "bfbo", "random", "llm", *BRACKETS, "hybrid", "autoresearch"),
    "automl_max_trials": ("asha",),
    "automl_max_experiments": ("hybrid", "autoresearch"),
    "automl_population_size": ("pbt",),
    "automl_eval_interval": ("pbt",),
    "automl_early_stop_threshold": ("hyperband_es",),
    "automl_reduction_factor": BRACKETS,
    "automl_nu": BRACKETS,
    "automl_max_epochs": BRACKETS,
    "automl_R": BRACKETS,
    "epoch_multiplier": BRACKETS,
    **{name: _MODELS for name, key in OURS.items() if key.startswith("automl.llm.")},
}
_OWN = "the spec's own values are always trained first"
_AGAIN = "oneformer automl verify scores the best checkpoint again"
_DECIDE = "automl.combine says how several objectives decide"
_COUNTED = "the images are counted"
_TPE = "TPE is Optuna's here, with settings of its own"
_DE = "differential evolution uses the factors of its paper, 0.5 each"
_FOLDER = "the folder is the identity of a search (automl.results_dir)"
# TAO's setting -> (values that are what happens here anyway, why any other has no effect).
IDLE: dict[str, tuple[tuple[Any, ...], str]] = {
    "session_id": ((), _FOLDER),
    "experiment_id": ((), _FOLDER),
    "run_baseline": ((True,), _OWN),
    "baseline_metric": ((), _OWN),
    "baseline_record_path": ((), _OWN),
    "run_final_evaluation": ((False,), _AGAIN),
    "final_evaluation": ((False,), _AGAIN),
    "final_evaluation_metric": ((), _AGAIN),
    "final_evaluation_record_path": ((), _AGAIN),
    "evaluation_records_dir": ((), _AGAIN),
    "reuse_best_metric_for_final_evaluation": ((False,), _AGAIN),
    "automl_delete_intermediate_ckpt": ((True,), "checkpoints that nothing asks for any more are always removed"),
    "automl_checkpoint_retention_strategy": (
        ("auto", "best"),
        "the best checkpoint of a trial is kept, and its latest while it may go on",
    ),
    "allow_unsafe_effective_batch": ((False,), "no batch is changed; what cannot be trained is told as impossible"),
    "automl_max_generations": ((20,), "train.num_epochs and automl.min_epochs say how many generations there are"),
    "automl_perturbation_factor": ((1.2,), "numbers are changed by the factors of the paper, 0.8 and 1.2"),
    "automl_mutation_factor": ((0.5,), _DE),
    "automl_crossover_prob": ((0.5,), _DE),
    "automl_min_early_stop_epochs": ((3,), "a curve is looked at from its third validation on"),
    "automl_kde_samples": ((64,), _TPE),
    "automl_top_n_percent": ((15,), _TPE),
    "automl_min_points_in_model": ((10,), _TPE),
    "automl_min_top_configs": ((5,), "the number of trials ends a search (automl.max_trials)"),
    "llm_analysis_interval": ((), "all trials are told with each question"),
    "llm_retry_delay": ((), "each pause is twice as long as the one before, or as long as the address wants"),
    "override_automl_disabled_params": ((False,), "a key that cannot be searched is refused with its reason"),
    "evolvable_text_parameters": (([],), "no key of this network is a text to evolve"),
    "require_eval_fn_success": ((True,), "a trial without a score of every objective has failed"),
    **dict.fromkeys(
        ("selection_mode", "latency_accuracy_retention", "multi_objective_min_accuracy", "accuracy_constraint",
         "objective_normalization", "augmentation_rho", "accuracy_tolerance", "latency_tolerance",
         "selection_score_tolerance"),
        ((), _DECIDE),
    ),
    **dict.fromkeys(
        ("train_sample_count", "training_sample_count", "num_train_samples", "train_samples", "dataset_sample_count",
         "dataset_size", "samples_per_epoch", "custom.train_dataset.sample_count", "custom.train_dataset.num_samples",
         "custom.train_dataset.size", "dataset.train_sample_count", "dataset.num_train_samples",
         "data.train_sample_count", "train.num_samples"),
        ((), _COUNTED),
    ),
}  # fmt: skip
# Read together below.
LENGTHS = ("automl_max_epochs", "automl_R", "epoch_multiplier")
KEYS = ("llm_api_key", "api_key")
NARROWING = ("hybrid_enable_llm_range_narrowing", "enable_llm_range_narrowing")
GOAL = (
    "direction", "objectives", "multi_objective", "include_latency", "latency_objective", "latency_metric",
    "latency_direction", "latency_weight", "latency_scale", "metric_weight", "metric_scale",
)  # fmt: skip
NESTED = "algorithm_specific_params"
KNOWN = (*OURS, *IDLE, *LENGTHS, *KEYS, *NARROWING, *GOAL, NESTED)
