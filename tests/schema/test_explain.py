"""`oneformer explain`: what is told of a key, a section, a short name, and of a key that does not exist."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import oneformer
from oneformer.errors import SpecError
from oneformer.schema import readers
from oneformer.schema.explain import as_text, explain
from oneformer.spec.tree import leaves, sections
from oneformer.spec.unread import reason

SRC = Path(oneformer.__file__).parent


def test_a_key_tells_meaning_range_default_readers_and_tao() -> None:
    text = as_text(explain("train.optim.lr"))
    for part in (
        "learning rate", "above 0 and at most 1", "0.0001", "short    learning_rate=",
        "read by  train (train/optim.py", "TAO      default 1.0e-05: the published rate",
    ):  # fmt: skip
        assert part in text


def test_what_tao_does_otherwise_is_told() -> None:
    assert "no schedule is ever made" in as_text(explain("train.optim.lr_scheduler"))
    assert "at most 1.0" in as_text(explain("train.optim.momentum"))


@pytest.mark.parametrize("name", ["batch_size", "learning_rate", "trt_engine"])
def test_a_short_name_is_explained_as_its_key(name: str) -> None:
    told = explain(name)
    assert told["key"] in leaves() and name in told["short_names"]


def test_a_section_lists_its_keys() -> None:
    assert "train.optim.lr" in explain("train.optim")["keys"]


def test_a_key_without_effect_says_so() -> None:
    assert "only kept in experiment.yaml" in as_text(explain("model_name"))


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("optim.lr", "train.optim.lr"), ("train.num_epoch", "train.num_epochs"), ("swin.depth", "model.backbone.swin.depths"),
     ("trian.optim.lr", "train.optim.lr")],
)  # fmt: skip
def test_a_wrong_key_names_near_ones(wrong: str, near: str) -> None:
    with pytest.raises(SpecError) as caught:
        explain(wrong)
    assert near in caught.value.hint


def test_everything_can_be_explained() -> None:
    for key in [*leaves(), *sections()]:
        assert as_text(explain(key)).startswith(key)


def test_the_files_that_are_said_to_read_a_key_say_its_name() -> None:
    """Quicker than recording again (`tests/house/test_reads.py`), and enough to see that a file has moved on."""
    text = {}
    for key in leaves():
        for name in readers.files(key):
            if name not in text:
                tree = ast.parse((SRC / name).read_text(encoding="utf-8"))
                text[name] = ast.unparse(tree)
            word = key.rpartition(".")[2]
            assert word in text[name] or "getattr(" in text[name] or "asdict" in text[name], (key, name)


def test_no_key_without_effect_has_a_reader() -> None:
    """That every other has one is proved while it is recorded (`tests/house/test_reads.py`)."""
    read = {key for key in leaves() if readers.commands(key)}
    assert len(read) > 250
    assert [key for key in read if reason(key)] == []
