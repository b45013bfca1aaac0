"""A traced program -> a `.pt2` file that PyTorch runs without the source of the network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.export import ExportedProgram

from oneformer.engines.about import KEY, About
from oneformer.errors import WorkError
from oneformer.export.graph import without_traces


def write(program: ExportedProgram, path: Path, about: About) -> list[Path]:
    """Write it with its description inside. Returns the file. Raises WorkError when it cannot be written."""
    try:
        torch.export.save(without_traces(program), path, extra_files={KEY: about.to_json()})
    except RuntimeError as error:  # what torch's own writer raises, a full disk among it
        raise WorkError(f"torch cannot write the file: {error}"[:300], where=str(path)) from error
    return [path]
