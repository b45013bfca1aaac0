"""Claims about oneformer.load and Predictor: what goes in, what comes out, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import oneformer
from oneformer.data.sizes import Sizes
from oneformer.errors import UserError
from oneformer.predict.predictor import Predictor, checked_tasks
from oneformer.segments.types import TASKS, Outputs
from predict.fake import LABELS, ColourEngine, predictor, scene


def test_a_photo_becomes_segments_at_its_own_size() -> None:
    result = predictor().predict(scene((64, 96)))
    assert result.panoptic_map.shape == (64, 96) and result.panoptic_map.dtype == np.int32
    found = {s["name"]: s for s in result.segments}
    assert set(found) == set(LABELS.names)
    disk = found["disk"]
    assert (disk["class_id"], disk["category_id"], disk["isthing"]) == (0, 2, True)
    assert disk["area"] == np.count_nonzero(result.panoptic_map == disk["id"])
    assert result.panoptic_map[40, 24] == disk["id"]
    assert 0.9 < disk["score"] <= 1


def test_the_semantic_map_holds_class_ids_and_instances_hold_masks_boxes_and_names() -> None:
    result = predictor().predict(scene(), task=("semantic", "instance"))
    assert result.semantic_map[2, 2] == 1 and result.semantic_map[60, 2] == 3
    best = {i["name"]: i for i in reversed(result.instances)}
    box = best["box"]
    assert box["mask"].shape == (64, 96) and box["mask"].dtype == bool
    assert box["area"] == box["mask"].sum()
    x0, y0, x1, y1 = box["box"]
    assert box["mask"][int(y0) : int(y1), int(x0) : int(x1)].sum() == box["area"]
    assert box["category_id"] == 6


@pytest.mark.parametrize("kind", ["path", "text", "pil", "array"])
def test_paths_pillow_images_and_arrays_give_the_same(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "street.png"
    Image.fromarray(scene()).save(path)
    given = {"path": path, "text": str(path), "pil": Image.open(path), "array": scene()}[kind]
    result = predictor().predict(given)
    assert (result.panoptic_map == predictor().predict(scene()).panoptic_map).all()
    assert result.name == ("image_0" if kind == "array" else "street.png")


def test_a_list_in_is_a_list_out_in_the_same_order_whatever_the_batch_size() -> None:
    photos = [scene((64, 96)), scene((96, 64)), scene((64, 96))]
    one, many = (predictor().predict(photos, batch_size=b) for b in (1, 3))
    assert [r.size for r in one] == [(64, 96), (96, 64), (64, 96)]
    for a, b in zip(one, many, strict=True):
        assert (a.panoptic_map == b.panoptic_map).all()
    assert predictor().predict([]) == []
    assert len(predictor().predict([scene()])) == 1


def test_several_tasks_are_one_call_of_the_engine() -> None:
    engine = ColourEngine()
    result = Predictor(engine).predict(scene(), task=("panoptic", "semantic", "instance"))  # type: ignore[arg-type]
    assert engine.calls == [((1, 3, 64, 96), TASKS)]
    assert result.tasks == TASKS


def test_images_of_different_shapes_never_share_padding() -> None:
    engine = ColourEngine()
    Predictor(engine).predict([scene((64, 96)), scene((64, 64)), scene((64, 90))], batch_size=3)  # type: ignore[arg-type]
    assert sorted(shape for shape, _ in engine.calls) == [(1, 3, 64, 64), (2, 3, 64, 96)]


@pytest.mark.parametrize("attribute", ["semantic_map", "instances"])
def test_what_was_not_asked_for_says_which_task_gives_it(attribute: str) -> None:
    result = predictor().predict(scene(), task="panoptic")
    with pytest.raises(UserError, match=f'task="{attribute.split("_", maxsplit=1)[0].rstrip("s")}'):
        getattr(result, attribute)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4), np.uint8), r"\(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        (torch.zeros(1, 3, 4, 4), "Tensor"),
        (None, "NoneType"),
        ("no/such/file.jpg", "does not exist"),
    ],
)
def test_what_is_no_image_is_refused_with_what_to_give(image: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        predictor().predict(image)


def test_a_truncated_pillow_image_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "half.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(UserError, match=r"half\.jpg.*broken"):
        predictor().predict(Image.open(path))


@pytest.mark.parametrize("task", ["panoptics", "", (), ("semantic", "depth")])
def test_an_unknown_task_is_refused_with_the_known_ones(task: str | tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="semantic, instance, panoptic"):
        predictor().predict(scene(), task=task)


def test_tasks_come_in_the_fixed_order_and_once() -> None:
    assert checked_tasks(("panoptic", "semantic", "panoptic")) == ("semantic", "panoptic")


def test_outputs_are_the_networks_own() -> None:
    images = torch.randn(2, 3, 64, 96)
    out = predictor().outputs(images, "semantic")
    assert isinstance(out, Outputs) and out.mask_logits.shape == (2, 4, 16, 24)
    both = predictor().outputs(images.numpy(), ("semantic", "panoptic"))
    assert set(both) == {"semantic", "panoptic"}
    assert torch.equal(both["semantic"].mask_logits, out.mask_logits)


@pytest.mark.parametrize("wrong", [torch.zeros(3, 64, 96), torch.zeros(1, 64, 96, 3), torch.zeros(1, 3, 64, 96).byte()])
def test_outputs_refuse_what_is_not_normalised_images(wrong: torch.Tensor) -> None:
    with pytest.raises(UserError, match="float32"):
        predictor().outputs(wrong)


@pytest.mark.parametrize("name", ["a.plan", "a.engine"])
def test_an_engine_without_its_description_says_what_is_missing(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=rf"no description beside it(.|\n)*{name}\.json"):
        oneformer.load(tmp_path / name)


def test_a_folder_is_no_weight_file_but_its_checkpoints_are_named(tmp_path: Path) -> None:
    (tmp_path / "best.pth").write_bytes(b"x")
    with pytest.raises(UserError, match=r"best\.pth"):
        oneformer.load(tmp_path)


def test_an_unknown_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="auto, torch"):
        oneformer.load(tmp_path / "a.pth", engine="tpu")


@pytest.mark.parametrize(
    ("photo", "size"),
    [((100, 200), (50, 100)), ((200, 100), (100, 50)), ((10, 10), (100, 100)), ((1000, 10), (100, 1))],
)
def test_fitting_keeps_the_shape_of_the_photo_inside_the_frame(photo: tuple[int, int], size: tuple[int, int]) -> None:
    limits = Sizes(1, 1, fit=(100, 100)).limits(*photo)
    assert (limits["min_size"], limits["max_size"]) == (min(size), max(size))
