"""The formula of the guide to many machines, held against what trainings take on this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from oneformer.spec.load import load_spec
from oneformer.spec.tree import to_dict
from tiny import TinyDataset, write_tiny_dataset


def peak(data: TinyDataset, batch: int, side: int) -> float:
    """Bytes that a training of two steps held at most, in a process of its own."""
    words = [
        "preset=nano", *data.overrides("train"), "train.accelerator=cpu", f"dataset.train.batch_size={batch}",
        f"dataset.augmentation.train_crop_size=[{side},{side}]", "dataset.train.num_workers=0",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-P", "-m", "oneformer.actions.train_memory"],
        input=json.dumps(to_dict(load_spec(None, words, action="train"))),
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return float(json.loads(done.stdout.strip().splitlines()[-1])["peak"])


@pytest.mark.slow
def test_memory_grows_with_the_pixels_of_a_batch(tmp_path: Path) -> None:
    """Two trials give both numbers of the formula; a batch of other size and number has to take what it says."""
    data = write_tiny_dataset(tmp_path, images=8)
    small, large = peak(data, 1, 256), peak(data, 4, 256)
    each = (large - small) / (3 * 256**2)
    fixed = small - each * 256**2
    for batch, side in ((2, 384), (2, 256)):
        assert peak(data, batch, side) == pytest.approx(fixed + each * batch * side**2, rel=0.15)
