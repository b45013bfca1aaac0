"""An ONNX file -> OpenVINO's two files, the graph as .xml and the weights as .bin beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

from oneformer.engines.about import KEY, About
from oneformer.engines.openvino import imported, last_line, read_model
from oneformer.errors import WorkError
from oneformer.runs.by_name import by_name


def write(onnx_file: Path, path: Path, about: About, *, half: bool) -> list[Path]:
    """Convert and write; with `half` weights are stored in float16. Returns the files.

    Raises:
        MissingExtra: OpenVINO is not installed.
        WorkError: OpenVINO does not understand the graph, or the files cannot be written.
    """
    openvino = imported(needed_for="export.format=openvino")
    try:
        model = read_model(openvino.Core(), onnx_file)
        model.set_rt_info(about.to_json(), KEY)
        with by_name(path, path.with_suffix(".bin")) as place:
            openvino.save_model(model, place, compress_to_fp16=half)
    except RuntimeError as error:
        free = shutil.disk_usage(path.parent).free / 2**20  # it says the same of a full disk and of a graph
        what = f"OpenVINO cannot write the graph: {last_line(error)}"
        raise WorkError(what, where=path.name, hint=f"{free:.0f} MiB are free on that disk") from error
    return [path, path.with_suffix(".bin")]
