"""A traced program -> a `.pt2` file that PyTorch runs without the source of the network."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch.export import ExportedProgram

from oneformer.engines.about import KEY, About
from oneformer.engines.onnxruntime import first_line
from oneformer.errors import WorkError
from oneformer.export.graph import without_traces
from oneformer.runs.by_name import by_name


def write(program: ExportedProgram, path: Path, about: About) -> list[Path]:
    """Write it with its description inside. Returns the file.

    Raises:
        WorkError: torch cannot put it into a file.
        OSError: the file cannot be written.
    """
    content = io.BytesIO()  # given a path, torch ends the process when the disk is full
    try:
        torch.export.save(without_traces(program), content, extra_files={KEY: about.to_json()})
    except RuntimeError as error:
        raise WorkError(f"torch cannot make the file: {first_line(error)}", where=path.name) from error
    with by_name(path) as place:
        place.write_bytes(content.getbuffer())
    return [path]
