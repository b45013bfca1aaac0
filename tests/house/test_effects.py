"""Rule 4, no dead field: each key of `effects.py` changes something that a user can see."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from house.effects import EFFECTS
from house.world import Look, World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on networks this small more threads only wait for each other
    yield World(tmp_path_factory.mktemp("house"))
    torch.set_num_threads(threads)


@pytest.mark.parametrize("key", EFFECTS)
def test_the_key_changes_something(key: str, world: World) -> None:
    row = EFFECTS[key]
    before = world.see(row.look, row.on)
    after = world.see(row.look, (*row.on, *row.also, f"{key}={row.value}"))
    assert before != after
    refused = isinstance(after, str) and after.startswith("refused: ")
    assert refused == bool(row.refused) and row.refused in str(after), after


@pytest.mark.parametrize("look", {row.look for row in EFFECTS.values()}, ids=lambda look: look.__name__)
def test_the_same_spec_looks_the_same_twice(look: Look, world: World) -> None:
    """Or a difference would say nothing."""
    on = max((row.on for row in EFFECTS.values() if row.look is look), key=len)
    assert world.see(look, on) == world.look(look, on)
