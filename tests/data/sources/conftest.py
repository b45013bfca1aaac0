"""Fixtures of the sources tests: a fetcher with a cache of its own, packed data, and no pauses."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oneformer.data.sources.fetch import Fetcher
from oneformer.spec.sources import SourcesSpec
from tiny import TinyDataset, write_tiny_dataset

MakeFetcher = Callable[..., Fetcher]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    """Tries follow one another at once; how long the pauses would have been is kept. No cache but the test's own."""
    pauses: list[float] = []
    real = time.sleep
    monkeypatch.setattr("oneformer.data.sources.transfer.time.sleep", lambda s: (pauses.append(s), real(0))[0])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return pauses


@pytest.fixture
def fetcher(tmp_path: Path) -> MakeFetcher:
    """Makes fetchers that share the cache `tmp_path / "cache"`."""

    def make(**settings: Any) -> Fetcher:
        return Fetcher(SourcesSpec(cache_dir=str(tmp_path / "cache"), **{"retries": 3, **settings}))

    return make


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    """A data set of four photos that no test changes."""
    return write_tiny_dataset(tmp_path_factory.mktemp("small"), images=4, size=(48, 64))


@pytest.fixture(scope="session")
def packed(small: TinyDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a root in TAO's layout, with wrapper folders around the files."""
    root = tmp_path_factory.mktemp("packed")
    for name, folder, wrapper in (
        ("images.tar.gz", small.images, "set/photos"),
        ("images_panoptic.tar.gz", small.panoptic, "masks"),
    ):
        with tarfile.open(root / name, "w:gz") as tar:
            tar.add(folder, wrapper)
    (root / "annotations.json").write_bytes(small.annotations.read_bytes())
    (root / "label_map.json").write_bytes(small.label_map.read_bytes())
    return root


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
