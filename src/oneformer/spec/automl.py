"""The `automl` section: what a search for better settings may change, and how."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from oneformer.spec.field import Spellings, Unit
from oneformer.spec.llm import LlmSpec


@dataclass
class AutomlSpec:
    """Search for better settings by many trainings (`oneformer automl`)."""

    parameters: list[str] = field(default_factory=list)
    """Keys to search, such as `train.optim.lr`; empty takes the default ones of `automl.tier` and those in
    `automl.ranges`."""
    ranges: dict[str, Any] = field(default_factory=dict)
    """Ranges of your own by key: `valid_min` and `valid_max`, or `valid_options` with `option_weights`; `scale` is
    linear or log. `math_cond` is `> 0`, `/ 32` (multiples), `^ 2` (powers), or `> depends_on` with the key that
    `depends_on` names."""
    tier: Annotated[int, Ge(0), Le(2)] = 0
    """How many keys are searched by default: 1 the few that matter most, 2 also the weights of the losses, dropout and
    the schedule. 0 takes 2 from 40 trials on."""
    algorithm: Literal[
        "asha", "hyperband", "hyperband_es", "bohb", "dehb", "pbt", "random", "bayesian", "bfbo", "llm", "hybrid",
        "autoresearch",
    ] = "asha"  # fmt: skip
    """Which trials train on: `asha` promotes the best as soon as they are known, and so do `hybrid` and `autoresearch`,
    where a language model (`automl.llm`) proposes too; `hyperband`, `hyperband_es`, `bohb` and `dehb` run brackets from
    many short to few long trainings; in `pbt` the worst go on from the best one's weights; `random`, `bayesian`, `bfbo`
    and `llm` train every trial to the end."""
    sampler: Literal[
        "auto", "tpe", "gp", "cmaes", "nsga2", "de", "qmc", "random", "llm", "hybrid", "autoresearch"
    ] = "auto"  # fmt: skip
    """Where new trials come from: `tpe`, `gp`, `cmaes`, `nsga2` and `de` (differential evolution) learn from those
    before, `qmc` spreads them evenly, `llm` asks a language model (`automl.llm`), `hybrid` mixes that with tpe, and in
    `autoresearch` it may change the ranges besides. `auto` is the algorithm's own: tpe for asha and bohb, gp for
    bayesian and bfbo, de for dehb, qmc for pbt, random for hyperband, hyperband_es and random, llm, hybrid and
    autoresearch for those of this name."""
    llm: LlmSpec = field(default_factory=LlmSpec)
    """The language model that proposes trials under `llm`, `hybrid` and `autoresearch`."""
    max_trials: Annotated[int, Ge(0)] = 0
    """Settings to try, the spec's own among them; for pbt those that train side by side. 0 takes 20, for pbt 10, and
    all brackets of hyperband, hyperband_es, bohb and dehb."""
    min_epochs: Annotated[int, Ge(1), Unit("epochs")] = 1
    """Shortest training after which a trial is compared with others; for pbt the shortest generation."""
    early_stop_threshold: Annotated[float, Ge(0), Le(1)] = 0.1
    """Of hyperband_es: a trial is given up when its curve would end by more than this share of the best score below
    the best."""
    reduction_factor: Annotated[int, Ge(2), Le(16)] = 3
    """One of this many trials goes on from each rung to the next, which is as many times longer."""
    seed: Annotated[int, Ge(0), Le(2**31 - 1)] = 0
    """Starting point of all draws of the search."""
    metric: Annotated[
        Literal["auto", "PQ", "PQ_things", "mIoU", "AP", "train_loss"],
        Spellings((("kpi", "mIoU"), ("loss", "train_loss"))),
    ] = "auto"
    """Score to search for; more is better, except for the training loss. `auto` takes what `train.best_metric` does."""
    objectives: dict[str, Any] = field(default_factory=dict)
    """Several objectives by name, such as `PQ: {direction: maximize}`, with `weight` and `scale` if wanted: the scores
    of `automl.metric`, `latency_ms` and `size_mib`. The first score chooses the checkpoint of a training."""
    combine: Literal["weighted", "pareto"] = "weighted"
    """How several objectives decide: by their weighted sum, or as a Pareto front in which none counts more."""
    finalists: Annotated[int, Ge(0)] = 0
    """Best trials that are trained again with fresh seeds, which alone decide between them; 0 believes the first
    score."""
    fresh_seeds: Annotated[int, Ge(1)] = 2
    """How often each finalist is trained again."""
    max_concurrent: Annotated[int, Ge(1)] = 1
    """Trials that train at the same time."""
    max_disk_mib: Annotated[int, Ge(0), Unit("MiB")] = 0
    """Most disk space that the checkpoints of all trials take together; 0 sets no limit. The least promising of those
    that wait make room, and start from the beginning if they are promoted after all."""
    retries: Annotated[int, Ge(0)] = 2
    """How often a trial that a fault of the machine has broken off goes on from its last checkpoint."""
    results_dir: str = ""
    """Folder of the search, which is its identity: the same folder goes on with it. Empty means `automl` under the
    common `results_dir`."""
