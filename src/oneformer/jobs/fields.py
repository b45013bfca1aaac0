"""A job and what came before it -> the values of the fields that nobody should have to write: TAO's functions.

What TAO's functions get wrong is right here: a field gets only a file that its action can read, files that are made lie
under the job's own results, going on from a training takes its latest checkpoint, and overrides are never replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneformer.errors import CheckpointError, SpecError
from oneformer.jobs.links import is_link, linked
from oneformer.jobs.models import (
    CHECKPOINT,
    ENGINE,
    ONNX,
    OPENVINO,
    PROGRAM,
    QUANTIZED,
    Model,
    chosen,
    kind_of,
    nearest,
)
from oneformer.jobs.record import Record
from oneformer.jobs.store import RESULTS, Store
from oneformer.runs.away import address_of, is_away
from oneformer.spec.tree import get

if TYPE_CHECKING:
    from oneformer.spec import ExperimentSpec

_ANY = {"encryption_key": "key", "results_dir": "output_dir"}
# Action -> key -> function, as the network's description in TAO has them.
TABLE: dict[str, dict[str, str]] = {
    "train": {
        **_ANY,
        "train.pretrained_model": "ptm_if_no_resume_model",
        "train.resume_training_checkpoint_path": "resume_model",
    },
    "evaluate": {**_ANY, "evaluate.checkpoint": "parent_model", "evaluate.trt_engine": "parent_model"},
    "inference": {**_ANY, "inference.checkpoint": "parent_model", "inference.trt_engine": "parent_model"},
    "export": {**_ANY, "export.checkpoint": "parent_model", "export.onnx_file": "create_onnx_file"},
    "quantize": {**_ANY, "quantize.model_path": "parent_model"},
    "gen_trt_engine": {
        **_ANY,
        "gen_trt_engine.onnx_file": "parent_model",
        "gen_trt_engine.trt_engine": "create_engine_file",
    },
}
_GRAPHS = (ONNX, OPENVINO, PROGRAM)
# Key -> the kinds of model that its action can read there.
READS: dict[str, tuple[str, ...]] = {
    "train.pretrained_model": (CHECKPOINT,),
    "train.pretrained_backbone": (CHECKPOINT,),
    "train.resume_training_checkpoint_path": (CHECKPOINT,),
    "evaluate.checkpoint": (CHECKPOINT, QUANTIZED, *_GRAPHS),
    "evaluate.trt_engine": (ENGINE,),
    "inference.checkpoint": (CHECKPOINT, QUANTIZED, *_GRAPHS),
    "inference.trt_engine": (ENGINE,),
    "export.checkpoint": (CHECKPOINT, QUANTIZED),
    "gen_trt_engine.onnx_file": (ONNX,),
}
# Key with other readers: backend -> kinds.
_QUANTIZE = {
    "onnxruntime": (CHECKPOINT, ONNX),
    "modelopt.onnx": (CHECKPOINT, ONNX),
    "openvino": (CHECKPOINT, ONNX, OPENVINO),
}
_FOREIGN = (".pkl", ".safetensors", ".bin", ".h5", ".keras")
"""Weights of others, which training can start from."""
_PARENT = ("parent_model", "parent_model_folder", "parent_model_or_ptm")
_CREATE = ("create_onnx_file", "create_engine_file")


def reads(key: str, spec: ExperimentSpec) -> tuple[str, ...]:
    """The kinds of model that the action of a key can read there; none where it is no key for a model."""
    if key == "quantize.model_path":
        return _QUANTIZE.get(spec.quantize.backend, (CHECKPOINT,))
    return READS.get(key, ())


@dataclass(frozen=True)
class Field:
    """One key, filled in."""

    value: Any
    function: str
    job: str = ""
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for the record."""
        return {"value": self.value, "function": self.function, "job": self.job, "why": self.why}


class Context:
    """What the functions look at.

    Args:
        store: where the jobs lie.
        record: the job.
        spec: its spec as it was asked for.
    """

    def __init__(self, store: Store, record: Record, spec: ExperimentSpec) -> None:
        self.store, self.record, self.spec = store, record, spec

    @property
    def results(self) -> Path:
        """The job's own results folder."""
        return self.store.folder(self.record.id) / RESULTS

    @cached_property
    def parent(self) -> Model:
        """The parent's model. Raises CheckpointError."""
        return nearest(self.store, self.record.parent, self.record.checkpoint)

    def model(self, key: str) -> Field | None:
        """The parent's model, where there is a parent and the key can hold it."""
        if not self.record.parent or self.parent.kind not in reads(key, self.spec):
            return None
        return Field(str(self.parent.path), "", self.parent.job, self.parent.why)

    def own(self) -> Field | None:
        """The latest checkpoint of the job's own training."""
        try:
            return Field(str(chosen(self.results / "train", "latest")[0]), "", self.record.id, "latest")
        except CheckpointError:
            return None

    def ptm(self, key: str) -> Field | None:
        """The weights that were named beside the spec. Raises UserError where the key cannot hold them."""
        if not self.record.ptm:
            return None
        path = Path(self.record.ptm.partition("#")[0] if is_away(self.record.ptm) else self.record.ptm)
        foreign = path.suffix.lower() in _FOREIGN and key.startswith("train.pretrained_")
        remote = is_away(self.record.ptm) and key == "train.pretrained_backbone"
        if not (foreign or remote or kind_of(path) in reads(key, self.spec)):
            raise SpecError(f"{key} cannot hold {self.record.ptm}", where="--ptm")
        return Field(self.record.ptm, "")


def _key(context: Context, key: str) -> Field | None:
    value = context.store.secret(context.record.id).get(key, "")
    return Field(value, "") if value else None


