"""A target path -> a folder beside it to write in, whose files take their final names when all of them are right."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from oneformer.errors import SpecError, WorkError


class Place:
    """Nobody ever sees a half-written or unchecked file under the final name, whatever is raised and wherever it stops.

    As a context manager it makes the folder (`.<name>.<process>.part` beside the target) and removes it at the end.

    Args:
        target: the main file.
        overwrite: whether a file that is there may be replaced.
        section: of the spec, for the hint that names its `overwrite`.
        beside: other files that will be written, with the same terms.

    Raises:
        SpecError: the target is a folder, or there and not to be replaced.
        WorkError: nothing can be written beside it.
    """

    def __init__(self, target: Path, *, overwrite: bool, section: str = "export", beside: Sequence[Path] = ()) -> None:
        for file in (target, *beside):
            if file.is_dir():
                what = "there is a folder in the place of the file to write"
                raise SpecError(what, where=str(file), hint="name another file")
            if file.exists() and not overwrite:
                hint = f"{section}.overwrite=true replaces it, or name another"
                raise SpecError("the file to write exists", where=str(file), hint=hint)
        self.target = target
        self.folder = target.with_name(f".{target.name}.{os.getpid()}.part")

    def __enter__(self) -> Place:
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise _unwritable(self.target, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise _unwritable(self.target, error) from error

    @property
    def draft(self) -> Path:
        """Where to write the main file; others go beside it under their final names."""
        return self.folder / self.target.name

    def publish(self, files: Sequence[Path]) -> list[Path]:
        """Move the files to their final names, the main one last: as long as it is missing there is no export."""
        try:
            self.target.unlink(missing_ok=True)
            for file in sorted(files, key=lambda path: path == self.draft):
                with file.open("rb") as written:
                    os.fsync(written.fileno())
                file.replace(self.target.with_name(file.name))
        except OSError as error:
            raise _unwritable(self.target, error) from error
        return [self.target.with_name(file.name) for file in files]


def _unwritable(target: Path, error: OSError) -> WorkError:
    return WorkError(f"the file cannot be written: {error.strerror or error}", where=str(target))
