"""A file or folder that a user names -> the engine that runs it, chosen by what the file is."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from oneformer.engines.base import Engine, Options
from oneformer.errors import CheckpointError, UserError
from oneformer.model.weights.hf_folder import is_hf
from oneformer.model.weights.load import beside


@dataclass(frozen=True)
class Kind:
    """One kind of file: what it is called, and what can run it, the usual engine first."""

    told: str
    engines: tuple[str, ...]


FOLDER = "folder"
KINDS = {
    ".pth": Kind("a checkpoint", ("torch", "compiled")),
    ".pt": Kind("a checkpoint", ("torch", "compiled")),
    ".ckpt": Kind("a checkpoint", ("torch", "compiled")),
    FOLDER: Kind("a Hugging Face folder", ("torch", "compiled")),
    ".onnx": Kind("an ONNX graph", ("onnxruntime", "openvino")),
    ".xml": Kind("an OpenVINO model", ("openvino",)),
    ".pt2": Kind("a program of torch.export", ("program",)),
    ".engine": Kind("a TensorRT engine", ("tensorrt",)),
    ".plan": Kind("a TensorRT engine", ("tensorrt",)),
}
ENGINES = {
    "torch": ("oneformer.engines.torch", "TorchEngine"),
    "compiled": ("oneformer.engines.compiled", "CompiledEngine"),
    "onnxruntime": ("oneformer.engines.onnxruntime", "OnnxRuntimeEngine"),
    "openvino": ("oneformer.engines.openvino", "OpenvinoEngine"),
    "program": ("oneformer.engines.program", "ProgramEngine"),
    "tensorrt": ("oneformer.engines.tensorrt", "TensorrtEngine"),
}
"""Module and class of each engine; the class has `open(path, options)`."""
CHECKPOINTS = tuple(ending for ending, kind in KINDS.items() if kind.told == "a checkpoint")
FOREIGN = (".safetensors", ".pkl", ".bin")  # weights of others, as files


def open_engine(
    path: str | Path, engine: str = "auto", *, precision: str = "auto", device: str = "auto", threads: int = 0
) -> Engine:
    """Open any file that `oneformer train`, `export` or `gen_trt_engine` wrote, or a Hugging Face folder.

    Args:
        path: the file or folder.
        engine: a name of `ENGINES`; `auto` takes the usual one for the kind of file.
        precision, device, threads: see `Options`.

    Raises:
        CheckpointError: the file is missing, broken, of a kind that is not opened, or its description is.
        MissingExtra: the engine's package is not installed.
        UserError: the engine, precision or device does not exist, or not for this file.
    """
    file = checked_kind(path)
    name = chosen_engine(file, engine)
    if not file.exists():
        raise CheckpointError("the weight file does not exist", where=str(file), hint=beside(file.parent))
    module, kind = ENGINES[name]
    opened: Engine = getattr(import_module(module), kind).open(file, Options(precision, device, threads))
    return opened


def chosen_engine(file: Path, engine: str) -> str:
    """The name in `ENGINES` for a file of a known kind. Raises UserError."""
    kind = (
        KINDS[FOLDER] if file.is_dir() else KINDS.get(file.suffix.lower(), KINDS[".pth"])
    )  # its reader says what it is
    if engine == "auto":
        return kind.engines[0]
    if engine not in ENGINES:
        raise UserError(f"there is no engine {engine!r}", hint=f"this version has auto, {', '.join(ENGINES)}")
    if engine not in kind.engines:
        raise UserError(
            f"{kind.told} cannot be run by {engine}", where=str(file), hint=f"use auto or {' or '.join(kind.engines)}"
        )
    return engine


def checked_kind(path: str | Path) -> Path:
    """The path when it is a file or folder this version opens. Raises CheckpointError saying which kinds are."""
    file = Path(path)
    endings = ", ".join(ending for ending in KINDS if ending != FOLDER)
    hint = f"this version opens checkpoints and exported files ({endings}) and Hugging Face folders"
    if not str(path):
        raise CheckpointError("no checkpoint was named", hint=hint)
    if is_hf(file):
        return file
    if file.is_dir():
        found = sorted(p.name for p in file.iterdir() if p.suffix in KINDS)
        more = f"; the folder holds {', '.join(found[:5])}" if found else ""
        raise CheckpointError("this is a folder, not a weight file", where=str(path), hint=hint + more)
    ending = file.suffix.lower()
    if ending in FOREIGN:
        convert = f"oneformer checkpoint convert {path} model.pth"
        raise CheckpointError("these are weights of another program", where=str(path), hint=f"{convert}; {hint}")
    return file
