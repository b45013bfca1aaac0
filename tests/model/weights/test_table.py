"""A table of names carries tensors both ways, cuts and joins them, and leaves nothing unsaid."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.specs import tiny_spec
from oneformer.errors import CheckpointError
from oneformer.model.oneformer import build_model
from oneformer.model.weights import hf, shi
from oneformer.model.weights.table import Table
from oneformer.spec.model import ModelSpec

TABLE = Table(
    modules={
        "a.#.qkv": ("their.#.q", "their.#.k", "their.#.v"),
        "a.0.out": "their.first",
        "a.#.out": "their.#.out",
        "rest.*": "elsewhere.*",
    },
    tensors={"table": "deep.table"},
)


def test_rows_are_read_in_both_directions() -> None:
    state = {
        "a.3.qkv.weight": torch.arange(12.0).reshape(6, 2),
        "a.0.out.bias": torch.ones(2),
        "a.1.out.bias": torch.zeros(2),
        "rest.x.y.running_var": torch.ones(1),
        "table": torch.ones(3),
    }
    theirs, left = TABLE.to_theirs({**state, "stranger": torch.ones(1)})
    assert list(left) == ["stranger"]
    assert sorted(theirs) == sorted(
        [f"their.3.{x}.weight" for x in "qkv"]
        + ["their.first.bias", "their.1.out.bias", "elsewhere.x.y.running_var", "deep.table"]
    )
    assert torch.equal(theirs["their.3.k.weight"], state["a.3.qkv.weight"][2:4])
    back, left = TABLE.to_ours(theirs)
    assert not left
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_a_part_alone_is_no_matrix() -> None:
    parts = {f"their.0.{x}.weight": torch.ones(2, 2) for x in "qk"}
    with pytest.raises(CheckpointError, match=r"their\.0\.v\.weight is missing beside their\.0\.q\.weight"):
        TABLE.to_ours(parts)
    with pytest.raises(CheckpointError, match="differ in shape or type"):
        TABLE.to_ours({**parts, "their.0.v.weight": torch.ones(3, 2)})


def some_values(spec: ModelSpec) -> dict[str, Tensor]:
    """A tensor for each parameter, as long as it along the first axis: that is where tables cut."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in build_model(spec).state_dict().items()}
    return {name: torch.randn(shape[:1]) for name, shape in shapes.items()}


BACKBONES = ("D2SwinTransformer", "resnet50", "convnext", "D2DiNAT")


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("table", [hf.TABLE, shi.TABLE], ids=["hf", "shi"])
def test_every_parameter_of_ours_has_a_name_of_theirs_and_comes_back(backbone: str, table: Table) -> None:
    state = some_values(tiny_spec(backbone))
    theirs, left = table.to_theirs(state)
    assert not left
    assert len(set(theirs)) == len(theirs) >= len(state)
    back, left = table.to_ours(theirs)
    assert not left
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_names_of_transformers_in_memory_are_read_like_saved_ones(backbone: str) -> None:
    state = some_values(tiny_spec(backbone))
    in_memory, saved = hf.to_hf(state), hf.TABLE.to_theirs(state).state
    renamed = {name for name in in_memory if name not in saved}
    assert bool(renamed) == (backbone == "D2SwinTransformer")
    assert hf.read_hf(in_memory).state.keys() == hf.read_hf(saved).state.keys() == state.keys()


def test_what_mask2former_shares_is_read_by_its_own_table() -> None:
    state = {n: t for n, t in some_values(tiny_spec()).items() if not n.startswith("text.")}
    theirs, left = shi.MASK2FORMER.to_theirs(state)
    assert {name.split(".")[0] for name in left} == {"task", "decoder"}
    assert all(name.startswith(("task.", "decoder.initialiser.")) for name in left)
    assert shi.TABLE.to_theirs(state).state.keys() > theirs.keys()
