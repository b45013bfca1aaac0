"""Claims about the written files: values, merging of several processes, and nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oneformer.predict.writer import PredictionWriter, panoptic_image, semantic_image, void_value
from oneformer.segments.types import TASKS
from predict.fake import LABELS, predictor, scene

FILES = ("a.png", "b.png", "c.png", "d.png")


@pytest.mark.parametrize(("classes", "void", "mode"), [(2, 255, "L"), (255, 255, "L"), (256, 65535, "I;16")])
def test_a_semantic_png_has_room_for_all_classes_and_one_value_for_none(classes: int, void: int, mode: str) -> None:
    class_map = np.array([[0, classes - 1, classes, -1]])
    image = semantic_image(class_map, classes)
    assert image.mode == mode and void_value(classes) == void
    assert np.asarray(image).tolist() == [[0, classes - 1, void, void]]


def test_a_panoptic_png_holds_ids_beyond_two_channels() -> None:
    ids = np.array([[0, 1, 255, 256, 65_536, 16_777_215]], np.int32)
    rgb = np.asarray(panoptic_image(ids)).astype(int)
    assert (rgb[..., 0] + 256 * rgb[..., 1] + 65_536 * rgb[..., 2]).tolist() == ids.tolist()


def test_parts_of_several_processes_become_the_files_of_one(tmp_path: Path) -> None:
    results = dict(zip(FILES, predictor().predict([scene()] * 4, task=TASKS), strict=True))
    ids = {file: i + 1 for i, file in enumerate(FILES)}

    def write(folder: str, files: tuple[str, ...], *, keep: str = "new") -> PredictionWriter:
        writer = PredictionWriter(tmp_path / folder, LABELS, tasks=TASKS, keep=keep)
        for file in files:
            if file == "c.png":
                writer.fail(file, "broken")
            else:
                writer.add(results[file], file=file, image_id=ids[file])
        return writer

    write("one", FILES).close()
    other = write("two", FILES[1::2], keep="part")
    other.close()
    assert not list((tmp_path / "two").glob("*.json"))
    first = write("two", FILES[::2])
    first.absorb([other.part()], order=FILES)
    first.close()
    for name in ("panoptic.json", "instances.json", "predictions.json"):
        one, two = (json.loads((tmp_path / folder / name).read_text(encoding="utf-8")) for folder in ("one", "two"))
        assert one == two, name


def test_a_file_that_cannot_be_encoded_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(self: Image.Image, file: object, *args: object, **options: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    result = predictor().predict(scene(), task="semantic")
    monkeypatch.setattr(Image.Image, "save", half)
    with (
        pytest.raises(Exception, match="No space left"),
        PredictionWriter(tmp_path, LABELS, tasks=("semantic",)) as writer,
    ):
        writer.add(result, file="a.png")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["predictions.json"]
    assert json.loads((tmp_path / "predictions.json").read_text())["images"] == []
