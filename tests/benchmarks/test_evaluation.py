"""The benchmark of PQ compares two ways that find the same, on the photos that ship here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def test_it_measures_both_ways_and_the_growth(tmp_path: Path) -> None:
    command = [sys.executable, "evaluation.py", "--rounds", "1", "--json", str(tmp_path / "rows.json")]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # it asserts that both find the same PQ
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["work"] for row in rows] == [
        "PQ of 12 photos, predictions from PNGs", "PQ of 12 photos, predictions in memory",
        "PQ of 3 photos", "PQ of 48 photos",
    ]  # fmt: skip
    assert all(row["ours"][0] > 0 for row in rows) and all(row["peer"][0] > 0 for row in rows[:2])
