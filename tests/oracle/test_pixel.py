"""The same weights in Hugging Face's MaskFormer pyramid and in our `BasePixelDecoder` give the same maps."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch

from oneformer.model.pixel import build_pixel_decoder
from oneformer.spec.model import ModelSpec

maskformer = pytest.importorskip("transformers.models.maskformer.modeling_maskformer")
CHANNELS = {"res2": 24, "res3": 48, "res4": 96, "res5": 192}
STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
NAMES = (  # ours -> theirs
    (r"smooth\.0\.(\d)\.", r"fpn.stem.\1."),
    (r"lateral\.(\d)\.(\d)\.", r"fpn.layers.\1.proj.\2."),
    (r"smooth\.(\d)\.(\d)\.", lambda m: f"fpn.layers.{int(m[1]) - 1}.block.{m[2]}."),
    (r"mask_features\.", "mask_projection."),
)


def their_name(name: str) -> str:
    for ours, theirs in NAMES:
        found, count = re.subn(f"^{ours}", theirs, name)
        if count:
            return found
    raise KeyError(name)


@pytest.mark.parametrize("size", [(128, 192), (100, 75)])
def test_the_pyramid_equals_maskformers(size: tuple[int, int]) -> None:
    spec = ModelSpec()
    spec.sem_seg_head.pixel_decoder_name = "BasePixelDecoder"
    spec.sem_seg_head.convs_dim, spec.sem_seg_head.mask_dim = 64, 40
    ours = build_pixel_decoder(spec, SimpleNamespace(channels=CHANNELS, strides=STRIDES))  # type: ignore[arg-type]
    lateral = [CHANNELS[n] for n in ("res2", "res3", "res4")]
    theirs = maskformer.MaskFormerPixelDecoder(CHANNELS["res5"], lateral, feature_size=64, mask_feature_size=40)
    rng = torch.Generator().manual_seed(0)
    for p in ours.parameters():
        p.data = torch.randn(p.shape, generator=rng) * (0.1 if p.ndim > 1 else 1.0)
    theirs.load_state_dict({their_name(n): p for n, p in ours.state_dict().items()})
    maps = {
        n: torch.randn(2, c, -(-size[0] // STRIDES[n]), -(-size[1] // STRIDES[n]), generator=rng)
        for n, c in CHANNELS.items()
    }
    with torch.no_grad():
        found = ours(maps)
        wanted = theirs(list(maps.values()), output_hidden_states=True)
    torch.testing.assert_close(found.mask_features, wanted.last_hidden_state, rtol=1e-4, atol=1e-4)
    for a, b in zip(found.memory[1:], wanted.hidden_states, strict=False):  # theirs keeps the stem's map to itself
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
