"""The text branch: distinct texts once, learned vectors last, any widths."""

from __future__ import annotations

import pytest
import torch

from model.specs import tiny_spec
from oneformer.errors import SpecError
from oneformer.model.text import TextBranch
from oneformer.spec.model import ModelSpec

TEXTS = torch.tensor([[49406, 320, 1125, 49407, 0, 0, 0, 0], [49406, 550, 49407, 0, 0, 0, 0, 0]])


def branch_of(spec: ModelSpec) -> TextBranch:
    torch.manual_seed(0)
    return TextBranch(spec).eval()


def test_texts_come_in_the_order_of_the_index_and_learned_vectors_last() -> None:
    branch = branch_of(tiny_spec())
    index = torch.tensor([[0, 1, 1, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 0]])
    vectors = branch(TEXTS, index)
    assert vectors.shape == (2, 12, 64)
    single = branch.encode(TEXTS)
    assert torch.equal(vectors[0, :2], single)
    assert torch.equal(vectors[1, 7], single[0])
    assert torch.equal(vectors[1, 8:], branch.prompt_ctx.weight)


def test_each_distinct_text_is_encoded_once() -> None:
    branch, seen = branch_of(tiny_spec()), []
    branch.layers[0].register_forward_hook(lambda module, args, out: seen.append(out.shape[0]))
    branch(TEXTS, torch.ones(3, 8, dtype=torch.long))
    assert seen == [2]


def test_what_follows_the_end_of_a_text_changes_nothing() -> None:
    branch = branch_of(tiny_spec())
    longer = torch.cat((TEXTS, torch.zeros(2, 20, dtype=torch.long)), 1)
    noise = longer.clone()
    noise[1, 3:] = 7
    torch.testing.assert_close(branch.encode(longer), branch.encode(TEXTS))
    torch.testing.assert_close(branch.encode(noise), branch.encode(TEXTS))


def test_only_tokens_up_to_the_longest_text_are_computed() -> None:
    branch, seen = branch_of(tiny_spec()), []
    branch.layers[0].register_forward_hook(lambda module, args, out: seen.append(out.shape[1]))
    branch.encode(torch.cat((TEXTS, torch.zeros(2, 60, dtype=torch.long)), 1))
    assert seen == [4]


@pytest.mark.parametrize(("width", "hidden"), [(64, 32), (32, 64), (128, 64)])
def test_text_width_and_query_width_may_differ(width: int, hidden: int) -> None:
    spec = tiny_spec()
    spec.text_encoder.width, spec.one_former.hidden_dim = width, hidden
    assert branch_of(spec)(TEXTS, torch.zeros(1, 8, dtype=torch.long)).shape == (1, 12, hidden)


def test_every_parameter_gets_a_gradient() -> None:
    branch = branch_of(tiny_spec())
    branch(TEXTS, torch.tensor([[0, 1] * 4])).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in branch.parameters())


def test_sizes_that_do_not_meet_are_refused_by_key() -> None:
    for change, key in (("heads", "width"), ("projector", "width"), ("n_ctx", "n_ctx")):
        spec = tiny_spec()
        if change == "heads":
            spec.text_encoder.width = 200
        elif change == "projector":
            spec.text_encoder.proj_num_layers, spec.text_encoder.width = 0, 128
        else:
            spec.text_encoder.n_ctx = 12
        with pytest.raises(SpecError) as error:
            TextBranch(spec)
        assert error.value.where == f"model.text_encoder.{key}"


def test_it_starts_as_clip_does() -> None:
    branch = branch_of(tiny_spec()).requires_grad_(False)
    assert branch.token_embedding.weight.std() == pytest.approx(0.02, rel=0.05)
    assert branch.positional_embedding.std() == pytest.approx(0.01, rel=0.1)
    layer = branch.layers[0]
    assert layer.attn.qkv.weight.std() == pytest.approx(64**-0.5, rel=0.1)
    assert layer.fc2.weight.std() == pytest.approx(64**-0.5 / 2, rel=0.1)
