"""The whole network: sizes, shapes, gradients, shared features, export."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from model.specs import NAMES, TASK_IDS, swin_spec, tiny_spec
from oneformer.model.oneformer import OneFormer, build_model


def count(module: nn.Module | None) -> int:
    assert module is not None
    return sum(p.numel() for p in module.parameters())


def tokens(batch: int = 1, *, task: float = 1072.0) -> Tensor:
    ids = torch.zeros(batch, 77)
    ids[:, : len(TASK_IDS)] = torch.tensor(TASK_IDS)
    ids[:, 4] = task
    return ids


def model_of(name: str = "D2SwinTransformer") -> OneFormer:
    torch.manual_seed(0)
    return build_model(tiny_spec(name)).eval()


def test_parts_of_the_published_network_have_the_published_sizes() -> None:
    """oneformer-model.md 5.1."""
    with torch.device("meta"):
        model = build_model(swin_spec("Swin-T"))
    assert count(model.backbone) == 27_520_698
    assert count(model.pixel_decoder) == 5_421_504
    assert count(model.decoder) == 17_708_439
    assert count(model.task) == 85_760
    assert count(model.text) == 17_542_912


@pytest.mark.parametrize(
    ("size", "queries", "classes", "total"),
    [
        ("Swin-T", 150, 150, 50_736_401),
        ("Swin-L", 250, 150, 218_811_147),
        ("Swin-L", 250, 19, 218_777_480),
        ("Swin-L", 150, 133, 218_781_178),
    ],
)
def test_inference_parameters_are_those_of_the_published_models(
    size: str, queries: int, classes: int, total: int
) -> None:
    """oneformer-model.md 5.1; the text branch is left out."""
    with torch.device("meta"):
        model = build_model(swin_spec(size, queries=queries, classes=classes), text_branch=False)
    assert model.text is None
    assert count(model) == total


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(64, 96), (50, 70), (33, 32)])
def test_images_of_any_size_are_taken(name: str, size: tuple[int, int]) -> None:
    with torch.no_grad():
        classes, masks = model_of(name)(torch.randn(2, 3, *size), tokens(2))
    assert classes.shape == (2, 12, 6)
    assert masks.shape == (2, 12, -(-size[0] // 4), -(-size[1] // 4))
    assert classes.isfinite().all()
    assert masks.isfinite().all()


def test_shared_features_give_the_same_as_separate_runs() -> None:
    model, images = model_of(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = model.features(images)
        for task in (1072.0, 29119.0):
            decoded = model.decode(features, tokens(task=task))
            classes, masks = model(images, tokens(task=task))
            assert torch.equal(decoded.class_logits, classes)
            assert torch.equal(decoded.mask_logits, masks)


@pytest.mark.parametrize("name", NAMES)
def test_tasks_that_share_what_is_read_of_the_images_give_the_same(name: str) -> None:
    model, images = model_of(name), torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        features = model.features(images)
        memory = model.memory(features)
        for task in (1072.0, 29119.0):
            apart = model.decode(features, tokens(2, task=task))
            shared = model.decode(features, tokens(2, task=task), memory=memory)
            assert torch.equal(shared.class_logits, apart.class_logits)
            assert torch.equal(shared.mask_logits, apart.mask_logits)


def test_an_image_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    model, images = model_of(), torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        together = model(images, tokens(3))
        alone = model(images[1:2], tokens())
    torch.testing.assert_close(together[0][1:2], alone[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together[1][1:2], alone[1], atol=1e-4, rtol=1e-4)


def test_auxiliary_predictions_come_in_training_with_deep_supervision_only() -> None:
    model = model_of()
    features = model.features(torch.randn(1, 3, 32, 32))
    assert len(model.decode(features, tokens()).auxiliary) == 0
    model.train()
    assert len(model.decode(features, tokens()).auxiliary) == 3
    model.spec.one_former.deep_supervision = False
    assert len(model.decode(features, tokens()).auxiliary) == 0


def loss_of(model: OneFormer) -> Tensor:
    """Something that every output has a part in."""
    generator = torch.Generator().manual_seed(1)
    decoded = model.decode(model.features(torch.randn(1, 3, 64, 96, generator=generator)), tokens(), auxiliary=True)
    texts = model.encode_texts(torch.tensor([[49406, 320, 49407], [49406, 49407, 0]]), torch.tensor([[0, 1] * 4]))
    parts = [decoded.class_logits, decoded.mask_logits, *(x for pair in decoded.auxiliary for x in pair), texts]
    return sum((x.square().mean() for x in parts), torch.tensor(0.0))


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = model_of(name).train()
    loss_of(model).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without


def test_recomputing_activations_changes_no_gradient() -> None:
    gradients = []
    for on in (False, True):
        model = model_of().train()
        model.set_activation_checkpointing(on)
        loss_of(model).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients)


EXPORTED = ("D2SwinTransformer", "resnet50")  # the others' own graphs are in test_backbones.py


@pytest.mark.parametrize("name", [n if n in EXPORTED else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_the_exported_graph_takes_any_batch_and_gives_the_same(name: str) -> None:
    model = model_of(name)
    batch = torch.export.Dim("batch", min=1, max=16)
    graph = torch.export.export(
        model,
        (torch.randn(2, 3, 64, 96), tokens(2)),
        dynamic_shapes={"images": {0: batch}, "task_tokens": {0: batch}},
        strict=False,
    )
    assert not any("nonzero" in str(n.target) or "embedding_bag" in str(n.target) for n in graph.graph.nodes)
    for size in (1, 3):
        images = torch.randn(size, 3, 64, 96)
        with torch.no_grad():
            for got, want in zip(graph.module()(images, tokens(size)), model(images, tokens(size)), strict=True):
                torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-3)


def test_the_exported_graph_computes_in_no_wider_type_than_float32() -> None:
    graph = torch.export.export(model_of(), (torch.randn(1, 3, 64, 64), tokens()), strict=False)
    kinds = {n.meta["val"].dtype for n in graph.graph.nodes if isinstance(n.meta.get("val"), Tensor)}
    assert torch.float64 not in kinds


def test_bfloat16_autocast_stays_close() -> None:
    model, images = model_of(), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        features = model.features(images)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model.features(images)
    error = (mixed.mask_features.float() - features.mask_features).abs().max() / features.mask_features.abs().max()
    assert error < 0.05
