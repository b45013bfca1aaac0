"""`table.parquet::column::row` -> the bytes of one cell; row groups are kept, since neighbours are read together."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from oneformer.data.files import CELL, UNREADABLE, missing
from oneformer.errors import DataError, MissingExtra

KEPT_GROUPS = 2  # row groups of images in memory; Hugging Face writes 100 rows in each


def open_table(path: str | Path) -> Any:
    """The `pyarrow.parquet.ParquetFile` of a path. Raises MissingExtra or DataError."""
    if not Path(path).is_file():
        raise missing(path, what="Parquet file")
    # A handle must not be shared with a process that was forked off.
    return _table(str(path), os.getpid())


@lru_cache(maxsize=8)
def _table(path: str, _pid: int) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("pyarrow", extra="parquet", needed_for="reading Parquet files") from None
    try:
        return pyarrow.parquet.ParquetFile(path, memory_map=True)
    except (pyarrow.ArrowException, OSError) as error:
        what = f"the Parquet file is broken: {str(error).splitlines()[0]}"
        raise DataError(what, where=path, hint="copy or download it again", kind=UNREADABLE) from None


@lru_cache(maxsize=KEPT_GROUPS)
def _column(path: str, column: str, group: int, _pid: int) -> Any:
    return open_table(path).read_row_group(group, columns=[column]).column(column)


def read_cell(name: str, *, what: str) -> bytes:
    """The bytes of one cell: binary, or a struct with a field `bytes`. Raises DataError when there are none."""
    path, column, row = name.rsplit(CELL, 2)
    table, place = open_table(path), int(row)
    for group in range(table.num_row_groups):
        rows = table.metadata.row_group(group).num_rows
        if place < rows:
            try:
                value = _column(path, column, group, os.getpid())[place].as_py()
            except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
                text = f"the {what} cannot be read: {str(error).splitlines()[0]}"
                raise DataError(text, where=name, kind=UNREADABLE) from None
            data = value.get("bytes") if isinstance(value, dict) else value
            if isinstance(data, bytes):
                return data
            raise DataError(f"the {what} is not in the table", where=name, kind="missing_file")
        place -= rows
    raise DataError(f"the table has no row {row}", where=name, kind="missing_file")
