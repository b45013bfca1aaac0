"""A real search on the nuclei that ship here: small images and short trainings, at most a quarter of an hour on two cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from oneformer import cli

ROOT = Path(__file__).resolve().parents[2]
WORDS = (
    "-e", "specs/nuclei.yaml", "train.max_minutes=0", "train.num_epochs=9", "train.iters_per_epoch=20",
    "train.validation_interval=3", "train.precision=fp32", "train.num_threads=1",
    "dataset.augmentation.train_crop_size=[128,128]", "dataset.augmentation.test_min_size=128",
    "dataset.augmentation.test_max_size=128",
    "automl.metric=mIoU", "automl.min_epochs=3", "automl.max_trials=9", "automl.max_concurrent=2",
)  # fmt: skip
MINUTES, CORES = 15, 2


def automl(verb: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "oneformer", "automl", verb, *WORDS, f"results_dir={folder}", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, stdout=subprocess.PIPE)
    assert done.returncode == cli.DONE, verb
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_search_on_the_nuclei_is_planned_run_verified_tuned_and_handed_over(tmp_path: Path) -> None:
    planned = automl("plan", tmp_path)
    before = os.times()
    found = automl("run", tmp_path)
    after = os.times()
    worked = (after.children_user + after.children_system - before.children_user - before.children_system) / 60
    assert worked <= MINUTES * CORES, "minutes of processors, which a busy machine does not change much"
    records = found["recommendations"]
    assert len(records) == planned["trials"] == 9
    assert found["progress"]["epochs"] <= planned["epochs"]["at_most"] < 9 * 9, "fewer than nine whole trainings"
    own, best = records[0], found["best"]
    assert best["epoch"] == 9 and best["result"] >= own["result"] > 0
    assert 1 <= sum(r["early_stop_epoch"] == 9 for r in records) < 9
    files = [p for p in tmp_path.glob("automl/trials/**/*.pth") if not p.is_symlink()]
    kept = {p.stat().st_ino: p.stat().st_size for p in files}
    assert sum(kept.values()) <= planned["disk_peak_mib"] * 2**20
    assert {p.relative_to(tmp_path / "automl" / "trials").parts[0] for p in files} == {f"{best['id']:04d}"}
    assert automl("verify", tmp_path)["equal"]
    tuned = automl("tune", tmp_path)
    assert tuned["images"] == {"chosen_by": 20, "told_by": 20}
    assert all(tuned["after"]["chosen_by"][t] >= tuned["before"]["chosen_by"][t] for t in tuned["scores"])
    handed = automl("export-best", tmp_path)
    assert Path(handed["checkpoint"]).is_file() and Path(automl("report", tmp_path)["report"]).is_file()
