"""A weight file -> parameters of the network, with a report of what fitted, what did not and why."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from oneformer.errors import CheckpointError
from oneformer.model.weights.archive import checked_zip, is_zip
from oneformer.model.weights.pickles import in_memory, located, read_pickled
from oneformer.model.weights.stored import Stored
from oneformer.runs.encrypt import is_encrypted, opened, read_plain

WRAPPERS = ("ema_state_dict", "state_dict", "model", "module")  # the first one found is unwrapped, then the next
PREFIXES = ("", "module.", "model.", "backbone.", "model.backbone.", "module.backbone.", "encoder.", "backbone.body.")
# Computed here, or of a classifier that a backbone was trained with.
NOT_OURS = ("relative_position_index", "attn_mask", "num_batches_tracked")
PICKLE = b"\x80"  # how a pickle begins, in whatever program's file
OLD_TORCH = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")  # how files of torch before 1.6 begin
CLASSIFIER = ("head.", "fc.", "norm.", "classifier.")
SHOWN = 8  # names of each kind that a table lists


@dataclass(frozen=True)
class LoadReport:
    """What became of each parameter."""

    matched: tuple[str, ...]
    """Loaded."""
    missing: tuple[str, ...]
    """In the network, not in the file: these keep their initial values."""
    unexpected: tuple[str, ...]
    """In the file, not in the network."""
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    """In both with different shapes: name, shape in the file, shape in the network. These keep their initial values."""
    reshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    """Loaded after a change of shape, such as a position table drawn over another window; also among `matched`."""
    notes: tuple[str, ...] = ()
    """What else became of the file, a sentence each."""

    def summary(self) -> str:
        """One line."""
        text = f"{len(self.matched)} tensors loaded"
        for count, what in (
            (len(self.reshaped), "of them reshaped"),
            (len(self.mismatched), "of another shape"),
            (len(self.missing), "not in the file"),
            (len(self.unexpected), "in the file only"),
        ):
            text += f", {count} {what}" if count else ""
        return text

    def table(self) -> str:
        """The summary, and the names of what did not fit, some of each kind."""
        lines = [self.summary(), *(f"  {note}" for note in self.notes)]
        lines += listed("reshaped", [f"{n}  {f} -> {m}" for n, f, m in self.reshaped])
        lines += listed("another shape, left as initialised", [f"{n}  {f} -> {m}" for n, f, m in self.mismatched])
        lines += listed("not in the file, left as initialised", list(self.missing))
        lines += listed("in the file only, not used", list(self.unexpected))
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()


def listed(title: str, names: list[str]) -> list[str]:
    """A title and some of the names under it; nothing for no names."""
    if not names:
        return []
    more = [f"    and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return [f"  {title}:", *(f"    {name}" for name in names[:SHOWN]), *more]


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, or of a PyTorch file, bare or under a key such as `model` or `state_dict`.

    Averaged weights (EMA) are preferred to those they were averaged from. Tensors come to the CPU. No code is run.

    Raises:
        CheckpointError: the file is missing, broken, would run code, or holds no tensors.
    """
    path = Path(path)
    with located(path):
        state = in_memory(unwrap(read_content(path)), path)
    if not state:
        raise CheckpointError("the file holds no weights", where=str(path))
    return state


def read_content(path: Path) -> Any:
    """What any weight file holds: tensors (or `Stored` ones, see `pickles`), containers, numbers, texts, `Stand`s.

    Raises:
        CheckpointError: the file is missing, broken, or would run code.
    """
    check_file(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if not (is_zip(path) or starts_with(path, PICKLE)):
        raise CheckpointError("this is not a weight file", where=str(path))
    return read_torch(path) if starts_with(path, OLD_TORCH) else read_pickled(path)


def starts_with(path: Path, start: bytes) -> bool:
    """Whether a file begins with these bytes."""
    with opened(path) as file:
        return file.read(len(start)) == start


def read_torch(path: Path) -> Any:
    """The content of a file that `torch.save` wrote, tensors on the CPU. Raises CheckpointError; runs no code."""
    check_file(path)
    try:
        if is_zip(path):
            checked_zip(path).close()
        elif not starts_with(path, PICKLE):
            raise CheckpointError("this is not a weight file", where=str(path))
        with opened(path) as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        text = str(error)
        if "Unsupported" in text or "GLOBAL" in text:
            raise CheckpointError(
                "the file holds more than tensors and plain values; reading it could run code, so it is refused",
                where=str(path),
                hint="load it where you trust it and save only its tensors, best as .safetensors",
            ) from error
        raise CheckpointError("this is not a weight file", where=str(path)) from error
    except Exception as error:  # torch reports a broken file by half a dozen exception types
        raise CheckpointError(
            "the file is broken or cut short", where=str(path), hint="copy or download it again"
        ) from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file on the CPU. Raises CheckpointError."""
    from safetensors import SafetensorError
    from safetensors.torch import load, load_file

    check_file(path)
    try:
        tensors: dict[str, Tensor] = load(read_plain(path)) if is_encrypted(path) else load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            "the file is broken or cut short", where=str(path), hint="copy or download it again"
        ) from error
    return tensors


def check_file(path: Path) -> None:
    """Raises CheckpointError when there is nothing to read, saying what lies nearby."""
    if path.is_dir():
        raise CheckpointError("this is a folder, not a weight file", where=str(path), hint=beside(path))
    if not path.is_file():
        raise CheckpointError("there is no such weight file", where=str(path), hint=beside(path.parent))


def beside(folder: Path) -> str:
    """What weight files the nearest existing folder holds."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    names = sorted(p.name for p in folder.iterdir() if p.suffix in (".pth", ".pt", ".ckpt", ".bin", ".safetensors"))
    return f"{folder} holds {', '.join(names[-5:]) if names else 'no weight file'}"


def unwrap(content: Any) -> dict[str, Any]:
    """The tensors (or `Stored` ones) by name, from under the keys that training programs put around them.

    Raises:
        CheckpointError: a tensor is of no usual kind, or claims to be larger than what the file holds of it.
    """
    for _ in WRAPPERS:
        inner = next(
            (content[k] for k in WRAPPERS if isinstance(content, Mapping) and isinstance(content.get(k), Mapping)), None
        )
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        return {}
    return {str(name): real(value) for name, value in content.items() if isinstance(value, Tensor | Stored)}


def real(tensor: Any) -> Any:
    """The tensor itself. Raises CheckpointError when it is not a block of numbers as large as it says."""
    if isinstance(tensor, Tensor):
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not plain or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise CheckpointError(f"a tensor of shape {tuple(tensor.shape)} is larger than what the file holds of it")
    return tensor


def put(module: nn.Module, state: Mapping[str, Tensor]) -> LoadReport:
    """Copy what fits by name and shape."""
    own = module.state_dict()
    computed = tuple(n for n in own if n.endswith(NOT_OURS))
    same = [n for n in own if n in state and n not in computed]
    fitting = {n: state[n] for n in same if state[n].shape == own[n].shape}
    module.load_state_dict(fitting, strict=False)
    return LoadReport(
        matched=tuple(fitting),
        missing=tuple(n for n in own if n not in state and n not in computed),
        unexpected=tuple(n for n in state if n not in own),
        mismatched=tuple((n, tuple(state[n].shape), tuple(own[n].shape)) for n in same if n not in fitting),
    )
