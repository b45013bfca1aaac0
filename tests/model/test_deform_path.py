"""Which computation of deformable attention is taken where, and how one is forced."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from oneformer.errors import UserError
from oneformer.model import deform_path
from oneformer.model.deform import DeformableAttention
from oneformer.model.deform_path import VARIABLE, choose, path_for, summary


@pytest.fixture(autouse=True)
def nothing_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def gpu_with(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were a GPU on which Triton's kernels cannot be used for this reason."""
    monkeypatch.setattr(deform_path, "obstacle", lambda device, index: why)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


def test_the_cpu_takes_rows_and_grid_sample_where_it_compiles() -> None:
    assert path_for(torch.zeros(1)) == choose("cpu", 0, False) == "rows"
    assert choose("cpu", 0, True) == "grid"
    assert choose("mps", 0, False) == "grid"


def test_a_gpu_takes_triton_unless_it_fails_there(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_with("", monkeypatch)
    assert choose("cuda", 0, False) == choose("cuda", 0, True) == "triton"
    assert summary() == "CPU: rows; GPU 0: triton; exported graphs: grid"
    gpu_with("the package triton is not installed", monkeypatch)
    assert choose("cuda", 0, False) == "grid"
    assert summary() == "CPU: rows; GPU 0: grid, for the package triton is not installed; exported graphs: grid"


@pytest.mark.parametrize(
    ("asked", "device", "compiling", "taken"),
    [
        ("grid", "cpu", False, "grid"),
        ("grid", "cuda", False, "grid"),
        ("rows", "cpu", False, "rows"),
        ("rows", "cpu", True, "grid"),
        ("triton", "cuda", False, "triton"),
        ("auto", "cuda", False, "triton"),
        ("", "cpu", False, "rows"),
    ],
)
def test_the_variable_forces_one(
    asked: str, device: str, compiling: bool, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_with("", monkeypatch)
    monkeypatch.setenv(VARIABLE, asked)
    assert choose(device, 0, compiling) == taken


def test_what_cannot_be_forced_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "rows")
    with pytest.raises(UserError, match="for the CPU"):
        choose("cuda", 0, False)
    monkeypatch.setenv(VARIABLE, "triton")
    with pytest.raises(UserError, match="triton cannot be used"):
        choose("cpu", 0, False)
    assert summary().startswith("CPU: none, for triton cannot be used: ")
    monkeypatch.setenv(VARIABLE, "cuda")
    with pytest.raises(UserError, match="take one of auto, grid, rows, triton"):
        DeformableAttention(8, heads=2, levels=1, points=1)


def test_without_triton_the_reason_is_that_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert deform_path.obstacle.__wrapped__("cuda", 0) == "the package triton is not installed"


def test_a_gpu_that_is_none_of_nvidia_keeps_grid_sample() -> None:
    pytest.importorskip("triton")
    assert "NVIDIA" in deform_path.obstacle.__wrapped__("xpu", 0)


def test_a_failure_on_a_gpu_is_a_warning_and_no_end(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("needs a GPU that fails")
    assert "triton fails with" in deform_path.obstacle.__wrapped__("cuda", 0)
    assert "grid_sample on cuda:0" in caplog.text


def test_the_network_is_imported_without_the_compiler() -> None:
    """It would double the time to the first prediction."""
    code = "import sys, oneformer.model.oneformer; print('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_choice_is_marked_as_torch_itself_does() -> None:
    def marked() -> None: ...

    torch.compiler.assume_constant_result(marked)
    assert vars(marked).items() <= vars(choose).items() and vars(marked)
