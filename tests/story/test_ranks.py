"""However many processes share them, each image is scored and predicted once, with the same results to the last digit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from oneformer.data.loader import share
from story.tiny_model import TINY, write_tiny_checkpoint
from tiny import TinyDataset, write_tiny_dataset
from train.several import environment

PHOTOS = 7  # which neither two nor three processes share out evenly, nor batches of two


@pytest.mark.parametrize("count", [0, 1, 7, 12])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_each_image_has_one_process_and_the_batch_that_it_has_alone(
    count: int, batch_size: int, world_size: int
) -> None:
    items = list(range(count))
    settings = {"batch_size": batch_size, "world_size": world_size}
    shares = [share(items, rank=rank, **settings) for rank in range(world_size)]
    assert sorted(item for own in shares for item in own) == items
    whole = {tuple(items[i : i + batch_size]) for i in range(0, count, batch_size)}
    assert {tuple(own[i : i + batch_size]) for own in shares for i in range(0, len(own), batch_size)} == whole


class Twice:
    """Photos of two shapes in two data sets, so that batches are padded, and the results by number of processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sets = [
            write_tiny_dataset(root / "wide", images=4, size=(64, 96)),
            write_tiny_dataset(root / "tall", images=PHOTOS - 4, size=(96, 80), seed=5),
        ]
        self.photos = root / "photos"
        self.photos.mkdir()
        for name, data in zip(("wide", "tall"), self.sets, strict=True):
            for path in sorted(data.images.glob("*.png")):
                shutil.copy(path, self.photos / f"{path.stem}_{name}.png")
        self.checkpoint = write_tiny_checkpoint(root / "best.pth")

    def run(self, action: str, processes: int) -> Path:
        """The folder of an action's results."""
        results = self.root / f"{processes}"
        words = [
            *TINY, f"results_dir={results}", f"{action}.checkpoint={self.checkpoint}", "dataset.test.num_workers=0",
            f"{action}.num_gpus={processes}", f"{action}.accelerator=cpu", f"{action}.batch_size=2",
        ]  # fmt: skip
        words += listed(self.sets) if action == "evaluate" else [f"inference.images_dir={self.photos}"]
        more = ["inference.mode=all"] if action == "inference" else []
        command = [sys.executable, "-m", "oneformer", action, "preset=nano", *words, *more]
        subprocess.run(command, env=environment(), check=True, capture_output=True)
        return results / action


def listed(sets: list[TinyDataset]) -> list[str]:
    """Overrides that name several data sets."""
    parts = [dict(word.split("=", 1) for word in data.overrides("test")) for data in sets]
    return [
        f"{key}=[{','.join(part[key] for part in parts)}]" if key.startswith("dataset.test.") else f"{key}={value}"
        for key, value in parts[0].items()
    ]


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Twice:
    return Twice(tmp_path_factory.mktemp("ranks"))


@pytest.mark.slow
def test_scores_are_the_same_over_one_two_and_three_processes(twice: Twice) -> None:
    one, two, three = (
        json.loads((twice.run("evaluate", n) / "metrics.json").read_text(encoding="utf-8")) for n in (1, 2, 3)
    )
    assert one["semantic"]["mIoU"] > 0 and len(one["datasets"]) == 2
    assert one == two == three


@pytest.mark.slow
def test_predictions_are_the_same_over_one_two_and_three_processes(twice: Twice) -> None:
    one, two, three = (twice.run("inference", n) for n in (1, 2, 3))
    names = {str(path.relative_to(one)) for path in one.rglob("*.*")}
    assert len([name for name in names if name.startswith("panoptic/")]) == PHOTOS
    for other in (two, three):
        assert {str(path.relative_to(other)) for path in other.rglob("*.*")} == names
        for name in names:
            if name.endswith((".png", ".jpg")) or name in ("panoptic.json", "instances.json"):
                assert (other / name).read_bytes() == (one / name).read_bytes(), name
        index = json.loads((other / "predictions.json").read_text(encoding="utf-8"))
        assert [item["file"] for item in index["images"]] == sorted(path.name for path in twice.photos.iterdir())
