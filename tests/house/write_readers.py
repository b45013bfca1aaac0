"""The stories of `test_reads.py` -> `schema/readers.json`: which commands and files read each key (`make docs`)."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path

from house.test_reads import recorded
from oneformer.schema import readers


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        told = recorded(Path(folder)).told()
    rows = ",\n".join(f"  {json.dumps(key)}: {json.dumps(both)}" for key, both in told.items())
    readers.FILE.write_text(f"{{\n{rows}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
