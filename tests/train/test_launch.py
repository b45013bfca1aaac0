"""Training with several processes on one machine."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
import torch

from oneformer.data.formats import read_records
from oneformer.data.labels import read_labels
from oneformer.data.loader import eval_loader
from oneformer.errors import WorkError
from oneformer.model.oneformer import build_model
from oneformer.train.checkpoint import LATEST
from oneformer.train.launch import ranks
from oneformer.train.scoring import Scoring
from oneformer.train.world import World
from train.small import load, rows, small_data, small_spec, train_small

TWO = World(per_node=2)


def test_a_child_that_fails_on_the_way_is_told_at_once() -> None:
    before = dict(os.environ)
    start = time.monotonic()
    with (
        pytest.raises(WorkError, match="process 2 of 2 failed:\n    no luck today"),
        ranks([sys.executable, "-c", "raise SystemExit('no luck today')"], TWO, message="{}") as meet,
    ):
        meet()
    assert time.monotonic() - start < 30
    assert dict(os.environ) == before


def test_children_learn_their_rank_and_the_message(tmp_path: Path) -> None:
    told = tmp_path / "told"
    code = f"import os,sys; open({str(told)!r},'w').write(os.environ['RANK']+sys.stdin.read()); print('ready')"
    with ranks([sys.executable, "-c", code], TWO, message="!") as meet:
        meet()
        assert (os.environ["RANK"], os.environ["WORLD_SIZE"]) == ("0", "2")
    assert told.read_text() == "1!"


def test_children_end_with_their_parent() -> None:
    start = time.monotonic()
    with (
        pytest.raises(KeyboardInterrupt),
        ranks(
            [sys.executable, "-c", "print('ready', flush=True); import time; time.sleep(100)"], TWO, message=""
        ) as meet,
    ):
        meet()
        raise KeyboardInterrupt
    assert time.monotonic() - start < 30


def test_two_processes_share_the_images_and_score_like_one(tmp_path: Path) -> None:
    data = small_data(tmp_path)
    more = ("train.num_gpus=2", "train.num_epochs=1", "dataset.train.batch_size=1")
    done = train_small(data, tmp_path / "run", *more)
    assert done.fitted.steps == 3  # six images, one for each process and step
    assert not torch.distributed.is_initialized()
    table = rows(tmp_path / "run")
    assert float(table[0]["loss_contrastive"]) > 0  # the other process's image is the contrast
    assert (tmp_path / "run" / "train" / "status.json").read_text().count("STARTED") == 1

    spec = small_spec(data, tmp_path / "run")
    labels = read_labels(spec.dataset, splits=["val"])
    model = build_model(spec.model).eval()
    state = load(tmp_path / "run" / "train" / LATEST)["state_dict"]
    model.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
    scoring = Scoring(
        labels, tasks=("semantic", "instance", "panoptic"), test=spec.model.test, text=spec.model.text_encoder
    )
    scoring.start()
    for batch in eval_loader(spec.dataset, read_records(spec.dataset, "val", labels), split="val", model=spec.model):
        scoring.count(model, batch)
    alone = scoring.finish()
    assert {k: v for k, v in done.fitted.values.items() if k != "train_loss"} == alone
