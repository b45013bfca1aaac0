"""A spec -> what the commands do with it: optimiser, schedule, devices, and whole runs of train, evaluate, inference."""

from __future__ import annotations

import csv
import logging
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from house.look_model import counted
from house.world import World, digest
from oneformer import cli
from oneformer.actions import evaluate, inference, train
from oneformer.engines.torch import TorchEngine
from oneformer.loss.total import Criterion
from oneformer.model.oneformer import build_model
from oneformer.predict.setup import open_engine
from oneformer.runs import run_path
from oneformer.runs.encrypt import is_encrypted
from oneformer.spec import ExperimentSpec
from oneformer.train.clip import clip_gradients
from oneformer.train.devices import choose_devices
from oneformer.train.freeze import freeze
from oneformer.train.module import TrainingModule
from oneformer.train.optim import build_optimizer
from oneformer.train.records import open_wandb
from oneformer.train.resume import claim_folder
from oneformer.train.schedule import Schedule
from stand_in import stand_in

VARIABLE = ("elapsed_s", "images_per_s", "memory_mib")  # numbers that no two runs share


def groups(spec: ExperimentSpec, _: World) -> list[Any]:
    """The optimiser's parameter groups."""
    optimizer = build_optimizer(spec.train.optim, build_model(spec.model), Criterion(spec.model))
    return [(g["name"], len(g["params"]), g["lr"], g["weight_decay"], g["betas"]) for g in optimizer.param_groups]