def _folder(context: Context, _: str) -> Field | None:
    """The folder of the parent's model, whatever kind that is of."""
    if not context.record.parent:
        return None
    return Field(str(context.parent.path.parent), "", context.parent.job)


def _onnx_file(context: Context, key: str) -> Field:
    ending = {"openvino": ".xml", "torch": ".pt2"}.get(context.spec.export.format, ".onnx")
    return _own_file(context, key, f"model{ending}")


def _engine_file(context: Context, key: str) -> Field:
    return _own_file(context, key, "model.engine")


def _results(context: Context, _: str) -> Field:
    """The job's own folder, or below the address that the spec names what is uploaded from there."""
    given = context.spec.results_dir
    return Field(f"{given.rstrip('/')}/{context.record.id}" if is_away(given) else str(context.results), "")


def _own_file(context: Context, key: str, name: str) -> Field:
    """A file of the action's own folder; an override gives it another name."""
    named = get(context.spec, key) if key in context.record.named else name
    return Field(str(context.results / context.record.action / named), "")


def check_own_files(record: Record, spec: ExperimentSpec) -> None:
    """Raises SpecError when overrides would put files elsewhere than into the job's own folder.

    From there they may be uploaded to an address that `results_dir` names; those of a search may not.
    """
    own = f"{record.action}.results_dir"
    if is_away(get(spec, own)):
        hint = "results_dir takes an address; the files of each job go to a folder of its name there"
        raise SpecError("the results of a job are uploaded as a whole", where=own, hint=hint)
    searches = record.action == "train" and spec.automl_policy != "off"
    away = address_of(spec.results_dir, "automl" if searches else record.action)
    for key, function in {**plan(record), own: "output_dir"}.items():
        inside = function != "output_dir" and (function not in _CREATE or Path(get(spec, key)).name == get(spec, key))
        if key in record.named and not inside and not (away and key == "results_dir"):
            what = "the results of a job lie in its own folder"
            hint = "give the file's name alone" if function in _CREATE else "--jobs FOLDER says where jobs lie"
            raise SpecError(what, where=key, hint=hint)


Function = Callable[[Context, str], Field | None]
FUNCTIONS: dict[str, Function] = {
    "key": _key,
    "output_dir": _results,
    "parent_model": lambda context, key: context.model(key),
    "parent_model_folder": _folder,
    "parent_model_or_ptm": lambda context, key: context.model(key) or context.ptm(key),
    "resume_model": lambda context, _: context.own(),
    "resume_model_or_ptm": lambda context, key: context.own() or context.ptm(key),
    "ptm": lambda context, key: context.ptm(key),
    "ptm_if_no_resume_model": lambda context, key: None if context.own() else context.ptm(key),
    "create_onnx_file": _onnx_file,
    "create_engine_file": _engine_file,
}


def filled(context: Context) -> dict[str, Field]:
    """Key -> its value, for every key of the job's table that gets one.

    Keys that overrides set are left alone. Where one key gets the parent's model, the others of its kind are emptied:
    what the spec file says there is another model.

    Raises:
        UserError: the parent has no model, none of the fields can hold it, or a value cannot be found.
    """
    record = context.record
    found: dict[str, Field] = {}
    left: list[str] = []
    for key, function in plan(record).items():
        if key in record.named and function not in (*_CREATE, "output_dir"):
            continue
        if is_link(function):
            found[key] = Field(str(linked(function, context.store.folder(record.id), key)), "link")
        elif function not in FUNCTIONS:
            found[key] = Field(function, "literal")
        elif field := FUNCTIONS[function](context, key):
            found[key] = Field(field.value, function, field.job, field.why)
        elif function in _PARENT and record.parent:
            left.append(key)
    if left:
        check_reads(record, context.spec, context.parent)
    return found | {key: Field("", "parent_model", why="another field has it") for key in left}


def plan(record: Record) -> Mapping[str, Any]:
    """Key -> function of a job: its action's, and those that were asked for."""
    return {**TABLE[record.action], **record.infer}


def check_reads(record: Record, spec: ExperimentSpec, model: Model) -> None:
    """Raises SpecError when none of the fields that the parent's model goes into can hold one of its kind."""
    keys = [key for key, function in plan(record).items() if function in ("parent_model", "parent_model_or_ptm")]
    if not keys or any(model.kind in reads(key, spec) or key in record.named for key in keys):
        return
    kinds = list(dict.fromkeys(kind for key in keys for kind in reads(key, spec)))
    hint = f"it reads {' or '.join(map(_one, kinds))}" if kinds else "these are no keys for a model"
    if ONNX in kinds and model.kind in (CHECKPOINT, QUANTIZED):
        hint += f": export makes one (oneformer jobs submit export --parent {model.job})"
    what = f"{record.action} cannot read {_one(model.kind)}, which {model.job} makes"
    raise SpecError(what, where=", ".join(keys), hint=hint)


def takes_parent(record: Record) -> bool:
    """Whether any field is filled in from the job's parent."""
    return any(function in _PARENT for function in plan(record).values() if isinstance(function, str))


def _one(kind: str) -> str:
    return f"{'an' if kind.startswith('O') else 'a'} {kind}"


def check_infer(infer: Mapping[str, Any]) -> None:
    """Raises SpecError for keys that there are not, and names that look like a function and are none."""
    from oneformer.spec.flat import unknown_key
    from oneformer.spec.node import Mark, Node
    from oneformer.spec.tree import leaves

    for key, function in infer.items():
        if key not in leaves():
            raise unknown_key(key, Node(None, Mark("--infer")))
        near = get_close_matches(str(function), FUNCTIONS, n=1, cutoff=0.8)
        if isinstance(function, str) and function not in FUNCTIONS and near:
            raise SpecError(f"there is no function {function}", where=f"--infer {key}", hint=f"did you mean {near[0]}?")
