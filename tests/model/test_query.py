"""Query initialisation: the shortened products, the encoder switch, and the precision of the task token."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import linear

from model.specs import TASK_IDS, tiny_spec
from oneformer.model.position import sine_position
from oneformer.model.query import QueryInitialiser, TaskEmbedding, project_position


def test_projecting_axis_by_axis_equals_projecting_the_encoding() -> None:
    weight, bias = torch.randn(24, 16), torch.randn(24)
    want = linear(sine_position(5, 7, 16, device=weight.device), weight, bias)
    torch.testing.assert_close(project_position(weight, bias, (5, 7), turns=1.0)[0], want)


def test_keys_and_values_equal_the_plain_products() -> None:
    """Key: encoding plus projected mask features. Value: the encoding alone (oneformer-model.md 1.6)."""
    torch.manual_seed(0)
    initialiser = QueryInitialiser(tiny_spec())
    attention = initialiser.layers[0].cross_attn
    torch.nn.init.normal_(attention.qkv.bias)
    torch.nn.init.normal_(initialiser.input_proj.bias)
    mask_features = torch.randn(2, 64, 3, 5)
    pixels = mask_features.flatten(2).transpose(1, 2)
    k, v = initialiser.keys_and_values(attention, pixels, (3, 5), None)
    position = sine_position(3, 5, 64, device=pixels.device).expand(2, -1, -1)
    _, key, value = attention.weights()
    image = initialiser.input_proj(mask_features).flatten(2).transpose(1, 2)
    torch.testing.assert_close(k, linear(position + image, *key), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(v, linear(position, *value), atol=1e-5, rtol=1e-5)


def test_the_task_token_is_the_last_query() -> None:
    initialiser, task = QueryInitialiser(tiny_spec()), torch.randn(2, 64)
    queries = initialiser(task, initialiser.read(torch.randn(2, 64, 4, 4)), torch.randn(12, 64))
    assert queries.shape == (2, 12, 64)
    assert torch.equal(queries[:, -1], task)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_encoder_layers_act(pre_norm: bool) -> None:
    spec = tiny_spec()
    spec.one_former.enc_layers, spec.one_former.pre_norm = 2, pre_norm
    torch.manual_seed(0)
    initialiser = QueryInitialiser(spec).eval()
    task, features, embed = torch.randn(1, 64), torch.randn(1, 64, 4, 4), torch.randn(12, 64)
    with_encoder = initialiser(task, initialiser.read(features), embed)
    with_encoder.sum().backward()
    assert all(p.grad is not None for p in initialiser.encoder.parameters())
    initialiser.encoder = torch.nn.ModuleList()
    assert not torch.allclose(initialiser(task, initialiser.read(features), embed), with_encoder, atol=1e-3)


def test_token_ids_enter_in_float32_even_under_autocast() -> None:
    """bfloat16 would turn 24755 into 24704 and 49406 into 49408 (oneformer-model.md 1.2)."""
    embedding = TaskEmbedding(tiny_spec())
    tokens = torch.zeros(1, 77)
    tokens[0, : len(TASK_IDS)] = torch.tensor(TASK_IDS)
    exact = embedding(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(embedding(tokens), exact)
