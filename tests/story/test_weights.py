"""The story of weights that come from elsewhere: convert, evaluate, predict, train on, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from oneformer.cli import main
from oneformer.model.weights.checkpoint import read_checkpoint
from oneformer.train.checkpoint import BEST
from story.tiny_model import TINY, write_tiny_checkpoint
from tiny import TinyDataset, write_tiny_dataset

# What the tiny network has beyond the published one.
PUBLISHED = (
    "model.sem_seg_head.mask_position=false",
    "model.one_former.position_turns=1",
    "model.text_encoder.n_ctx=4",
)
FAST = ("dataset.train.num_workers=0", "dataset.val.num_workers=0", "dataset.test.num_workers=0")


def oneformer(*words: str | Path) -> None:
    assert main([str(word) for word in words]) == 0, words


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    return write_tiny_dataset(tmp_path_factory.mktemp("data"), images=2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("train") / BEST, *PUBLISHED)


def test_a_folder_scores_and_predicts_like_the_checkpoint_it_was_made_of(
    tmp_path: Path, data: TinyDataset, checkpoint: Path
) -> None:
    oneformer("checkpoint", "convert", checkpoint, tmp_path / "folder")
    found = {}
    for name, weights in (("file", checkpoint), ("folder", tmp_path / "folder")):
        words = [*TINY, *PUBLISHED, *data.overrides("test"), *FAST, f"results_dir={tmp_path / name}"]
        oneformer("evaluate", *words, f"evaluate.checkpoint={weights}", "evaluate.accelerator=cpu")
        oneformer(
            "inference", *words, f"inference.checkpoint={weights}", f"inference.images_dir={data.images}",
            "inference.mode=semantic", "inference.accelerator=cpu",
        )  # fmt: skip
        folder = tmp_path / name
        maps = sorted((folder / "inference" / "semantic").iterdir())
        found[name] = (json.loads((folder / "evaluate" / "metrics.json").read_text()), [p.read_bytes() for p in maps])
    assert len(found["file"][1]) == 2
    assert found["file"] == found["folder"]


def test_a_training_starts_from_a_file_of_shi_labs(
    tmp_path: Path, data: TinyDataset, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    oneformer("checkpoint", "convert", checkpoint, tmp_path / "shi.pkl")
    oneformer(
        "train", *TINY, *PUBLISHED, *data.overrides("train"), *FAST, f"results_dir={tmp_path}",
        f"train.pretrained_model={tmp_path / 'shi.pkl'}", "train.optim.lr=1e-30", "train.optim.weight_decay=0",
        "train.num_epochs=1", "train.iters_per_epoch=1", "train.accelerator=cpu", "train.precision=fp32",
        "dataset.augmentation.train_crop_size=[64,64]", "model.one_former.train_num_points=64",
    )  # fmt: skip
    before = read_checkpoint(checkpoint).state_dict
    after = read_checkpoint(tmp_path / "train" / "oneformer_model_latest.pth").state_dict
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    assert f"shi.pkl: {len(before)} tensors loaded" in capsys.readouterr().err
