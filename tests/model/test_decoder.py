"""The masked-attention decoder: where queries may look, what is predicted when, and its switches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from model.specs import tiny_spec
from oneformer.model.decoder import Decoder, Level, mask_logits
from oneformer.model.pixel import Features
from oneformer.spec.model import ModelSpec


def features_of(spec: ModelSpec, batch: int = 2) -> Features:
    dim = spec.sem_seg_head.convs_dim
    memory = tuple(torch.randn(batch, dim, *size) for size in ((2, 3), (4, 6), (8, 12)))
    return Features(torch.randn(batch, spec.sem_seg_head.mask_dim, 16, 24), memory)


def decoder_of(spec: ModelSpec) -> Decoder:
    torch.manual_seed(0)
    return Decoder(spec).eval()


def test_there_is_a_prediction_before_and_after_every_layer() -> None:
    spec = tiny_spec()
    decoder, features = decoder_of(spec), features_of(spec)
    decoded = decoder(features, torch.randn(2, 64), auxiliary=True)
    assert decoded.class_logits.shape == (2, 12, 6)
    assert decoded.mask_logits.shape == (2, 12, 16, 24)
    assert len(decoded.auxiliary) == spec.one_former.dec_layers - 1
    first = decoder.predict(decoded.queries)
    assert torch.equal(first.class_logits, decoded.auxiliary[0][0])
    assert torch.equal(mask_logits(first.mask_embed, features.mask_features), decoded.auxiliary[0][1])
    assert decoder(features, torch.randn(2, 64), auxiliary=False).auxiliary == ()


def places(masks: Tensor) -> Tensor:
    """What `open_places` makes of mask logits (Q, N), through mask features that reproduce them."""
    decoder = decoder_of(tiny_spec())
    decoder.norm, decoder.mask_embed = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    count = masks.shape[0]
    nothing = torch.zeros(1, 1, 1)
    return decoder.open_places(torch.eye(count)[None], Level(nothing, nothing, masks[None]))[0, 0]


def test_a_query_looks_where_its_mask_is_not_negative() -> None:
    masks = torch.tensor([[1.0, -1.0, 0.0], [-2.0, 3.0, -1e-6]])
    assert places(masks).tolist() == [[True, False, True], [False, True, False]]


def test_a_query_without_any_place_looks_everywhere() -> None:
    masks = torch.tensor([[-1.0, -1.0, -1.0], [-1.0, -1.0, 1.0]])
    assert places(masks).tolist() == [[True, True, True], [False, False, True]]


def test_masks_at_a_level_equal_the_resized_masks() -> None:
    """Resizing the mask features once equals resizing each layer's masks, as the published network does."""
    spec = tiny_spec()
    decoder, features = decoder_of(spec), features_of(spec)
    x = torch.randn(2, 12, 64)
    full = mask_logits(decoder.predict(x).mask_embed, features.mask_features)
    for i, memory in enumerate(features.memory):
        small = decoder.mask_embed(decoder.norm(x)) @ decoder.level(i, features).mask_features
        want = nn.functional.interpolate(full, size=memory.shape[2:], mode="bilinear", align_corners=False)
        torch.testing.assert_close(small, want.flatten(2), atol=1e-5, rtol=1e-4)


def test_where_a_query_looks_carries_no_gradient() -> None:
    spec = tiny_spec()
    decoder = decoder_of(spec)
    level = decoder.level(0, features_of(spec))
    assert not decoder.open_places(torch.randn(2, 12, 64, requires_grad=True), level).requires_grad


@pytest.mark.parametrize("change", ["enforce_input_proj", "hidden_dim", "mask_dim"])
def test_widths_may_differ(change: str) -> None:
    spec = tiny_spec()
    if change == "enforce_input_proj":
        spec.one_former.enforce_input_proj = True
    elif change == "hidden_dim":
        spec.one_former.hidden_dim = 32
    else:
        spec.sem_seg_head.mask_dim = 40
    decoder = decoder_of(spec)
    projected = sum(isinstance(m, nn.Conv2d) for m in decoder.input_proj)
    assert projected == (0 if change == "mask_dim" else 3)
    decoded = decoder(features_of(spec), torch.randn(2, spec.one_former.hidden_dim), auxiliary=True)
    assert decoded.mask_logits.shape == (2, 12, 16, 24)


def test_the_task_changes_every_query() -> None:
    spec = tiny_spec()
    decoder, features = decoder_of(spec), features_of(spec, batch=1)
    a, b = (decoder(features, torch.randn(1, 64), auxiliary=False).queries for _ in range(2))
    assert (a - b).abs().amax(-1).min() > 1e-4


def test_the_decoder_itself_has_no_dropout_the_initialiser_has() -> None:
    spec = tiny_spec()
    spec.one_former.dropout = 0.3
    decoder = decoder_of(spec)
    assert {m.p for m in decoder.layers.modules() if isinstance(m, nn.Dropout)} == {0.0}
    assert {m.p for m in decoder.initialiser.modules() if isinstance(m, nn.Dropout)} == {0.3}
