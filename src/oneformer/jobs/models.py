"""A job's results folder -> the model file that its action has made, and of which kind it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oneformer.errors import CheckpointError, SpecError
from oneformer.jobs import search
from oneformer.jobs.record import Record
from oneformer.jobs.store import RESULTS, Store

if TYPE_CHECKING:
    from oneformer.spec import ExperimentSpec

CHECKPOINT, QUANTIZED, ONNX, OPENVINO, PROGRAM, ENGINE = (
    "checkpoint", "quantized checkpoint", "ONNX graph", "OpenVINO model", "program of torch.export", "TensorRT engine",
)  # fmt: skip
ENDINGS = {
    ".pth": CHECKPOINT, ".pt": CHECKPOINT, ".ckpt": CHECKPOINT, ".onnx": ONNX, ".xml": OPENVINO, ".pt2": PROGRAM,
    ".engine": ENGINE, ".plan": ENGINE,
}  # fmt: skip
# Action -> the kinds of files that it makes; the other actions make none.
MAKES = {
    "train": (CHECKPOINT,),
    "quantize": (CHECKPOINT, ONNX, OPENVINO),
    "export": (ONNX, OPENVINO, PROGRAM),
    "gen_trt_engine": (ENGINE,),
}
BEST, LATEST = "oneformer_model_best.pth", "oneformer_model_latest.pth"
_NUMBERED = re.compile(r"model_epoch_(\d+)_step_(\d+)\.pth")
_CHOICE = re.compile(r"best|latest|(epoch|step):(\d+)")
CHOICES = "best, latest, epoch:N or step:N"


@dataclass(frozen=True)
class Model:
    """A file that one job has made and another one may read."""

    path: Path
    kind: str
    job: str = ""
    why: str = ""
    """How it was chosen, where that is not plain."""


def check_choice(choice: str) -> None:
    """Raises SpecError for a choice of checkpoint that there is not."""
    if not _CHOICE.fullmatch(choice):
        raise SpecError(f"{choice!r} chooses no checkpoint", where="--checkpoint", hint=f"there are {CHOICES}")


def kind_of(path: Path) -> str:
    """The kind of a model file by its name; a folder is Hugging Face's, which is read like a checkpoint."""
    return CHECKPOINT if path.is_dir() else ENDINGS.get(path.suffix.lower(), "")


def nearest(store: Store, job: str, choice: str) -> Model:
    """What a job has made; of one that makes no model, what the job that it worked on has made.

    Args:
        store: where the jobs lie.
        job: the parent.
        choice: which checkpoint of a training: `best`, `latest`, `epoch:N` or `step:N`.

    Raises:
        CheckpointError: there is no such file.
    """
    return made(store, maker(store, job), choice)


def maker(store: Store, job: str) -> Record:
    """The job itself where its action makes a model, else the nearest one before it. Raises CheckpointError."""
    record: Record | None = store.read(job)
    while record and record.action not in MAKES:
        record = store.read(record.parent) if record.parent else None
    if record is None:
        hint = "take the job whose model it worked on as the parent"
        raise CheckpointError("the job makes no model, and neither does one it followed", where=job, hint=hint)
    return record


def expected(action: str, spec: ExperimentSpec) -> str:
    """The kind of model that an action with this spec will make; empty where it makes none."""
    if action == "train":
        return CHECKPOINT
    if action == "export":
        return {"openvino": OPENVINO, "torch": PROGRAM}.get(spec.export.format, ONNX)
    if action == "quantize":
        backend = spec.quantize.backend
        return {"openvino": OPENVINO, "onnxruntime": ONNX, "modelopt.onnx": ONNX}.get(backend, QUANTIZED)
    return ENGINE if action == "gen_trt_engine" else ""


def made(store: Store, record: Record, choice: str) -> Model:
    """The model of a job whose action makes one. Raises CheckpointError."""
    folder = store.folder(record.id) / RESULTS / record.action
    if search.is_search(store.folder(record.id), record.action):
        path, why = search.best_of(store.folder(record.id), job=record.id, choice=choice)
        return Model(path, CHECKPOINT, record.id, why)
    if record.action == "train":
        path, why = chosen(folder, choice)
        return Model(path, CHECKPOINT, record.id, why)
    files = sorted(files_of(folder, record.action), key=lambda path: (path.stat().st_mtime_ns, path.name))
    if not files:
        raise CheckpointError("the job has left no model", where=str(folder))
    kind = kind_of(files[-1])
    return Model(files[-1], QUANTIZED if record.action == "quantize" and kind == CHECKPOINT else kind, record.id)


def files_of(folder: Path, action: str) -> Iterator[Path]:
    """The files of the kinds that an action makes."""
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if path.is_file() and kind_of(path) in MAKES[action])


def chosen(folder: Path, choice: str) -> tuple[Path, str]:
    """The checkpoint of a training that is asked for, and how it was chosen.

    `best` is the one that training kept as best by `train.best_metric`; where it kept none, because no score was ever a
    number, the latest takes its place. Of an epoch it is the last checkpoint.

    Raises:
        CheckpointError: it is not there.
    """
    numbered = sorted(_numbered(folder))
    found = _CHOICE.fullmatch(choice)
    assert found, "the choice was checked when the job was submitted"
    if choice == "best" and (folder / BEST).is_file():
        return folder / BEST, "best"
    if not found[1]:
        if not numbered:
            raise CheckpointError("the training has left no checkpoint", where=str(folder))
        return numbered[-1][2], "latest" if choice == "latest" else "latest, as no best one was kept"
    wanted = int(found[2])
    fitting = [path for step, epoch, path in numbered if (epoch if found[1] == "epoch" else step) == wanted]
    if not fitting:
        there = ", ".join(dict.fromkeys(str(e if found[1] == "epoch" else s) for s, e, _ in numbered)) or "none"
        raise CheckpointError(
            f"there is no checkpoint of {found[1]} {wanted}",
            where=str(folder),
            hint=f"there are those of {found[1]} {there}; train.keep_checkpoints says how many are kept",
        )
    return fitting[-1], choice


def _numbered(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """Step, epoch and path of the numbered checkpoints of a training."""
    if folder.is_dir():
        for path in folder.iterdir():
            if (match := _NUMBERED.fullmatch(path.name)) and path.is_file():
                yield int(match[2]), int(match[1]), path
