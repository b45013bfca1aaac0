"""Where a tensor lies in a file -> the tensor, once it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from oneformer.errors import CheckpointError

# torch's names of storages and the numbers they hold.
STORAGES: dict[str, torch.dtype] = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# numpy's codes of number types.
CODES: dict[str, torch.dtype] = {
    "f2": torch.float16, "f4": torch.float32, "f8": torch.float64,
    "i1": torch.int8, "i2": torch.int16, "i4": torch.int32, "i8": torch.int64,
    "u1": torch.uint8, "b1": torch.bool,
}  # fmt: skip


class Sealed:
    """What a file may refer to but not change: a pickle can put any attributes into an object that does not refuse."""

    def __setstate__(self, state: Any) -> None:
        raise ValueError("the file wants to change how it is read")


@dataclass(frozen=True)
class Storage(Sealed):
    """A run of bytes in a file."""

    read: Callable[[], Tensor]
    """Gives them as uint8 (N,)."""
    size: int
    """How many there are."""
    dtype: torch.dtype
    """The numbers they hold."""


class Stored(Sealed):
    """A tensor that is still in its file: `shape` and `dtype` are known, `tensor()` reads it.

    Raises:
        CheckpointError: it would be larger than what the file holds of it.
        ValueError: the numbers are no shape.
    """

    def __init__(self, storage: Storage, offset: Any, shape: Any, stride: Any) -> None:
        numbers = (offset, *shape, *stride)
        if not all(isinstance(n, int) and n >= 0 for n in numbers) or len(shape) != len(stride):
            raise ValueError(f"no shape: {shape} {stride} at {offset}")
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) if all(shape) else -1
        # A stride of zero would let a few bytes stand for a tensor of any size.
        if max(last + 1, prod(shape)) * storage.dtype.itemsize > storage.size:
            raise CheckpointError(f"a tensor of shape {tuple(shape)} is larger than what the file holds of it")
        self.shape = tuple(shape)
        self.dtype = storage.dtype
        self._storage = storage
        self._place = (tuple(shape), tuple(stride), offset)

    def tensor(self) -> Tensor:
        """The tensor, on the CPU."""
        if 0 in self.shape:
            return torch.empty(self.shape, dtype=self.dtype)
        data = self._storage.read()
        whole = data[: len(data) // self.dtype.itemsize * self.dtype.itemsize].view(self.dtype)
        return torch.as_strided(whole, *self._place)


def rebuilt(storage: Storage, offset: Any, size: Any, stride: Any, *_more: Any) -> Stored:
    """What torch writes as `_rebuild_tensor_v2`."""
    return Stored(storage, offset, size, stride)


class NumpyType:
    """numpy's description of a number type: `("f4", False, True)`, then its byte order as a state."""

    def __init__(self, code: Any, *_flags: Any) -> None:
        self.code = str(code).lstrip("<>=|")
        self.big = str(code).startswith(">")

    def __setstate__(self, state: Any) -> None:
        self.big = self.big or state[1] == ">"


class StoredArray(Stored):
    """A numpy array in a pickle: its bytes are kept as they came, numpy is not asked to make anything of them."""

    def __init__(self, *_placeholder: Any) -> None:
        """What `_reconstruct` gives before the state comes: nothing."""
        self.fill(b"", NumpyType("f4"), (0,), fortran=False)

    def __setstate__(self, state: Any) -> None:
        _version, shape, kind, fortran, raw = state
        self.fill(raw, kind, shape, fortran=bool(fortran))

    def fill(self, raw: Any, kind: Any, shape: Any, *, fortran: bool) -> None:
        """Raw bytes, a `NumpyType` and a shape. Raises CheckpointError or ValueError, as for any `Stored`."""
        if isinstance(raw, str):  # written by Python 2
            raw = raw.encode("latin1")
        if not isinstance(kind, NumpyType) or kind.code not in CODES or kind.big:
            raise CheckpointError(f"an array holds {getattr(kind, 'code', 'objects')}, which are no numbers read here")
        if not isinstance(raw, bytes | bytearray):
            raise ValueError("an array without bytes")
        steps = [1]
        for n in (shape if fortran else shape[::-1])[:-1]:
            steps.append(steps[-1] * n)
        stride = (steps if fortran else steps[::-1])[: len(shape)]
        storage = Storage(lambda: torch.frombuffer(bytearray(raw), dtype=torch.uint8), len(raw), CODES[kind.code])
        super().__init__(storage, 0, shape, stride)


def from_buffer(raw: Any, kind: Any, shape: Any, order: Any) -> StoredArray:
    """A numpy array as protocol 5 writes it."""
    array = StoredArray()
    array.fill(raw, kind, shape, fortran=order == "F")
    return array
