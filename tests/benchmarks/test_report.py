"""What benchmarks do with their rows: ratios, tables, sections of a document, and the comparison with stored ratios."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    """The benchmarks' own modules, which are scripts beside one another and no package."""
    found = {}
    for name in ("_measure", "_report"):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        found[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found[name])
    yield found
    for name in found:
        del sys.modules[name]


@pytest.fixture
def report(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["_report"]


@pytest.fixture
def measure(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["_measure"]


def row(report: ModuleType, work: str, ours: float, peer: float | None = 100.0, **more: object) -> object:
    spread = report.Spread
    return report.Row(work, spread(ours, ours - 1, ours + 9), peer and spread(peer, peer, peer), **more)


def test_rows_come_back_from_their_file(report: ModuleType, tmp_path: Path) -> None:
    rows = [row(report, "forward", 50.0, floor=20.0, note="n"), row(report, "alone", 3.0, None)]
    report.save(tmp_path / "rows.json", rows)
    assert report.load(tmp_path / "rows.json") == rows
    assert [r.ratio for r in rows] == [0.5, None]


def test_a_table_leaves_out_what_no_row_has(report: ModuleType) -> None:
    lines = report.table([row(report, "forward", 50.0, floor=20.0), row(report, "alone", 3.0, None)])
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["work", "ours", "peer", "ours / peer", "floor reached"]
    assert cells[2] == ["forward", "50 ms (49-59)", "transformers 100 ms", "0.50", "40% of 20 ms"]
    assert cells[3] == ["alone", "3.0 ms (2.0-12.0)", "", "", ""]
    assert len({len(line) for line in lines}) == 1


def test_a_section_is_replaced_and_the_rest_of_the_document_stays(report: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.md"
    path.write_text("# Title\n\nWritten by hand.\n")
    report.write_section(path, "forward", ["one"])
    report.write_section(path, "deform", ["two"])
    before = path.read_text()
    report.write_section(path, "forward", ["a \\1 b"])  # no template of a regular expression
    assert path.read_text() == before.replace("\none\n", "\na \\1 b\n")
    assert path.read_text().startswith("# Title\n\nWritten by hand.\n")


def test_only_a_ratio_more_than_15_percent_worse_on_the_same_hardware_is_a_regression(
    report: ModuleType, tmp_path: Path
) -> None:
    stored = report.Stored(tmp_path / "results.json")
    stored.update(
        "this", {"forward": [row(report, "a", 50.0), row(report, "b", 50.0), row(report, "c", 1.0, None)]}, {}
    )
    stored = report.Stored(tmp_path / "results.json")
    now = [row(report, "a", 57.0), row(report, "b", 58.0), row(report, "new", 500.0), row(report, "c", 9.0, None)]
    (line,) = stored.regressions("this", "forward", now)
    assert line == "forward, b: 0.58 of transformers, stored is 0.50"
    assert stored.regressions("another", "forward", now) == []


def test_storing_one_benchmark_keeps_the_others(report: ModuleType, tmp_path: Path) -> None:
    stored = report.Stored(tmp_path / "results.json")
    stored.update("this", {"forward": [row(report, "a", 50.0)]}, {"date": "2026-01-01"})
    stored.update("this", {"deform": [row(report, "a", 25.0)]}, {"date": "2026-01-02"})
    assert stored.ratios("this", "forward") == {"a": 0.5}
    assert stored.ratios("this", "deform") == {"a": 0.25}


def test_of_two_runs_the_better_row_counts(report: ModuleType) -> None:
    first, second = [row(report, "a", 60.0), row(report, "b", 40.0)], [row(report, "a", 50.0), row(report, "b", 45.0)]
    assert report.better(first, second) == [second[0], first[1]]


def test_sides_take_turns_and_the_warm_up_does_not_count(measure: ModuleType) -> None:
    calls: list[str] = []
    times = measure.in_turn({n: lambda n=n: calls.append(n) for n in "ab"}, rounds=2, warm_up=1)
    assert calls == ["a", "b"] * 3
    assert times.keys() == {"a", "b"}
    assert all(0 <= t.low <= t.median <= t.high for t in times.values())


def test_operations_are_counted_forward_and_backward(measure: ModuleType) -> None:
    a, b = torch.randn(3, 5, requires_grad=True), torch.randn(5, 7, requires_grad=True)
    product = 2 * 3 * 5 * 7
    assert measure.operations(lambda: a @ b) == product
    assert measure.operations(lambda: (a @ b).sum().backward()) == 3 * product
    with torch.inference_mode():
        layer, x = torch.nn.Linear(5, 7), torch.randn(2, 3, 5)
        assert measure.operations(lambda: layer(x)) == 2 * 6 * 5 * 7
    q, k = torch.randn(1, 2, 4, 8), torch.randn(1, 2, 6, 8)
    with torch.no_grad():
        attention = measure.operations(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, k))
    assert attention == 2 * (2 * 2 * 4 * 6 * 8)


def test_the_peak_memory_of_a_process_is_at_least_what_it_holds(measure: ModuleType) -> None:
    held = torch.ones(256 << 20, dtype=torch.uint8)
    assert measure.peak_memory_mib() > 256
    assert held[-1] == 1


def test_a_childs_peak_does_not_begin_with_its_parents(measure: ModuleType, tmp_path: Path) -> None:
    held = torch.ones(512 << 20, dtype=torch.uint8)
    script = tmp_path / "child.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(FOLDER)!r})\nimport _measure\nprint(_measure.peak_memory_mib())\n"
    )
    assert measure.memory_of(str(script)).median < 512
    assert held[-1] == 1


def test_a_machine_is_busy_while_something_computes(measure: ModuleType) -> None:
    assert 0 <= measure.busy(0.05) <= 1
    script = "import time\nend = time.monotonic() + 20\nwhile time.monotonic() < end: pass"
    burning = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(os.cpu_count() or 1)]
    try:
        assert measure.busy(1.0) > 0.5
    finally:
        for process in burning:
            process.kill()
            process.wait()
