"""One training step of Hugging Face's OneFormer and of ours: same weights, images, task, texts, truth, seed and points.

What tests/oracle/test_losses.py shows for the criterion alone holds for the whole way from the image: every term, those
of the earlier layers and the contrastive one included, and the gradient of every weight. Their known differences are
switched to ours: text attention is causal, dropout is off, points are shared by the masks and layers of an image.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from loss.batches import random_target, some_points
from oneformer.loss.points import Points
from oneformer.loss.total import Criterion
from oneformer.model.weights.hf import to_hf
from oneformer.spec.model import ModelSpec
from oracle.hf import TASK_IDS, picture, same_side_of_zero, task_tokens, twins
from oracle.same_points import SamePoints

hf = pytest.importorskip("transformers.models.oneformer.modeling_oneformer")
TERMS = {"loss_ce": "loss_cross_entropy", "loss_mask": "loss_mask", "loss_dice": "loss_dice"}
SIZE, POINTS, LAYERS = (128, 160), 300, 5


def spec_for_training() -> ModelSpec:
    spec = ModelSpec()
    swin, head, former, text = spec.backbone.swin, spec.sem_seg_head, spec.one_former, spec.text_encoder
    swin.embed_dim, swin.depths, swin.num_heads, swin.window_size = 16, [1, 1, 1, 1], [1, 2, 4, 8], 4
    swin.drop_path_rate, former.dropout = 0.0, 0.0
    head.num_classes, head.convs_dim, head.mask_dim, head.dim_feedforward = 7, 64, 64, 96
    head.transformer_enc_layers = 2
    former.hidden_dim, former.nheads, former.dim_feedforward = 64, 4, 128
    former.num_object_queries, former.dec_layers, former.class_dec_layers = 20, LAYERS, 2
    former.train_num_points = POINTS
    text.width, text.num_layers, text.n_ctx = 64, 2, 4
    return spec


def text_rows() -> Tensor:
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


def as_ours(theirs: Any, points: list[Points], objects: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Switches their known differences in the criterion and the text encoder to ours."""
    theirs.criterion.num_points = theirs.criterion.matcher.num_points = POINTS
    for layer in theirs.model.text_mapper.text_encoder.transformer.layers:
        attention, mask = layer.self_attn, layer.attn_mask
        forward = attention.forward
        monkeypatch.setattr(
            attention, "forward", lambda *args, f=forward, m=mask, **kwargs: f(*args, attn_mask=m, **kwargs)
        )
    monkeypatch.setattr(hf, "torch", SamePoints(points, objects))


@pytest.mark.parametrize("task", TASK_IDS)
def test_every_term_and_every_gradient_of_a_training_step_equals_theirs(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_for_training()
    ours, theirs = twins(spec, is_training=True)
    criterion = Criterion(spec)
    torch.manual_seed(7)
    objects = [3, 6]
    targets = [random_target(n, SIZE) for n in objects]
    points = [some_points(t, POINTS) for t in targets]
    images, tokens = picture(*SIZE, batch=2), task_tokens(task, batch=2)
    index = torch.tensor([[0, 1, 2, 0] * 4, [2, 2, 1, 0] * 4])
    as_ours(theirs, points, objects, monkeypatch)
    terms: dict[str, Tensor] = {}
    # Called by its name, which hooks see; what it calls itself for earlier layers they do not. The copies are taken
    # because the terms are weighted in place afterwards.
    theirs.criterion.register_forward_hook(
        lambda _m, _in, out: terms.update({k: v.detach().clone() for k, v in out.items()})
    )
    with same_side_of_zero(ours, theirs):
        decoded = ours.decode(ours.features(images), tokens, auxiliary=True)
        losses = criterion(decoded, targets, ours.encode_texts(text_rows(), index), points=points)
        output = theirs(
            images,
            tokens,
            text_inputs=text_rows()[index],
            mask_labels=[t.masks.float() for t in targets],
            class_labels=[t.labels for t in targets],
        )
    for suffix in ["", *(f"_{n}" for n in range(LAYERS - 1))]:
        for name, their_name in TERMS.items():
            torch.testing.assert_close(
                losses[name + suffix], terms[their_name + suffix].reshape(()), rtol=1e-4, atol=1e-4
            )
    torch.testing.assert_close(losses["loss_contrastive"], terms["loss_contrastive"], rtol=1e-4, atol=1e-4)
    assert len(terms) == 3 * LAYERS + 1 == len(losses) - 1, "no term of theirs is left out"
    torch.testing.assert_close(losses["loss"], output.loss.reshape(()), rtol=1e-4, atol=1e-4)
    assert losses["loss_contrastive"] > 0.1

    losses["loss"].backward()
    output.loss.backward()
    assert_same_gradients(ours, criterion, theirs)


def assert_same_gradients(ours: torch.nn.Module, criterion: Criterion, theirs: Any) -> None:
    """Within a thousandth of the largest entry of each weight's gradient, as far as float32 carries through the net."""
    assert criterion.logit_scale.grad is not None
    torch.testing.assert_close(
        criterion.logit_scale.grad, theirs.criterion.logit_scale.grad.float(), rtol=1e-3, atol=1e-6
    )
    found = to_hf({name: p.grad for name, p in ours.named_parameters() if p.grad is not None})
    wanted = dict(theirs.named_parameters())
    largest = max(float(g.abs().max()) for g in found.values())
    assert len(found) > 200
    for name, grad in found.items():
        expected = wanted[name].grad
        assert expected is not None, name
        scale = max(float(expected.abs().max()), 1e-5 * largest)
        assert float((grad - expected).abs().max()) < 1e-3 * scale, name
