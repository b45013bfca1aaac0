"""The story of `oneformer benchmark`: files side by side, each in a process of its own."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from oneformer.actions import benchmark
from oneformer.cli import main
from oneformer.errors import UserError
from oneformer.predict.timing import Job, Timing
from story.tiny_model import write_tiny_checkpoint
from two_layers import SIZE, export_two_layers


def run(*words: str | Path) -> tuple[int, str, str]:
    """One command -> exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["benchmark", *map(str, words)])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    write_tiny_checkpoint(folder / "model.pth")
    return export_two_layers(folder)[0]


def test_files_are_measured_on_the_same_photos_at_the_same_size(graph: Path) -> None:
    checkpoint = graph.parent.parent / "model.pth"
    code, out, err = run(
        checkpoint, f"{graph}@openvino:fp32", "--count", "2", "--rounds", "2", "--threads", "1", "--json"
    )
    assert code == 0, err
    told = json.loads(out)
    first, second = told["rows"]
    assert [row["name"] for row in told["rows"]] == ["model.pth", "model.onnx@openvino:fp32"]
    for row in told["rows"]:
        assert row["input_size"] == list(SIZE) and row["threads"] == 1
        assert row["latency_ms"] > 0 and row["images_per_s"] > 0 and row["size_mib"] > 0 and row["open_s"] > 0
    assert (first["same_pixels"], first["same_segments"]) == (1.0, 1.0)
    assert second["same_pixels"] < 1  # the graph is of another network than the checkpoint
    assert not first["fixed"] and second["fixed"]
    assert "2 generated images" in told["about"]


def test_what_fixes_its_size_sets_it_for_the_others(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed, asked = timing_of(str(graph)), []

    def measure(job: Job, maps: Path) -> Timing:
        asked.append((Path(job.file).name, job.size))
        at = SIZE if job.file.endswith("fixed.onnx") else job.size or (96, 96)
        return replace(fixed, fixed=at == SIZE and not job.size, input_size=at)

    monkeypatch.setattr(benchmark, "measure", measure)
    jobs = [Job(str(tmp_path / name)) for name in ("best.pth", "open.onnx", "fixed.onnx")]
    timings = benchmark.measured(jobs, [tmp_path] * 3)
    assert asked == [("open.onnx", None), ("fixed.onnx", None), ("best.pth", SIZE), ("open.onnx", SIZE)]
    assert [t.input_size for t in timings] == [SIZE] * 3


def test_the_table_has_a_line_for_each_file(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = timing_of(str(graph))
    monkeypatch.setattr(benchmark, "measure", lambda job, maps: np.savez(maps, semantic_0=np.ones((2, 2))) or made)
    code, out, err = run(graph, f"{graph}@openvino", "--task", "semantic", "--count", "1")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].split()[:4] == ["file", "engine", "input", "ms"]
    assert lines[2].startswith("model.onnx ") and "64x96" in lines[2] and "100.00%" in lines[2]
    assert lines[3].startswith("model.onnx@openvino ")


def timing_of(file: str) -> Timing:
    return Timing(
        file, "OnnxRuntimeEngine(model.onnx, cpu, fp32)", 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, None, SIZE, True, 1, 1
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no file is named"),
        (["none.onnx"], "does not exist"),
        (["{graph}@toaster"], "there is no engine 'toaster'"),
        (["{graph}@torch"], "cannot be run by torch"),
        (["{graph}", "--rounds", "0"], "--rounds is 0"),
        (["{graph}", "--batch", "many"], "--batch is many"),
        (["{graph}", "--size", "640"], "for example 640x640"),
        (["{graph}", "--size", "100x96"], "multiples of 32"),
        (["{graph}", "--images", "{graph.parent}"], "holds no image"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_measured(words: list[str], said: str, graph: Path) -> None:
    code, out, err = run(*(word.format(graph=graph) for word in words))
    assert code == 2 and said in err and out == ""


def test_what_a_process_says_is_told(graph: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(graph.read_bytes()[:3000])
    code, out, err = run(broken)
    assert code == 2 and out == "" and "ONNX Runtime cannot read it" in err and "Traceback" not in err


def test_agreement_counts_pixels_and_segments(tmp_path: Path) -> None:
    map_a = np.array([[1, 1, 2, 2], [1, 1, 2, 2]])
    map_b = np.array([[1, 1, 1, 3], [1, 1, 3, 3]])  # one pixel more for the first, the second gets another id
    np.savez(tmp_path / "a.npz", panoptic_0=map_a, segments_0=np.array([[1, 0], [2, 1]]))
    np.savez(tmp_path / "b.npz", panoptic_0=map_b, segments_0=np.array([[1, 0], [3, 1]]))
    np.savez(tmp_path / "c.npz", panoptic_0=map_b, segments_0=np.array([[1, 0], [3, 0]]))
    assert benchmark.agreement(tmp_path / "a.npz", tmp_path / "a.npz", 1) == (1.0, 1.0)
    assert benchmark.agreement(tmp_path / "a.npz", tmp_path / "b.npz", 1) == (7 / 8, 1.0)
    assert benchmark.agreement(tmp_path / "a.npz", tmp_path / "c.npz", 1) == (4 / 8, 0.5)


def test_words_name_a_file_its_engine_and_its_precision(tmp_path: Path) -> None:
    assert benchmark.parts_of("a/model.onnx@openvino:bf16") == ("a/model.onnx", "openvino", "bf16")
    assert benchmark.parts_of("model.xml@:fp32") == ("model.xml", "auto", "fp32")
    odd = tmp_path / "me@home.onnx"
    odd.touch()
    assert benchmark.parts_of(str(odd)) == (str(odd), "auto", "")
    with pytest.raises(UserError):
        benchmark.run([str(odd) + "x"])
