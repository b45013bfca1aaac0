"""Rule 4, no dead field: whole commands read every key of the spec but those in `spec/unread.py`, and none of those."""

from __future__ import annotations

import contextlib
import json
import types
from pathlib import Path
from unittest import mock

import pytest
import torch

from house.effects_backbones import BACKBONES, TIMM_ON, timm_work
from house.look_automl import pretending
from house.look_model import work
from house.look_runs import photos
from house.look_trt import graphs, libraries
from house.recorder import Recorder
from house.world import World
from oneformer import cli
from oneformer.schema import readers
from oneformer.spec.tree import leaves
from oneformer.spec.unread import reason
from stand_in import stand_in
from two_layers import two_layers

STEPS = (
    "train.optim.lr_scheduler=MultiStep", "train.optim.warmup_iters=1", "train.clip_grad_norm=1", "train.verbose=true",
    "train.ema.enabled=true", "train.freeze=[text]", "train.pretrained_model={checkpoint}", "wandb.enable=true",
    "model.backbone.swin.ape=true", "dataset.augmentation.blur_prob=1", "dataset.augmentation.erase_prob=1",
)  # fmt: skip
SHAPES = (
    "model.backbone.name=resnet50", "dataset.augmentation.train_resize=shortest_edge",
    "dataset.augmentation.train_min_size=[64]", "train.is_dry_run=true", "results_dir={root}/trained",
    "train.overwrite=true",
)  # fmt: skip
# Command and overrides. Those for a GPU end with a refusal where there is none, after the keys were read.
STORIES = {
    "search": ("automl run", "automl.max_trials=2", "automl.algorithm=random", "automl.finalists=1"),
    "search with forecasts": ("automl run", "automl.max_trials=2", "automl.algorithm=hyperband_es"),
    "search with a language model that is not there": (
        "automl run", "automl.max_trials=2", "automl.algorithm=hybrid", "automl.llm.endpoint=http://127.0.0.1:9/v1",
        "automl.llm.model=small", "automl.llm.share=1", "automl.llm.retries=0", "automl.llm.fallback=random",
    ),
    "train with drops": ("train", *STEPS),
    "train another network": ("train", *SHAPES),
    "train on a GPU": ("train", "train.is_dry_run=true", "train.accelerator=gpu"),
    "evaluate": ("evaluate", "evaluate.checkpoint={checkpoint}"),
    "evaluate val": ("evaluate", "evaluate.checkpoint={checkpoint}", "dataset.test.annotations="),
    "evaluate on a GPU": ("evaluate", "evaluate.checkpoint={checkpoint}", "evaluate.accelerator=gpu"),
    "predict": ("inference", "inference.checkpoint={checkpoint}", "inference.images_dir={root}/photos"),
    "predict on a GPU": (
        "inference",
        "inference.checkpoint={checkpoint}",
        "inference.images_dir={root}/photos",
        "inference.accelerator=gpu",
    ),
    "export": (
        "export", "export.checkpoint={checkpoint}", "export.input_height=64", "export.input_width=96",
        "export.parity_images_dir={root}/photos",
    ),
    "build an engine": (
        "gen_trt_engine", "gen_trt_engine.onnx_file={root}/graphs/open.onnx", "gen_trt_engine.accept_parity=true",
        "gen_trt_engine.tensorrt.data_type=int8", "gen_trt_engine.tensorrt.calibration_dir={root}/photos",
        "gen_trt_engine.parity_images=1", "gen_trt_engine.library=tensorrt_rtx",
    ),
    "quantize": ("quantize", "quantize.model_path={checkpoint}", "quantize.sensitivity=true"),
    "quantize a graph": (
        "quantize", "quantize.model_path={root}/graphs/model.onnx", "quantize.backend=onnxruntime",
        "quantize.mode=static_ptq", "dataset.quant_calibration_dataset.images_dir={root}/photos",
    ),
}  # fmt: skip
AROUND = {"automl run": pretending, "export": two_layers, "gen_trt_engine": libraries}


def recorded(folder: Path) -> Recorder:
    """What all stories have read."""
    world = World(folder)
    photos(world)
    graphs(world)
    fake = types.ModuleType("wandb")
    fake.init = mock.MagicMock()  # type: ignore[attr-defined]
    with stand_in("wandb", fake), Recorder() as recorder:
        for name, (verb, *more) in STORIES.items():
            words = [*world.base(world.files.data), f"results_dir={world.fresh()}", *map(world.files.words, more)]
            recorder.command = verb
            with AROUND.get(verb, contextlib.nullcontext)():
                code = cli.main([*verb.split(), *words])
            assert code == cli.DONE or (name.endswith("GPU") and code == cli.WRONG_REQUEST), name
        recorder.command = "train"
        kinds = {row.on for rows in BACKBONES.values() for row in rows.values()}
        for on in kinds:  # a training with each of them would take long
            (timm_work if set(TIMM_ON) <= set(on) else work)(world.spec(on), world)
    return recorder


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    return recorded(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="module")
def read(recorder: Recorder) -> set[str]:
    """Keys that the stories have read."""
    return recorder.read


def test_every_key_that_has_no_excuse_is_read(read: set[str]) -> None:
    unused = [key for key in leaves() if key not in read and not reason(key)]
    # `preset` is laid under the file before there is a spec; test_effects.py sees that it acts.
    assert unused == ["preset"], f"nothing reads {unused}: use them, or give the reason in spec/unread.py"


def test_no_key_that_is_called_unread_is_read(read: set[str]) -> None:
    assert sorted(key for key in read if reason(key)) == [], "take these out of spec/unread.py"


def test_who_reads_a_key_is_told_as_it_was_recorded(recorder: Recorder) -> None:
    """What `oneformer explain` says; `make docs` records it again. With a GPU more files have their turn."""
    told, stored = recorder.told(), json.loads(readers.FILE.read_text(encoding="utf-8"))
    if torch.cuda.is_available():
        told = {key: {name: [r for r in found if r in stored.get(key, {}).get(name, ())] for name, found in both.items()}
                for key, both in told.items()}  # fmt: skip
    changed = {key: both for key, both in told.items() if stored.get(key) != both}
    assert not changed and set(stored) <= set(told), "run `make docs`"


def test_the_recorder_leaves_the_spec_as_it_was(read: set[str]) -> None:
    from oneformer.spec import ExperimentSpec

    assert "__getattribute__" not in vars(ExperimentSpec) and read


def test_the_recorder_knows_who_reads() -> None:
    from oneformer.runs import run_path
    from oneformer.spec import ExperimentSpec
    from oneformer.spec.tree import to_dict

    with Recorder() as recorder:
        spec = ExperimentSpec()
        to_dict(spec)
        assert spec == ExperimentSpec() and spec.train.seed  # a test is no user
        assert recorder.read == set()
        from oneformer.actions.evaluate import chosen_split

        spec.dataset.val.annotations = "a.json"
        assert chosen_split(spec.dataset) == "val" and run_path("", "train")
    assert recorder.read == {"dataset.test.annotations", "dataset.val.annotations"}
