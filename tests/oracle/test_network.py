"""The same weights in Hugging Face's OneFormer and in ours give the same numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from oneformer.model.oneformer import OneFormer, build_model
from oneformer.model.weights.hf import MODULES, from_hf, to_hf
from oneformer.spec.model import ModelSpec
from oracle.hf import TASK_IDS, hf_config, picture, randomise, same_side_of_zero, task_tokens, twins

transformers = pytest.importorskip("transformers")
TOLERANCE = 1e-4  # of the largest value of a map; the claim of the project


def small_spec() -> ModelSpec:
    spec = ModelSpec()
    swin, head, former, text = spec.backbone.swin, spec.sem_seg_head, spec.one_former, spec.text_encoder
    swin.embed_dim, swin.depths, swin.num_heads, swin.window_size = 16, [1, 2, 2, 1], [1, 2, 4, 8], 4
    head.num_classes, head.convs_dim, head.mask_dim, head.dim_feedforward = 7, 64, 64, 96
    head.transformer_enc_layers = 2
    former.hidden_dim, former.nheads, former.dim_feedforward = 64, 4, 128
    former.num_object_queries, former.dec_layers, former.class_dec_layers = 20, 5, 2
    text.width, text.num_layers, text.vocab_size, text.n_ctx = 64, 2, 49408, 4
    return spec


def swin_spec(size: str) -> ModelSpec:
    from oneformer.model.backbones.swin import SIZES

    spec = ModelSpec()
    dim, depths, heads, window = SIZES[size]
    swin = spec.backbone.swin
    swin.embed_dim, swin.depths, swin.num_heads, swin.window_size = dim, list(depths), list(heads), window
    spec.sem_seg_head.num_classes = 150
    return spec


def error(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def compare(ours: OneFormer, theirs: Any, images: Tensor, task: str) -> dict[str, float]:
    """Largest difference of each output, as a fraction of its largest value."""
    tokens = task_tokens(task, batch=len(images))
    with torch.inference_mode(), same_side_of_zero(ours, theirs):
        features = ours.features(images)
        got = ours.decode(features, tokens, auxiliary=True)
        want = theirs(images, tokens, output_hidden_states=True, output_auxiliary_logits=True)
    errors = {
        "class_logits": error(got.class_logits, want.class_queries_logits),
        "mask_logits": error(got.mask_logits, want.masks_queries_logits),
        "queries": error(got.queries, want.transformer_decoder_contrastive_queries),
    }
    for i, (a, b) in enumerate(
        zip([features.mask_features, *features.memory], want.pixel_decoder_hidden_states, strict=True)
    ):
        errors[f"pixel_decoder_{i}"] = error(a, b)
    for i, (a, b) in enumerate(zip(got.auxiliary, want.transformer_decoder_auxiliary_predictions, strict=True)):
        errors[f"class_logits_{i}"] = error(a[0], b["class_queries_logits"])
        errors[f"mask_logits_{i}"] = error(a[1], b["masks_queries_logits"])
    return errors


@pytest.fixture(scope="module")
def small() -> tuple[OneFormer, Any]:
    return twins(small_spec())


@pytest.mark.parametrize("task", TASK_IDS)
@pytest.mark.parametrize("size", [(128, 160), (64, 96)])
def test_a_small_network_gives_the_same_numbers(small: tuple[OneFormer, Any], size: tuple[int, int], task: str) -> None:
    images = picture(*size)
    errors = compare(*small, images, task)
    assert max(errors.values()) < TOLERANCE, errors


def test_a_batch_of_two_gives_the_same_numbers(small: tuple[OneFormer, Any]) -> None:
    images = picture(96, 64, batch=2)
    errors = compare(*small, images, "panoptic")
    assert max(errors.values()) < TOLERANCE, errors


def test_the_comparison_sees_masked_attention_and_the_task(small: tuple[OneFormer, Any]) -> None:
    """What the comparison rests on: with these weights both parts change the outputs far beyond the tolerance."""
    ours, _ = small
    with torch.inference_mode():
        features = ours.features(picture(128, 160))
        panoptic = ours.decode(features, task_tokens("panoptic"), auxiliary=True)
        semantic = ours.decode(features, task_tokens("semantic")).mask_logits
    assert error(semantic, panoptic.mask_logits) > 100 * TOLERANCE
    for _, masks in panoptic.auxiliary:
        of_both_signs = (masks > 0).flatten(2).any(2) & (masks < 0).flatten(2).any(2)
        assert of_both_signs.float().mean() > 0.7


@pytest.mark.parametrize("change", ["pre_norm", "use_task_norm", "dims", "stride"])
def test_variants_of_the_network_give_the_same_numbers(change: str) -> None:
    spec = small_spec()
    if change == "pre_norm":
        spec.one_former.pre_norm = True
    elif change == "use_task_norm":
        spec.one_former.use_task_norm = False
    elif change == "dims":
        spec.sem_seg_head.convs_dim = spec.sem_seg_head.mask_dim = 96
        spec.one_former.hidden_dim, spec.text_encoder.width = 96, 96
    else:
        spec.sem_seg_head.common_stride = 8
    errors = compare(*twins(spec), picture(64, 96), "instance")
    assert max(errors.values()) < TOLERANCE, errors


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["Swin-T", "Swin-L"])
@pytest.mark.parametrize("size", [(512, 640), (256, 384)])
def test_a_full_size_network_gives_the_same_numbers(backbone: str, size: tuple[int, int]) -> None:
    ours, theirs = twins(swin_spec(backbone))
    images = picture(*size)
    for task in TASK_IDS:
        errors = compare(ours, theirs, images, task)
        worst = max(errors, key=lambda name: errors[name])
        print(f"{backbone} {size} {task}: worst {worst} {errors[worst]:.2e}")
        assert errors[worst] < TOLERANCE, errors


def texts() -> Tensor:
    """ "a photo with a wall", "a semantic photo", "an instance photo" """
    rows = [
        [49406, 320, 1125, 593, 320, 2569, 49407],
        [49406, 320, 29119, 1550, 1125, 49407],
        [49406, 550, 34572, 1125, 49407],
    ]
    tokens = torch.zeros(3, 77, dtype=torch.long)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    return tokens


def text_vectors(*, causal: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    """(ours, theirs) for the same texts; `causal` gives theirs the mask that it builds and never uses."""
    ours, theirs = twins(small_spec(), is_training=True)
    index = torch.tensor([[0, 1, 2, 0] * 4, [2, 2, 1, 0] * 4])
    if causal:
        for layer in theirs.model.text_mapper.text_encoder.transformer.layers:
            attention, mask = layer.self_attn, layer.attn_mask
            forward = attention.forward
            monkeypatch.setattr(
                attention, "forward", lambda *args, f=forward, m=mask, **kwargs: f(*args, attn_mask=m, **kwargs)
            )
    with torch.no_grad():
        return ours.encode_texts(texts(), index), theirs.model.text_mapper(texts()[index])


def test_the_text_branch_agrees_once_theirs_is_causal(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = text_vectors(causal=True, monkeypatch=monkeypatch)
    assert error(ours, theirs) < TOLERANCE


def test_known_difference_their_text_encoder_sees_the_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneformer-model.md 1.12, row 1: they build the causal mask and never apply it."""
    ours, theirs = text_vectors(causal=False, monkeypatch=monkeypatch)
    assert error(ours, theirs) > 0.01


