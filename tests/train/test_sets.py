"""Validation on a list of data sets: each is told in the status lines, the best checkpoint goes by all of them."""

from __future__ import annotations

import json
from pathlib import Path

from oneformer.actions.train import run
from oneformer.spec.load import load_spec
from tiny import write_tiny_dataset
from train.small import small_data, words


def test_validation_scores_lists_apart_and_together(tmp_path: Path) -> None:
    data, other = small_data(tmp_path), write_tiny_dataset(tmp_path / "harbour", images=2, size=(48, 64), seed=3)
    pairs = [
        f"dataset.val.{n}=[{getattr(data, n)}, {getattr(other, n)}]" for n in ("images", "panoptic", "annotations")
    ]
    short = ("train.num_epochs=1", "train.iters_per_epoch=1", "dataset.val.names=[street, harbour]")
    spec = load_spec(None, words(data, tmp_path / "results", *short, *pairs), action="train")
    trained = run(spec)
    assert list(trained.fitted.scores.apart) == ["street", "harbour"]
    assert trained.fitted.best == trained.fitted.scores.panoptic["all"]["PQ"]
    assert "harbour" in trained.table()
    lines = (tmp_path / "results/train/status.json").read_text().splitlines()
    kpi = next(line for line in map(json.loads, lines) if "PQ" in line.get("kpi", {}))["kpi"]
    assert {"mIoU", "mIoU/street", "PQ/harbour"} <= set(kpi)
