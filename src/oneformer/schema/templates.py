"""An action -> a commented spec to start from: all that concerns it, or only what is set most."""

from __future__ import annotations

from oneformer.runs.editor import schema_line
from oneformer.schema.inputs import INPUTS
from oneformer.spec.experiment import ExperimentSpec
from oneformer.spec.tree import get, leaves
from oneformer.spec.write import to_yaml

# The sections that every action shares, before its own.
SHARED = ("preset", "model_name", "results_dir", "wandb", "model", "dataset")
# Beside what an action reads: the keys that are changed most.
_CHANGED: dict[str, tuple[str, ...]] = {
    "train": (
        "dataset.train.batch_size",
        "dataset.train.num_workers",
        "train.num_gpus",
        "train.num_epochs",
        "train.precision",
        "train.optim.lr",
    ),
    "evaluate": ("dataset.test.batch_size", "evaluate.task", "evaluate.precision", "evaluate.num_gpus"),
    "inference": ("inference.mode", "inference.batch_size", "inference.precision", "inference.overlay"),
    "export": ("export.format", "export.onnx_file", "export.input_width", "export.input_height", "export.batch_size"),
    "quantize": ("quantize.backend", "quantize.mode", "quantize.layers", "quantize.skip_names", "quantize.device"),
    "gen_trt_engine": (
        "gen_trt_engine.trt_engine",
        "gen_trt_engine.tensorrt.data_type",
        "gen_trt_engine.tensorrt.min_batch_size",
        "gen_trt_engine.tensorrt.opt_batch_size",
        "gen_trt_engine.tensorrt.max_batch_size",
    ),
}
# Keys of the minimal forms that some preset sets: written with their defaults they would undo it.
PRESET_KEYS = ("train.optim.lr",)


def template(action: str = "", *, minimal: bool = False, spec: ExperimentSpec | None = None) -> str:
    """A spec as text, with meaning, range and default above each key.

    Args:
        action: one of `ACTIONS`; empty writes the keys of all of them.
        minimal: only what the action reads and what is changed most, and what `spec` changes.
        spec: whose values to write; None takes the defaults.
    """
    assert action or not minimal, "what is needed depends on the action"
    spec = spec or ExperimentSpec()
    name = f"oneformer {action}" if action else "oneformer"
    notes = {key: note for key, note in required(action).items() if not get(spec, key)}
    if minimal:
        said = f"# What {name} needs, and what is changed most. `oneformer default_specs {action}` writes all keys.\n"
        before = preset_of(spec)
        off = [key for key in PRESET_KEYS if get(spec, key) == get(before, key)]
        text = to_yaml(spec, keys=short_keys(action, spec, before), notes=notes, off=off)
    else:
        said = f"# All keys of {name}. Delete what you do not change: a preset gives way to what is written.\n"
        text = to_yaml(spec, only=(*SHARED, action) if action else (), notes=notes)
    return schema_line(action) + said + text


def preset_of(spec: ExperimentSpec) -> ExperimentSpec:
    """What a spec was before its writer changed anything."""
    if not spec.preset:
        return ExperimentSpec()
    from oneformer.spec.load import load_spec

    return load_spec(None, [f"preset={spec.preset}"], action="default_specs")


def required(action: str) -> dict[str, str]:
    """Key -> the remark that an action cannot do without it, or without another in its place."""
    notes = {}
    for one in INPUTS.get(action, ()):
        if not one.optional:
            (first, *others), (key, values) = one.keys, one.only_if
            said = f"Required with {key} {' or '.join(values)}" if key else "Required"
            notes[first] = f"{said}, or {' or '.join(others)}." if others else f"{said}."
    return notes


def short_keys(action: str, spec: ExperimentSpec, before: ExperimentSpec) -> tuple[str, ...]:
    """The keys of the minimal form in written order: what is read, what is changed most, and what `spec` changes."""
    wanted = {"preset", "results_dir", *_CHANGED[action]}
    wanted |= {key for one in INPUTS[action] for key in one.keys if not key.startswith("dataset.sources.")}
    wanted |= {key for key in leaves() if get(spec, key) != get(before, key)}
    return tuple(key for key in leaves() if key in wanted)
