"""The pyramid pixel decoders against a plain NumPy computation, and what their own settings do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from model import pixel_reference as plain
from model.specs import tiny_spec
from oneformer.model.oneformer import build_model
from oneformer.model.pixel import build_pixel_decoder
from oneformer.model.pixel.fpn import FpnPixelDecoder
from oneformer.spec.model import ModelSpec

BASE, ATTENTION = "BasePixelDecoder", "TransformerEncoderPixelDecoder"
CHANNELS = {"res2": 3, "res3": 4, "res4": 6, "res5": 5}
STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}


def spec_of(name: str, **changes: Any) -> ModelSpec:
    spec = ModelSpec()
    head, former = spec.sem_seg_head, spec.one_former
    head.pixel_decoder_name = name  # type: ignore[assignment]
    head.convs_dim, head.mask_dim, head.dim_feedforward, head.transformer_enc_layers = 16, 7, 12, 2
    former.hidden_dim, former.nheads, former.dropout = 16, 2, 0.0
    for key, value in changes.items():
        setattr(former if hasattr(former, key) and key != "dim_feedforward" else head, key, value)
    return spec


def random_decoder(spec: ModelSpec) -> FpnPixelDecoder:
    """With every parameter drawn anew, so that nothing hides behind a zero or a one."""
    decoder = build_pixel_decoder(spec, SimpleNamespace(channels=CHANNELS, strides=STRIDES))  # type: ignore[arg-type]
    assert isinstance(decoder, FpnPixelDecoder)
    rng = torch.Generator().manual_seed(0)
    for p in decoder.parameters():
        p.data = torch.randn(p.shape, generator=rng) * (0.4 if p.ndim > 1 else 1.0)
    return decoder.double().eval()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (BASE, {}),
        (BASE, {"norm": "none"}),
        (BASE, {"common_stride": 8}),
        (ATTENTION, {}),
        (ATTENTION, {"pre_norm": True}),
        (ATTENTION, {"norm": "none", "transformer_enc_layers": 1}),
    ],
)
@pytest.mark.parametrize("sizes", [((2, 3), (4, 6), (8, 12), (16, 24)), ((2, 1), (3, 2), (6, 3), (11, 5))])
def test_it_equals_a_plain_computation(name: str, changes: dict[str, Any], sizes: tuple[tuple[int, int], ...]) -> None:
    spec = spec_of(name, **changes)
    decoder = random_decoder(spec)
    rng = np.random.default_rng(1)
    names = ("res5", "res4", "res3", "res2")
    maps = {n: rng.standard_normal((CHANNELS[n], *size)) for n, size in zip(names, sizes, strict=True)}
    state = {n: p.detach().numpy() for n, p in decoder.state_dict().items()}
    refined = [maps[n] for n in names[: 3 if spec.sem_seg_head.common_stride == 8 else 4]]
    if name == ATTENTION:
        layers = spec.sem_seg_head.transformer_enc_layers
        refined[0] = plain.encode(refined[0], state, layers=layers, heads=2, pre_norm=spec.one_former.pre_norm)
    mask_features, levels = plain.pyramid(refined, state, groups=16)
    with torch.no_grad():
        found = decoder({n: torch.from_numpy(x)[None] for n, x in maps.items()})
    # 1e-5: the position encodings are float32
    np.testing.assert_allclose(found.mask_features[0], mask_features, rtol=1e-5, atol=1e-5)
    for memory, level in zip(found.memory, levels[:3], strict=True):
        np.testing.assert_allclose(memory[0], level, rtol=1e-5, atol=1e-5)


def test_settings_of_the_attention_act() -> None:
    base = random_decoder(spec_of(ATTENTION))
    deeper = random_decoder(spec_of(ATTENTION, transformer_enc_layers=3))
    wider = random_decoder(spec_of(ATTENTION, dim_feedforward=20))
    assert base.encoder is not None and deeper.encoder is not None and wider.encoder is not None
    assert (len(base.encoder.layers), len(deeper.encoder.layers)) == (2, 3)
    assert wider.encoder.layers[0].ffn.linear1.out_features == 20  # type: ignore[union-attr]
    assert random_decoder(spec_of(BASE)).encoder is None


def test_dropout_acts_in_training_only() -> None:
    decoder = random_decoder(spec_of(ATTENTION, dropout=0.5))
    maps = {n: torch.randn(1, c, 128 // STRIDES[n], 128 // STRIDES[n]).double() for n, c in CHANNELS.items()}
    assert torch.equal(decoder(maps).mask_features, decoder(maps).mask_features)
    decoder.train()
    assert not torch.equal(decoder(maps).mask_features, decoder(maps).mask_features)


def test_without_attention_any_width_will_do() -> None:
    assert random_decoder(spec_of(BASE, convs_dim=18)).mask_features.in_channels == 18


@pytest.mark.parametrize("name", [BASE, ATTENTION])
def test_the_whole_network_runs_and_learns_with_it(name: str) -> None:
    spec = tiny_spec()
    spec.sem_seg_head.pixel_decoder_name, spec.sem_seg_head.convs_dim = name, 32  # type: ignore[assignment]
    model = build_model(spec, text_branch=False).train()
    decoded = model.decode(model.features(torch.randn(2, 3, 50, 70)), torch.rand(2, 77), auxiliary=True)
    assert decoded.mask_logits.shape == (2, 12, 13, 18)
    pairs = [(decoded.class_logits, decoded.mask_logits), *decoded.auxiliary]
    sum(x.square().mean() for pair in pairs for x in pair).backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
