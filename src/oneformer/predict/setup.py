"""The evaluate or inference section of a spec -> its checkpoint, opened and compared with the data, and its tasks."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from oneformer.data.task import allowed_tasks
from oneformer.engines import open as engines
from oneformer.engines.open import checked_kind, chosen_engine
from oneformer.errors import CheckpointError, SpecError
from oneformer.model.weights.load import beside
from oneformer.segments.types import TASKS
from oneformer.train.devices import choose_devices

if TYPE_CHECKING:
    from oneformer.data.labels import LabelMap
    from oneformer.engines.base import Engine
    from oneformer.spec import EvaluateSpec, ExperimentSpec, InferenceSpec

log = logging.getLogger(__name__)

TENSORRT = "tensorrt"


def open_engine(section: EvaluateSpec | InferenceSpec, *, device: str) -> Engine:
    """The engine for the section's checkpoint or exported file, in its precision.

    Engines differ in the devices they have, so one that nobody asked for by name is left to the engine.
    """
    file = checked_kind(section.checkpoint)
    engine, precision = chosen_engine(file, "auto"), section.precision
    if section.accelerator == "auto" and engine != "torch" and not (engine == TENSORRT and device != "cpu"):
        device = "auto"
    if engine == TENSORRT and precision == "fp32":  # the default; an engine's precision was decided when it was built
        precision = "auto"
    return engines.open_engine(file, precision=precision, device=device, threads=section.threads)


def with_engine(spec: ExperimentSpec, action: str) -> ExperimentSpec:
    """The spec with `trt_engine` of the action's section, where that names a file, in the place of its checkpoint.

    TAO's own job runner writes the same file into both keys, whatever its kind; then it is opened as what it is.

    Raises:
        SpecError: `trt_engine` names another file than the checkpoint, and it is no TensorRT engine.
    """
    section = getattr(spec, action)
    named = section.trt_engine
    if not named or named == section.checkpoint:
        return spec
    if chosen_engine(Path(named), "auto") != TENSORRT:
        hint = f"name it in {action}.checkpoint; engines end in .engine or .plan"
        raise SpecError(f"{named} is no TensorRT engine", where=f"{action}.trt_engine", hint=hint)
    if section.checkpoint:
        log.warning("%s.trt_engine takes the place of %s.checkpoint", action, action)
    return replace(spec, **{action: replace(section, checkpoint=named)})


def check_request(section: EvaluateSpec | InferenceSpec, *, key: str) -> Path:
    """What can be said before anything is opened: devices and a file of a known kind that exist. Returns the file."""
    choose_devices(section, key=key)
    if not section.checkpoint:
        raise SpecError(
            "no weight file is named",
            where=f"{key}.checkpoint",
            hint=f"set {key}.checkpoint=results/train/oneformer_model_best.pth",
        )
    path = checked_kind(section.checkpoint)
    if not path.exists():
        raise CheckpointError("the weight file does not exist", where=str(path), hint=beside(path.parent))
    return path


def chosen_tasks(asked: str, engine: Engine, *, key: str) -> tuple[str, ...]:
    """The tasks of `all` or of one name, as far as the model was trained for them. Raises SpecError when it was not."""
    trained = allowed_tasks(engine.info.model.task_toggling)
    if asked == "all":
        return trained
    assert asked in TASKS, asked
    if asked not in trained:
        raise SpecError(
            f"the checkpoint was not trained for the task {asked}", where=key, hint=f"it knows {', '.join(trained)}"
        )
    return (asked,)


def same_classes(stored: LabelMap, given: LabelMap, *, where: str) -> None:
    """Names and kinds of a checkpoint's classes must be the data's, in the same order. Raises CheckpointError."""
    mine = [_told(stored, i) for i in range(stored.num_classes)]
    theirs = [_told(given, i) for i in range(given.num_classes)]
    if mine == theirs:
        return
    if sorted(mine) == sorted(theirs):
        what = "the checkpoint and the data have the same classes in another order"
    else:
        what = f"the checkpoint's {len(mine)} classes are not the data's {len(theirs)}"
    rows = [
        f"class {i}: {a} in the checkpoint, {b} in the data"
        for i, (a, b) in enumerate(
            zip(mine + ["nothing"] * len(theirs), theirs + ["nothing"] * len(mine), strict=False)
        )
        if a != b and i < max(len(mine), len(theirs))
    ]
    raise CheckpointError(
        f"{what}: {'; '.join(rows[:5])}{f' and {len(rows) - 5} more' if len(rows) > 5 else ''}",
        where=where,
        hint="use the label map (dataset.label_map) that the checkpoint was trained with",
    )


def _told(labels: LabelMap, class_id: int) -> str:
    return f"{labels.names[class_id]!r} ({'thing' if labels.is_thing[class_id] else 'stuff'})"