def test_known_difference_their_prompt_vectors_are_as_wide_as_the_text() -> None:
    """Theirs join the projected texts without projection, so text width and query width must be equal; ours may differ."""
    spec = small_spec()
    spec.text_encoder.width = 128
    theirs = transformers.OneFormerForUniversalSegmentation(hf_config(spec, is_training=True))
    tokens = texts()[torch.tensor([[0, 1, 2, 0] * 4])]
    with pytest.raises(RuntimeError, match="size"):
        theirs.model.text_mapper(tokens)
    ours = build_model(spec)
    assert ours.encode_texts(texts(), torch.tensor([[0, 1, 2, 0] * 4])).shape == (1, 20, 64)


def test_known_difference_they_write_an_panoptic_photo() -> None:
    """oneformer-model.md 1.12, row 2: their filler text is "an panoptic photo", the published one "a panoptic photo"."""
    source = Path(transformers.__file__).parent / "models" / "oneformer" / "image_processing_oneformer.py"
    assert '"an panoptic photo"' in source.read_text(encoding="utf-8")


def test_names_map_to_theirs_and_back() -> None:
    ours = build_model(small_spec())
    randomise(ours)
    state = ours.state_dict()
    back = from_hf(to_hf(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_every_row_of_the_name_table_is_used() -> None:
    names = to_hf(build_model(small_spec()).state_dict())
    rows = [row for value in MODULES.values() for row in ((value,) if isinstance(value, str) else value)]
    unused = [
        r
        for r in rows
        if not any(re.fullmatch(re.escape(r).replace(r"\#", r"\d+") + r"\.(weight|bias)", n) for n in names)
    ]
    assert not unused


def test_a_parameter_without_a_counterpart_is_refused_by_name() -> None:
    spec = small_spec()
    spec.sem_seg_head.mask_position = True
    with pytest.raises(KeyError, match="mask_position"):
        to_hf(build_model(spec, text_branch=False).state_dict())


def test_the_residual_network_equals_theirs() -> None:
    from transformers import ResNetConfig, ResNetModel

    from oneformer.model.backbones import build_backbone

    spec = ModelSpec().backbone
    spec.name = "resnet50"
    ours = build_backbone(spec).eval()
    theirs = ResNetModel(ResNetConfig(downsample_in_bottleneck=False)).eval()
    state = {}
    for name, tensor in theirs.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(state)))
            kind = name.rsplit(".", 1)[1]
            scale = 1 / tensor[0].numel() ** 0.5 if tensor.ndim > 1 else 0.1
            state[name] = noise * scale if kind != "running_var" else 1 + 0.5 * noise.abs()
            if tensor.ndim == 1 and kind == "weight":
                state[name] = 1 + 0.1 * noise
    theirs.load_state_dict(state, strict=False)
    ours.load_state_dict({resnet_name(name): tensor for name, tensor in state.items()})
    images = torch.randn(1, 3, 75, 90)
    with torch.no_grad():
        got = ours(images)
        want = theirs(images, output_hidden_states=True).hidden_states[1:]
    assert max(error(a, b) for a, b in zip(got.values(), want, strict=True)) < TOLERANCE


def resnet_name(name: str) -> str:
    """Their parameter name -> torchvision's."""
    part = name.split(".")
    kind = part[-1]
    if part[0] == "embedder":
        return f"{'conv1' if part[2] == 'convolution' else 'bn1'}.{kind}"
    stage, block = int(part[2]) + 1, part[4]
    if part[5] == "shortcut":
        return f"layer{stage}.{block}.downsample.{0 if part[6] == 'convolution' else 1}.{kind}"
    return f"layer{stage}.{block}.{'conv' if part[7] == 'convolution' else 'bn'}{int(part[6]) + 1}.{kind}"
