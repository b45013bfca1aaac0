"""A spec -> what `oneformer quantize` does with it, for the tiny network and weights in few bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from house.world import World, digest
from oneformer.actions import quantize
from oneformer.actions.plan import Plan
from oneformer.engines.torch import TorchEngine
from oneformer.quantize.calibrate import calibration
from oneformer.quantize.request import Request, understood
from oneformer.spec import ExperimentSpec

FOUR_BITS = ("quantize.layers=[{{module_name: Linear, weights: int4}}]",)
STATIC = ("quantize.backend=onnxruntime", "quantize.mode=static_ptq")


def quantized(spec: ExperimentSpec, world: World) -> list[Any]:
    """A whole quantization: the report but for times, and what is in the file."""
    spec.results_dir = str(world.fresh())
    named(spec, world)
    done = quantize.run(spec)
    assert isinstance(done, quantize.Quantized)
    told = done.report.to_dict()
    told.pop("seconds_per_image")
    return [told, digest(torch.load(done.files[0], weights_only=True))]


def named(spec: ExperimentSpec, world: World) -> None:
    """Name the trained checkpoint where no model is named."""
    spec.quantize.model_path = spec.quantize.model_path or str(world.files.checkpoint)


def requested(spec: ExperimentSpec, _: World) -> Request:
    """What is asked for."""
    return understood(spec.quantize)


def measured(spec: ExperimentSpec, world: World) -> list[Path]:
    """The photos that ranges are measured on."""
    engine = TorchEngine.from_checkpoint(world.files.checkpoint, precision="fp32", device="cpu")
    return list(calibration(spec, engine).files)


def planned(spec: ExperimentSpec, world: World) -> list[str]:
    """The files that would be written."""
    named(spec, world)
    plan = quantize.run(spec, dry_run=True)
    assert isinstance(plan, Plan)
    return list(plan.writes)


def in_the_way(spec: ExperimentSpec, world: World) -> list[str]:
    """The same where a file has the name of one of them."""
    folder = world.root / "taken" / "quantize"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "quantized_model_torchao.pth").touch()
    spec.results_dir = str(folder.parent)
    return planned(spec, world)