def rates(spec: ExperimentSpec, _: World) -> list[float]:
    """The learning rate of twenty steps in four epochs."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=spec.train.optim.lr)
    schedule = Schedule(optimizer, spec.train.optim, total_steps=20, steps_per_epoch=5)
    found = []
    for _step in range(20):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def gradients(spec: ExperimentSpec, _: World) -> list[list[float]]:
    """Fixed gradients after clipping."""
    parameters = [nn.Parameter(torch.zeros(n)) for n in (2, 1, 3)]
    for parameter, values in zip(parameters, ([3.0, 4.0], [12.0], [0.1, 0.2, 0.3]), strict=True):
        parameter.grad = torch.tensor(values)
    clip_gradients(parameters, spec.train)
    return [parameter.grad.tolist() for parameter in parameters if parameter.grad is not None]


def frozen(spec: ExperimentSpec, _: World) -> list[str]:
    """Names of the parameters that do not learn."""
    model = build_model(spec.model)
    freeze(model, spec.train.freeze)
    return [name for name, value in model.named_parameters() if not value.requires_grad]


def devices(spec: ExperimentSpec, _: World) -> list[Any]:
    """Where each command runs on the machines of an orchestrator, four GPUs each."""
    meeting = {"NODE_RANK": "0", "MASTER_ADDR": "first"}
    found: list[Any] = []
    for name in ("train", "evaluate", "inference"):
        section = getattr(spec, name)
        with (
            mock.patch("torch.cuda.is_available", lambda: True),
            mock.patch("torch.cuda.device_count", lambda: 4),
            mock.patch.dict("os.environ", meeting, WORLD_SIZE=str(section.num_nodes)),
        ):
            found.append(choose_devices(section, key=name))
    return found


def strategy(spec: ExperimentSpec, _: World) -> str:
    """What joins two processes of a training."""
    several = choose_devices(replace(spec.train, accelerator="cpu", num_gpus=2))
    return type(several.trainer_arguments(spec.train.distributed_strategy, unused=True)["strategy"]).__name__


def alone(spec: ExperimentSpec, _: World) -> list[Any]:
    """Devices on one machine that no launcher has started."""
    return [choose_devices(getattr(spec, name), key=name) for name in ("evaluate", "inference")]


def folders(spec: ExperimentSpec, _: World) -> list[Path]:
    """Where each command writes."""
    names = ("train", "evaluate", "inference", "export")
    return [run_path(spec.results_dir, name, section_dir=getattr(spec, name).results_dir) for name in names]


def claimed(spec: ExperimentSpec, world: World) -> Path | None:
    """What a training does about a folder that holds another."""
    return claim_folder(world.files.checkpoint.parent, spec.train)


def log_level(spec: ExperimentSpec, world: World) -> int:
    """How much a command says, the plan of a training for one."""
    words = ["train.verbose=true"] if spec.train.verbose else []
    with mock.patch.object(sys, "stdout", mock.MagicMock()):
        cli.main(["train", "--dry-run", *world.base(world.files.data), *words])
    return logging.getLogger("oneformer").level


def tracker(spec: ExperimentSpec, world: World) -> dict[str, Any] | None:
    """What the tracker is told."""
    fake = types.ModuleType("wandb")
    fake.init = mock.MagicMock()  # type: ignore[attr-defined]
    with stand_in("wandb", fake):
        open_wandb(spec.wandb, world.root)
    return dict(fake.init.call_args.kwargs) if fake.init.called else None


def trained(spec: ExperimentSpec, world: World) -> dict[str, Any]:
    """A whole training: files, numbers, weights and the state of the arithmetic within a step."""
    spec.results_dir = str(world.fresh())
    step, states = TrainingModule.training_step, []

    def noted(self: TrainingModule, *args: Any) -> Any:
        cudnn = torch.backends.cudnn
        states.append((cudnn.benchmark, cudnn.deterministic))
        return step(self, *args)

    with (
        mock.patch.object(TrainingModule, "training_step", noted),
        mock.patch("torch.set_num_threads") as threads,
        counted() as calls,
    ):
        done = train.run(spec)
    assert isinstance(done, train.Trained)
    result = done.to_dict()
    return {
        "result": {k: v for k, v in result.items() if k not in ("seconds", "folder", "checkpoint")},
        "files": sorted(p.name for p in done.folder.iterdir() if not p.name.startswith("events")),
        "rows": rows(done.folder / "metrics.csv"),
        "weights": weights(result["checkpoint"]),
        "states": states,
        "threads": [call.args for call in threads.call_args_list],
        "calls": calls[0],
    }


def encrypted(spec: ExperimentSpec, world: World) -> bool:
    """Whether the checkpoint of a training is for those only who have the key."""
    spec.results_dir = str(world.fresh())
    done = train.run(spec)
    assert isinstance(done, train.Trained)
    return is_encrypted(done.folder / "oneformer_model_best.pth")


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv without what differs from run to run."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in VARIABLE} for row in csv.DictReader(file)]


def weights(checkpoint: str | None) -> list[str]:
    """The weights in a checkpoint, and their average where there is one."""
    if checkpoint is None:
        return []
    content = torch.load(checkpoint, weights_only=True)
    return [digest(content[key]) for key in ("state_dict", "ema_state_dict") if key in content]


def evaluated(spec: ExperimentSpec, world: World) -> list[Any]:
    """A whole evaluation: scores, facts, pictures, and the batches that went through the network."""
    spec.results_dir = str(world.fresh())
    spec.evaluate.checkpoint = spec.evaluate.checkpoint or str(world.files.checkpoint)
    with batches() as seen:
        done = evaluate.run(spec)
    assert isinstance(done, evaluate.Evaluation)
    told = done.to_dict()
    facts = {k: v for k, v in told.pop("facts").items() if k != "time"}
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    told.pop("files")
    return [told, facts, done.table().count("\n"), page.count("data:image"), seen]


def predicted(spec: ExperimentSpec, world: World) -> list[Any]:
    """A whole inference: files and the batches that went through the network."""
    spec.results_dir = str(world.fresh())
    spec.inference.checkpoint = spec.inference.checkpoint or str(world.files.checkpoint)
    spec.inference.images_dir = spec.inference.images_dir or str(photos(world))
    with batches() as seen:
        done = inference.run(spec)
    assert isinstance(done, inference.Predictions)
    files = sorted(p for p in done.folder.rglob("*") if p.suffix in (".png", ".jpg", ".json"))
    names = [str(p.relative_to(done.folder)) for p in files]
    return [done.tasks, names, [digest(p.read_bytes()) for p in files if p.suffix == ".png"], seen]


def threads(spec: ExperimentSpec, world: World) -> list[Any]:
    """How many threads the engines of evaluation and inference are told to use."""
    with mock.patch("torch.set_num_threads") as told:
        for section in (spec.evaluate, spec.inference):
            section.checkpoint = str(world.files.checkpoint)
            open_engine(section, device="cpu")
    return [call.args for call in told.call_args_list]


def photos(world: World) -> Path:
    """A folder with an image and a folder with another."""
    folder = world.root / "photos"
    if not folder.is_dir():
        sources = sorted(world.files.data.images.iterdir())
        for source, target in zip(sources, ("a.png", "b.png", "below/c.png"), strict=False):
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            (folder / target).write_bytes(source.read_bytes())
    return folder


@contextmanager
def batches() -> Iterator[list[Any]]:
    """While open, one item for each batch that the engine is given: shape, tasks and number format."""
    outputs, seen = TorchEngine.outputs, []

    def noted(engine: TorchEngine, images: torch.Tensor, tasks: Any) -> Any:
        seen.append((tuple(images.shape), tasks, engine.precision))
        return outputs(engine, images, tasks)

    with mock.patch.object(TorchEngine, "outputs", noted):
        yield seen
