"""One file measured in this process: batches that share a shape, warm-up that is not counted, maps of every photo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oneformer.engines.base import EngineInfo
from oneformer.predict import timing
from oneformer.predict.timing import Job, batches_of, measure
from oneformer.spec import ModelSpec
from predict.fake import MEAN, STD, ColourEngine, scene


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls of an engine that stands in for every file."""
    engine = ColourEngine()
    engine.info = EngineInfo(MEAN, STD, 64, 128, ModelSpec())  # type: ignore[assignment]
    monkeypatch.setattr(timing, "open_engine", lambda *_, **__: engine)
    monkeypatch.setattr(timing, "photos_of", lambda job: [scene((64, 96))] * 5 + [scene((96, 64))] * 2)
    return engine.calls


def test_batches_share_a_shape_and_the_last_of_each_may_be_smaller() -> None:
    photos = [scene((64, 96))] * 5 + [scene((96, 64))] * 2
    batches = batches_of(photos, ColourEngine(), 3)  # type: ignore[arg-type]
    assert [tuple(b.shape) for b in batches] == [(3, 3, 64, 96), (2, 3, 64, 96), (2, 3, 96, 64)]


def test_every_photo_is_counted_and_the_warm_up_is_not(calls: list[Any], tmp_path: Path) -> None:
    job = Job(str(tmp_path / "none.onnx"), batch=3, rounds=4, warmup=0.0, tasks=("semantic", "panoptic"))
    done = measure(job, tmp_path / "maps.npz")
    batches = [shape[0] for shape, tasks in calls if tasks == ("semantic", "panoptic")]
    first, warm, timed, maps = [3], [3, 2, 2] * 2, [3, 2, 2] * 4, [1] * 7
    assert batches == first + warm + timed + maps
    assert done.images_per_s * done.latency_ms > 0 and done.slowest_ms >= done.latency_ms
    assert done.input_size is None and not done.fixed and done.batch == 3
    with np.load(tmp_path / "maps.npz") as found:
        assert set(found) == {f"{kind}_{i}" for kind in ("semantic", "panoptic", "segments") for i in range(7)}
        assert found["semantic_0"].shape == (64, 96) and found["panoptic_6"].shape == (96, 64)


def test_a_size_holds_for_files_that_take_any(calls: list[Any], tmp_path: Path) -> None:
    done = measure(Job(str(tmp_path / "none.onnx"), size=(64, 64), warmup=0.0, rounds=1), tmp_path / "maps.npz")
    assert done.input_size == (64, 64) and not done.fixed
    assert {shape[2:] for shape, _ in calls} == {(64, 64)}


def test_generated_scenes_take_the_place_of_photos() -> None:
    photos = timing.photos_of(Job("none.onnx", count=3))
    assert [p.dtype for p in photos] == [np.uint8] * 3
    assert not np.array_equal(photos[0][:360, :480], photos[1][:360, :480])


def test_the_weights_beside_a_graph_belong_to_its_size(tmp_path: Path) -> None:
    for name, size in (("a.xml", 10), ("a.bin", 200), ("b.onnx", 30), ("b.onnx.data", 400), ("c.pth", 5)):
        (tmp_path / name).write_bytes(bytes(size))
    found = [timing.bytes_of(tmp_path / name) for name in ("a.xml", "b.onnx", "c.pth")]
    assert found == [210, 430, 5] and timing.bytes_of(tmp_path) == 645
