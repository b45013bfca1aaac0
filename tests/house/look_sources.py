"""A spec -> where its data lies on this machine once it was fetched, and how long a fetch is tried."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path
from unittest import mock

from house.world import World
from oneformer.data.sources import fetched
from oneformer.data.sources.fetch import Fetcher
from oneformer.errors import UserError
from oneformer.spec import ExperimentSpec


def paths(spec: ExperimentSpec, world: World, action: str = "train") -> list[str]:
    """What an action would read."""
    archive = world.root / "packed.tar"
    if not archive.exists():
        with tarfile.open(archive, "w") as tar:
            tar.add(world.files.data.images, "images")
    shutil.rmtree(world.root / "user", ignore_errors=True)
    with mock.patch.dict(os.environ, XDG_CACHE_HOME=str(world.root / "user")):
        here = fetched(spec, action)
    data = here.dataset
    found = [data.train.images, data.val.images, data.label_map, here.inference.images_dir]
    found.append(data.quant_calibration_dataset.images_dir)
    return [str(Path(str(path)).resolve()) if path else "" for path in found]


def predicted_paths(spec: ExperimentSpec, world: World) -> list[str]:
    """The same of inference."""
    return paths(spec, world, "inference")


def measured_paths(spec: ExperimentSpec, world: World) -> list[str]:
    """The same of quantization."""
    return paths(spec, world, "quantize")


def tries(spec: ExperimentSpec, world: World) -> int:
    """How often a server that is not there is asked."""
    spec.dataset.sources.cache_dir = str(world.root / "user")
    with mock.patch("time.sleep") as slept:
        try:
            Fetcher(spec.dataset.sources).local("http://127.0.0.1:9/file", key="key")
        except UserError:
            return slept.call_count
    raise AssertionError("nobody listens there")
