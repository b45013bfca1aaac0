"""Fixtures of the data tests: a tiny data set to read, another to break, and the spec section that points at one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oneformer.spec.data import DatasetSpec
from tiny import TinyDataset, write_tiny_dataset


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    """A data set that no test changes."""
    return write_tiny_dataset(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def broken(tmp_path: Path) -> TinyDataset:
    """A small data set for one test to break."""
    return write_tiny_dataset(tmp_path / "set", images=4)


def point_at(data: TinyDataset) -> DatasetSpec:
    """A dataset section whose three splits are `data`."""
    dataset = DatasetSpec(label_map=str(data.label_map))
    for split in (dataset.train, dataset.val, dataset.test):
        split.images, split.panoptic, split.annotations = str(data.images), str(data.panoptic), str(data.annotations)
        split.num_workers = 0
    dataset.augmentation.train_crop_size = [64, 64]
    dataset.augmentation.train_min_size = [64]
    dataset.augmentation.test_min_size = 48
    return dataset


@pytest.fixture
def dataset(tiny: TinyDataset) -> DatasetSpec:
    return point_at(tiny)


@pytest.fixture
def section() -> Callable[[TinyDataset], DatasetSpec]:
    return point_at


def change(path: Path, edit: Callable[[Any], Any]) -> None:
    """Rewrite a JSON file; `edit` changes its content in place."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def edit_json() -> Callable[[Path, Callable[[Any], Any]], None]:
    return change
