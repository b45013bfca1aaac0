"""A disk that fills up while an exported file is written: one line, and nothing under the final name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from oneformer.errors import WorkError
from oneformer.export import openvino as openvino_room
from story.tiny_model import write_tiny_checkpoint
from two_layers import export_two_layers

ENOUGH = 20 * 1024  # bytes for the files of the run, not for a graph
QUERIES = "model.one_former.num_object_queries=400"


TESTS = Path(__file__).resolve().parents[1]
# In a process of its own, for the limit holds for every file that a process writes.
ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from oneformer.errors import WorkError
from two_layers import export_two_layers
enough, folder, words = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
resource.setrlimit(resource.RLIMIT_FSIZE, (enough, resource.RLIM_INFINITY))
try:
    export_two_layers(folder, *words)
except WorkError as error:
    print("WorkError:", error)
"""


@pytest.mark.parametrize("format", ["onnx", "openvino", "torch"])
def test_nothing_half_written_is_left(format: str, tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "model.pth", QUERIES)
    command = [sys.executable, "-c", ON_A_FULL_DISK, str(ENOUGH), str(tmp_path), QUERIES, f"export.format={format}"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout.partition("WorkError:")[2]
    assert "the file cannot be written" in said
    assert str(tmp_path / "export" / "model.") in said and ".part" not in said
    assert {p.name for p in (tmp_path / "export").iterdir()} == {"experiment.yaml", "status.json"}


def test_openvino_itself_says_little_and_gets_the_free_space_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_checkpoint(tmp_path / "model.pth")
    openvino = openvino_room.imported(needed_for="")

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("Exception from src/core/src/pass/serialize.cpp:1:\nbasic_ios::clear: iostream error\n\n")

    monkeypatch.setattr(openvino, "save_model", full)
    with pytest.raises(WorkError, match=r"iostream error\n  hint: \d+ MiB are free") as caught:
        export_two_layers(tmp_path, "export.format=openvino")
    assert ".part" not in str(caught.value)
    assert {p.name for p in (tmp_path / "export").iterdir()} == {"experiment.yaml", "status.json"}


@pytest.mark.parametrize(("format", "name"), [("openvino", "model.bin"), ("onnx", "model.json")])
def test_a_file_of_the_user_beside_the_graph_is_not_replaced(format: str, name: str, tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "model.pth")
    mine = tmp_path / "export" / name
    mine.parent.mkdir()
    mine.write_text('{"mine": 1}')
    with pytest.raises(Exception, match="the file to write exists"):
        export_two_layers(tmp_path, f"export.format={format}")
    assert mine.read_text() == '{"mine": 1}'
    export_two_layers(tmp_path, f"export.format={format}", "export.overwrite=true")
    assert mine.read_bytes() != b'{"mine": 1}'


def test_a_second_format_goes_beside_the_first(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "model.pth")
    export_two_layers(tmp_path)
    export_two_layers(tmp_path, "export.format=torch")
    assert {"model.onnx", "model.pt2", "model.json"} <= {p.name for p in (tmp_path / "export").iterdir()}
