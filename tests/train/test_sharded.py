"""A network that is split over two processes has the gradients, norms and averages of a whole one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.specs import NAMES
from train.several import as_ranks, ended

RUN = Path(__file__).with_name("split_run.py")


def differences(*names: str, count: int = 2) -> dict[str, dict[str, float]]:
    found = ended(as_ranks(RUN, list(names), count=count))
    assert [status for status, *_ in found] == [0] * count, found[0][2]
    told: dict[str, dict[str, float]] = json.loads(found[0][1])
    assert list(told) == list(names)
    return told


def test_a_split_network_computes_what_a_whole_one_does() -> None:
    assert max(differences("D2SwinTransformer")["D2SwinTransformer"].values()) < 1e-10


@pytest.mark.slow
def test_with_every_backbone_and_with_activations_computed_again() -> None:
    for name, found in differences(*NAMES, "D2SwinTransformer+", "vit+").items():
        assert max(found.values()) < 1e-9, f"{name}: {found}"


@pytest.mark.slow
def test_over_three_processes_some_of_which_have_nothing_of_a_small_tensor() -> None:
    assert max(differences("D2SwinTransformer", count=3)["D2SwinTransformer"].values()) < 1e-10
