"""A pickled weight file of a stranger -> plain containers and tensors still in the file; none of its code runs.

PyTorch's zip files with objects beside the tensors (NVIDIA TAO keeps its settings there) and detectron2's pickled numpy
arrays are read here; `torch.load(weights_only=True)` refuses both.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from oneformer.errors import CheckpointError
from oneformer.model.weights.archive import Archive, is_zip
from oneformer.model.weights.stored import STORAGES, NumpyType, Sealed, Stored, StoredArray, from_buffer, rebuilt
from oneformer.runs.encrypt import opened, plain_size

MOST_PICKLE = 1 << 28  # bytes of structure in a zip file, tensors not counted; the largest seen are below 1 MiB
# Programs whose objects may lie beside the weights. They are never made: a stand-in keeps what they were given.
STRANGERS = (
    "omegaconf", "pytorch_lightning", "lightning", "lightning_fabric", "nvidia_tao_pytorch", "nvidia_tao_core",
    "typing", "enum", "argparse", "pathlib", "datetime", "__main__",
)  # fmt: skip
TYPES = ("int", "long", "float", "complex", "bool", "str", "unicode", "bytearray", "object", "type")
CONTAINERS = ("dict", "list", "tuple", "set", "frozenset", "slice", "range")
NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
NUMPY_BUFFERS = ("numpy.core.numeric", "numpy._core.numeric")


class Stand:
    """In the place of an object of another program: keeps what it was given, and does nothing."""

    of = ""

    def __new__(cls, *args: Any, **_named: Any) -> Stand:
        made = super().__new__(cls)
        made.args = args
        made.state = None
        return made

    def __init__(self, *args: Any, **_named: Any) -> None:
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """An entry of a dictionary of theirs; nothing here looks for it."""

    def append(self, value: Any) -> None:
        """An entry of a list of theirs."""

    def extend(self, values: Any) -> None:
        """Entries of a list of theirs."""

    def add(self, value: Any) -> None:
        """An entry of a set of theirs."""


class Reader(pickle.Unpickler):
    """An unpickler without power.

    Unpickling calls what the file names, so a file can run any code it can name. This one hands out nothing of theirs:
    `find_class` knows a few functions of ours that note where a tensor lies, a dictionary, and stand-ins for objects of
    known programs; any other name is refused before anything is called.
    """

    def __init__(self, file: IO[bytes], *, where: Path, archive: Archive | None = None) -> None:
        super().__init__(file, encoding="latin1")  # as detectron2 reads arrays that Python 2 wrote
        self.where = where
        self.archive = archive

    def find_class(self, module: str, name: str) -> Any:
        known = KNOWN.get((module, name))
        if known is not None:
            return known
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        plain = module in ("builtins", "__builtin__") and name in (*TYPES, *CONTAINERS)
        torch_value = module in ("torch", "torch.storage") and name in TORCH_VALUES
        if plain or torch_value or module.partition(".")[0] in STRANGERS:
            return type(name, (Stand,), {"of": f"{module}.{name}"})
        raise CheckpointError(
            f"the file asks for {module}.{name}, which is neither a tensor nor a plain value; reading it could run"
            " code, so it is refused",
            where=str(self.where),
            hint="load it where you trust it and save only its tensors, best as .safetensors",
        )

    def persistent_load(self, pid: Any) -> Any:
        if self.archive is None:
            raise ValueError("the file names storages that it does not hold")
        return self.archive.storage(pid)


class Table(dict[Any, Any]):
    """In the place of an ordered dictionary; what a file hangs on it besides entries is let go."""

    def __setstate__(self, state: Any) -> None:
        """torch keeps versions of modules there."""


@dataclass(frozen=True)
class Maker(Sealed):
    """A function of ours that a file may call."""

    make: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return self.make(*args)


def parameter(data: Any, *_more: Any) -> Any:
    """A parameter is its tensor."""
    return data


def no_bytes() -> bytes:
    """Empty bytes, as protocol 2 writes them."""
    return b""


def encoded(text: str, encoding: str = "latin1") -> bytes:
    """Bytes, as protocol 2 writes them."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes as {encoding}")
    return text.encode("latin1")


KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): Table,
    ("collections", "defaultdict"): Maker(lambda *_factory: Table()),
    ("_codecs", "encode"): Maker(encoded),
    ("builtins", "bytes"): Maker(no_bytes),
    ("__builtin__", "bytes"): Maker(no_bytes),
    ("torch._utils", "_rebuild_tensor_v2"): Maker(rebuilt),
    ("torch._utils", "_rebuild_parameter"): Maker(parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): Maker(parameter),
    ("numpy", "ndarray"): StoredArray,
    ("numpy", "dtype"): NumpyType,
    **{(module, "_reconstruct"): StoredArray for module in NUMPY},
    **{(module, "_frombuffer"): Maker(from_buffer) for module in NUMPY_BUFFERS},
}
TORCH_VALUES = (
    "Size", "device", "float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool",
)  # fmt: skip


def read_pickled(path: Path) -> Any:
    """The content of a PyTorch zip file or a plain pickle: containers, numbers, texts, `Stored` tensors and `Stand`s.

    Raises:
        CheckpointError: the file would run code, is broken, or claims to be larger than it is.
    """
    try:
        with located(path):
            if not is_zip(path):
                with opened(path) as file:
                    scan(file, plain_size(path))
                    file.seek(0)
                    return Reader(file, where=path).load()
            archive = Archive(path)
            data = archive.read("data.pkl", most=MOST_PICKLE)
            scan(BytesIO(data), len(data))
            return Reader(BytesIO(data), where=path, archive=archive).load()
    except CheckpointError:
        raise
    except Exception as error:  # the readers of zip and pickle raise a dozen types on broken files
        raise CheckpointError(
            "the file is broken or cut short", where=str(path), hint="copy or download it again"
        ) from error


@contextmanager
def located(path: Path) -> Iterator[None]:
    """Errors about a part of a file name the file, where they do not yet."""
    try:
        yield
    except CheckpointError as error:
        if error.where:
            raise
        raise CheckpointError(error.what, where=str(path), hint=error.hint) from None


def scan(file: IO[bytes], size: int) -> None:
    """Look through a pickle without building anything: each length in it must be one that the file can hold.

    Python's unpickler reserves memory for whatever a length or the number of a remembered object says, before it looks
    whether the file goes on; a file of ten bytes could so take all memory there is.
    """
    limits = {"PUT": 0, "BINPUT": 0, "LONG_BINPUT": 0, "FRAME": size}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if opcode.name in limits and int(argument or 0) > max(limits[opcode.name], count):
            raise ValueError(f"{opcode.name} {argument}")


def in_memory(found: Mapping[str, Any], where: Path) -> dict[str, Tensor]:
    """The `Stored` tensors among the values, read, and those that are tensors already; the rest is left out.

    Raises:
        CheckpointError: the file is damaged where a tensor lies.
    """
    try:
        return {
            str(name): value.tensor() if isinstance(value, Stored) else value
            for name, value in found.items()
            if isinstance(value, Stored | Tensor)
        }
    except Exception as error:  # zipfile and torch raise several types
        raise CheckpointError(
            "the file is broken or cut short", where=str(where), hint="copy or download it again"
        ) from error
