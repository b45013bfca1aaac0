"""One export of the tiny network, made when first asked for and shared by every test of the session.

Tracing takes ten seconds however small the network is, so tests that need a file read this one, and never change it.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
from atexit import register
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from oneformer.cli import main
from story.tiny_model import TINY, write_tiny_checkpoint
from tiny import TinyDataset, write_tiny_dataset

SIZE = (64, 96)


@dataclass(frozen=True)
class TinyExport:
    """What `oneformer export` left and said."""

    root: Path
    data: TinyDataset
    checkpoint: Path
    code: int
    out: str
    err: str

    @property
    def folder(self) -> Path:
        return self.root / "results" / "export"

    @property
    def onnx(self) -> Path:
        return self.folder / "model.onnx"

    @property
    def words(self) -> list[str]:
        """The overrides it ran with, but for where results go."""
        return export_words(self.data, self.checkpoint)

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))


def export_words(data: TinyDataset, checkpoint: Path) -> list[str]:
    return [
        *TINY, *data.overrides("val"), f"export.checkpoint={checkpoint}", "export.on_cpu=true",
        f"export.input_height={SIZE[0]}", f"export.input_width={SIZE[1]}",
    ]  # fmt: skip


@cache
def tiny_export() -> TinyExport:
    """The command, run once."""
    root = Path(tempfile.mkdtemp(prefix="oneformer-export-"))
    register(shutil.rmtree, root, ignore_errors=True)
    data = write_tiny_dataset(root / "data", images=4)
    checkpoint = write_tiny_checkpoint(root / "train" / "oneformer_model_best.pth")
    out, err = io.StringIO(), io.StringIO()
    words = [*export_words(data, checkpoint), f"results_dir={root / 'results'}"]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["export", "--json", *words])
    return TinyExport(root, data, checkpoint, code, out.getvalue(), err.getvalue())
