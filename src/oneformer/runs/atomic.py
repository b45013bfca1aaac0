"""A file's whole content -> the file, complete or not there at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from oneformer.errors import WorkError
from oneformer.runs.encrypt import Writer


def write_atomic(path: Path, fill: Callable[[IO[bytes]], object], *, key: str = "") -> Path:
    """Let `fill` write a file beside `path`, then put it in its place in one step; with a key, encrypted on the way.

    A reader sees the old file or the new one, never a part; when anything fails, the old file stays.

    Raises:
        WorkError: the file cannot be written (no space, no right).
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            if key:
                encrypted = Writer(file, key)
                fill(cast("IO[bytes]", encrypted))
                encrypted.finish()
            else:
                fill(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise WorkError(f"the file cannot be written: {error.strerror or error}", where=str(path)) from error
    finally:
        with suppress(OSError):  # a fault above is the one to tell
            part.unlink(missing_ok=True)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text in one step."""
    return write_atomic(path, lambda file: file.write(text.encode("utf-8")))


def write_json(path: Path, value: Any) -> Path:
    """Write a value as indented JSON in one step; numbers that JSON does not know become null."""
    return write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Dictionaries, sequences, paths and array scalars -> what strict JSON can hold; NaN and infinity -> null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "tolist"):  # numpy and torch, without importing them
        return plain(value.tolist())
    return str(value)
