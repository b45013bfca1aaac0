"""Files that a library writes by their names -> the same files, encrypted, without ever being on a disk in plain."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from oneformer.runs.atomic import write_atomic
from oneformer.runs.key import writing_key


@contextmanager
def by_name(target: Path, *others: Path) -> Iterator[Path]:
    """A path for a library that takes no open file; others of its folder go beside it under their own names.

    Without a key that is the target itself. With one, what was written stands at the targets, encrypted, when this
    closes without a fault; until then it is in memory. Systems other than Linux keep it in a private folder that is
    removed at the end.

    Raises:
        WorkError: a target cannot be written.
    """
    key = writing_key()
    if not key:
        yield target
        return
    targets = (target, *others)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oneformer-")))
        if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
            _link(folder, [file.name for file in targets], stack)
        yield folder / target.name
        for file in targets:
            _encrypted(folder / file.name, file, key)


def _link(folder: Path, names: Sequence[str], stack: ExitStack) -> None:
    """Let the names lead to memory that is gone with this process, however it ends."""
    for name in names:
        handle = os.memfd_create(name)
        stack.callback(os.close, handle)
        (folder / name).symlink_to(f"/proc/{os.getpid()}/fd/{handle}")


def _encrypted(source: Path, target: Path, key: str) -> None:
    if not source.is_file() or not source.stat().st_size:  # a file that this library did not need
        return
    with source.open("rb") as written:
        write_atomic(target, lambda file: shutil.copyfileobj(written, file, 2**20), key=key)
