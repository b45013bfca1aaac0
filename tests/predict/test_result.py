"""Claims about results: pictures and saved files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oneformer.errors import UserError
from oneformer.predict.result import Result
from oneformer.segments.types import TASKS
from predict.fake import LABELS, predictor, scene


@pytest.fixture(scope="module")
def result() -> Result:
    found = predictor().predict(scene(), task=TASKS)
    assert isinstance(found, Result)
    return found


@pytest.mark.parametrize("task", ["", *TASKS])
def test_a_plot_has_the_size_of_the_photo(result: Result, task: str) -> None:
    picture = result.plot(task)
    assert isinstance(picture, Image.Image) and picture.size == (96, 64)
    assert (np.asarray(picture) != scene()).any()


def test_a_legend_adds_a_strip_below(result: Result) -> None:
    assert result.plot("semantic", legend=True).height > 64


def test_an_unknown_task_cannot_be_drawn(result: Result) -> None:
    with pytest.raises(UserError, match="tasks are"):
        result.plot("depth")


def test_results_saved_one_after_the_other_share_one_index(tmp_path: Path) -> None:
    photos = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in photos:
        Image.fromarray(scene()).save(path)
    for result in predictor().predict(photos, task=TASKS):
        assert result.save(tmp_path / "out") == tmp_path / "out"
    index = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [i["file"] for i in index["images"]] == ["a.png", "b.png"]
    assert [i["image_id"] for i in index["images"]] == [1, 2]
    panoptic = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    assert [a["file_name"] for a in panoptic["annotations"]] == ["a.png", "b.png"]
    assert (tmp_path / "out" / "overlays" / "b.jpg").is_file()


def test_saving_a_photo_again_replaces_it(tmp_path: Path) -> None:
    for _ in range(2):
        predictor().predict(scene(), task=TASKS).save(tmp_path)
    assert len(json.loads((tmp_path / "predictions.json").read_text())["images"]) == 1
    ids = {i["image_id"] for i in json.loads((tmp_path / "instances.json").read_text())}
    assert ids == {1}


def test_two_photos_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    first, second = predictor().predict([scene(), scene((96, 64))], task="semantic")
    first.name, second.name = "x/photo.png", "y/photo.png"
    first.save(tmp_path)
    second.save(tmp_path)
    files = [
        tmp_path / i["outputs"]["semantic"] for i in json.loads((tmp_path / "predictions.json").read_text())["images"]
    ]
    assert [Image.open(f).size for f in files] == [(96, 64), (64, 96)]


def test_predictions_of_another_model_are_not_mixed_in(tmp_path: Path) -> None:
    predictor().predict(scene()).save(tmp_path)
    other = predictor().predict(scene())
    other.labels = type(LABELS).from_dict({**LABELS.to_dict(), "names": ["a", "b", "c", "d"]})
    with pytest.raises(UserError, match="other classes"):
        other.save(tmp_path)
