"""The benchmark of Triton's kernels says when there is no GPU, and runs from end to end in Triton's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def result(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **variables}
    command = [sys.executable, "deform_gpu.py", *words]
    return subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False, env=variables)


def test_without_a_gpu_nothing_is_measured(tmp_path: Path) -> None:
    done = result("--json", str(tmp_path / "rows.json"), TRITON_INTERPRET="")
    assert (done.returncode, done.stdout) == (0, "torch sees no CUDA GPU here: nothing was measured\n"), done.stderr
    assert not (tmp_path / "rows.json").exists()


@pytest.mark.slow
def test_it_runs_from_end_to_end_and_counts_the_bytes(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    done = result("--size", "32", "--rounds", "1", "--json", str(tmp_path / "rows.json"), TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stderr  # it asserts that both find the same
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["work"] for row in rows] == [
        f"{work}, 1x32x32, {dtype}"
        for dtype in ("float32", "float16", "bfloat16")
        for work in ("forward", "forward and backward")
    ]
    assert all(row["unit"] == "us" and row["ours"][0] > 0 for row in rows)


def test_the_floor_counts_each_input_and_output_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import deform_gpu

    tokens, heads, samples, d = 2**2 + 4**2 + 8**2, 8, 12, 32
    problem = deform_gpu.Problem(64, 2, torch.bfloat16, torch.device("cpu"))
    bags = 2 * tokens * heads
    value, places, weights, out = bags * d * 2, bags * samples * 8, bags * samples * 4, bags * d * 4
    forward = value + places + weights + out
    backward = out + value + places + weights + value + places + weights
    assert problem.least_bytes() == (forward, forward + backward)
