"""A zip file as PyTorch writes it -> its records, each no larger than the file itself."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from oneformer.errors import CheckpointError
from oneformer.model.weights.stored import Storage
from oneformer.runs.encrypt import opened, plain_size

MAGIC = b"PK\x03\x04"


def is_zip(path: Path) -> bool:
    """Whether the file begins as a zip file does."""
    with opened(path) as file:
        return file.read(len(MAGIC)) == MAGIC


class _Opened(zipfile.ZipFile):
    """A zip file in a file that is closed with it."""

    def __init__(self, under: IO[bytes]) -> None:
        self._under = under
        super().__init__(under)

    def close(self) -> None:
        super().close()
        self._under.close()


def checked_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip file whose records are stored as they are, as torch writes them.

    Packed records could grow to any size, and records that share their bytes could claim the same ones many times.

    Raises:
        CheckpointError: a record is packed or encrypted, or all of them together claim more than the file holds.
        zipfile.BadZipFile: the file is no whole zip file.
    """
    archive = _Opened(opened(path, whole=True))
    claimed, size = 0, plain_size(path)
    for record in archive.infolist():
        claimed += record.file_size
        if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
            raise CheckpointError("the file holds packed records, which no weight file does", where=str(path))
    if claimed > size:
        raise CheckpointError(
            f"the file claims {claimed} bytes of records and has {size}",
            where=str(path),
            hint="copy or download it again",
        )
    return archive


class Archive:
    """A PyTorch zip file: one record for the structure, one for each storage.

    Raises:
        CheckpointError: see `checked_zip`, or the numbers in it are in an order that this machine does not read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip = checked_zip(path)
        self._records = {name.partition("/")[2]: name for name in self._zip.namelist()}
        self._read: dict[str, torch.Tensor] = {}
        if self.read("byteorder", most=16) == b"big":
            raise CheckpointError("the file was written by a big-endian machine", where=str(path))

    def read(self, name: str, *, most: int) -> bytes:
        """One record; nothing when there is none of that name. Raises CheckpointError when it exceeds `most` bytes."""
        if name not in self._records:
            return b""
        record = self._zip.getinfo(self._records[name])
        if record.file_size > most:
            raise CheckpointError(f"its record {name} has {record.file_size} bytes", where=str(self.path))
        return self._zip.read(record)

    def storage(self, pid: Any) -> Storage:
        """The storage that the structure refers to as ("storage", type, key, device, number of elements)."""
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(key, str) or not isinstance(count, int):
            raise ValueError(f"no storage: {kind}")
        record = self._zip.getinfo(self._records[f"data/{key}"])
        return Storage(lambda: self._bytes(key), record.file_size, dtype)

    def _bytes(self, key: str) -> torch.Tensor:
        """The bytes of a storage, uint8 (N,), read once."""
        if key not in self._read:
            self._read[key] = torch.frombuffer(
                bytearray(self._zip.read(self._records[f"data/{key}"])), dtype=torch.uint8
            )
        return self._read[key]
