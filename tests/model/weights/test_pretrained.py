"""`train.pretrained_model`: whole models of any kind start a training, classes matched by name, the rest said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model.specs import tiny_spec
from model.weights.foreign import (
    CLASSES,
    labels,
    model_of,
    write_mask2former,
    write_ours,
    write_shi,
    write_tao,
)
from oneformer.actions.checkpoint import convert
from oneformer.data.labels import labels_of
from oneformer.errors import CheckpointError
from oneformer.model.oneformer import OneFormer, build_model
from oneformer.model.weights.pretrained import check_whole, load_pretrained

HEAD = "decoder.class_embed.weight"


def fresh(classes: int = 5, **values: Any) -> OneFormer:
    spec = tiny_spec()
    spec.sem_seg_head.num_classes = classes
    for key, value in values.items():
        setattr(spec.text_encoder, key, value)
    torch.manual_seed(7)
    return build_model(spec)


def folder(path: Path) -> None:
    write_ours(path.with_suffix(".pth"))
    convert(str(path.with_suffix(".pth")), str(path))


WRITERS: dict[str, Callable[[Path], object]] = {
    "ours.pth": write_ours, "shi.pth": write_shi, "shi.pkl": write_shi, "tao.pth": write_tao, "folder": folder,
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_starts_a_training(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    check_whole(tmp_path / name)
    model = fresh()
    report = load_pretrained(model, tmp_path / name, labels())
    assert (report.missing, report.mismatched) == ((), ())
    source = model_of().state_dict
    assert all(torch.equal(tensor, source[key]) for key, tensor in model.state_dict().items())
    assert ("task_padding=tao" in " ".join(report.notes)) == (name == "tao.pth")


def test_the_padding_that_fits_is_no_note(tmp_path: Path) -> None:
    write_tao(tmp_path / "tao.pth")
    assert load_pretrained(fresh(task_padding="tao"), tmp_path / "tao.pth", labels()).notes == ()


def test_a_mask2former_gives_all_but_the_task(tmp_path: Path) -> None:
    write_mask2former(tmp_path / "m2f.pth")
    model = fresh()
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = load_pretrained(model, tmp_path / "m2f.pth", labels())
    assert all(name.startswith(("task.", "decoder.initialiser.", "text.")) for name in report.missing)
    assert report.unexpected == ("sem_seg_head.predictor.query_feat.weight",)
    assert all(torch.equal(start[name], model.state_dict()[name]) for name in report.missing)


def test_another_class_list_of_the_same_length_is_matched_by_name_too(tmp_path: Path) -> None:
    """Equal counts must not pass for equal classes."""
    write_ours(tmp_path / "ours.pth")
    turned = [*CLASSES[1:], {"id": 1, "name": "bird"}]  # sky, dog, sea, car, bird
    model = fresh()
    report = load_pretrained(model, tmp_path / "ours.pth", labels_of(turned, where="test"))
    head, source = model.state_dict()[HEAD], model_of().state_dict[HEAD]
    assert torch.equal(head[[0, 1, 2, 3, 5]], source[[1, 2, 3, 4, 5]])
    assert not any(torch.equal(head[4], row) for row in source)
    assert "4 classes keep their rows of the class head; 1 start afresh: bird; 1 are gone: cat" in report.notes[0]


def test_a_head_without_names_and_of_another_length_starts_afresh_and_is_named(tmp_path: Path) -> None:
    write_shi(tmp_path / "shi.pth")
    model = fresh(classes=3)
    start = model.state_dict()[HEAD].clone()
    report = load_pretrained(model, tmp_path / "shi.pth", labels_of(CLASSES[:3], where="test"))
    assert [name for name, _, _ in report.mismatched] == [HEAD, "decoder.class_embed.bias"]
    assert torch.equal(model.state_dict()[HEAD], start)
    assert "another shape, left as initialised" in report.table()


def test_another_network_is_refused_with_both_named(tmp_path: Path) -> None:
    spec = tiny_spec()
    spec.backbone.swin.embed_dim = 32
    write_ours(tmp_path / "ours.pth", model_of(spec, text=False))
    with pytest.raises(
        CheckpointError, match=r"it holds a Swin transformer \(embed_dim 32.* here is a Swin transformer \(embed_dim 16"
    ):
        load_pretrained(fresh(), tmp_path / "ours.pth", labels())
    state = {n.removeprefix("backbone."): t for n, t in model_of().state_dict.items() if n.startswith("backbone.")}
    torch.save({"model": state}, tmp_path / "swin.pth")
    with pytest.raises(CheckpointError, match=r"embed_dim 16.*\(a backbone\)") as error:
        load_pretrained(fresh(), tmp_path / "swin.pth", labels())
    assert "train.pretrained_backbone" in error.value.hint


def test_a_missing_file_is_named_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such weight file"):
        check_whole(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="this is a folder, not a weight file"):
        check_whole(tmp_path)
