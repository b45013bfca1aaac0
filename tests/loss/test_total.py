"""The criterion as training meets it: weights, layers, empty and crowded images, NaN, half precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loss import reference
from loss.batches import CLASSES, as_masks, leaf, leaves, random_decoded, random_target, small_spec, some_points
from oneformer.errors import WorkError
from oneformer.loss.total import Criterion
from oneformer.model.decoder import Prediction


def test_every_part_equals_an_independent_computation() -> None:
    torch.manual_seed(0)
    targets = [random_target(3), random_target(2, void=True)]
    decoded, texts = random_decoded(2, queries=5), leaf(2, 5, 16)
    points = [some_points(t) for t in targets]
    losses = Criterion(small_spec())(decoded, targets, texts, points=points)
    layers = {"": (decoded.class_logits, decoded.mask_logits), "_0": decoded.auxiliary[0], "_1": decoded.auxiliary[1]}
    total = 0.0
    for suffix, (classes, maps) in layers.items():
        wanted, terms = [], []
        for i, (target, drawn) in enumerate(zip(targets, points, strict=True)):
            void = target.void.double().numpy()
            objects, said = target.masks.double().numpy(), maps[i].detach().double().numpy()
            costs = reference.cost_matrix(
                classes[i].detach().double().numpy(), said, target.labels.tolist(), objects, void, drawn.match.numpy()
            )
            row = [CLASSES] * 5
            for q, n in reference.best_pairs(costs):
                row[q] = int(target.labels[n])
                places = reference.kept_places(said[q], void, drawn.candidates.numpy(), drawn.uniform.numpy(), 36)
                terms.append(reference.mask_terms(said[q], objects[n], void, places))
            wanted.append(row)
        ce = reference.label_term([c.detach().double().numpy() for c in classes], wanted, CLASSES, 0.1)
        bce, dice = np.sum(terms, axis=0) / 5
        for name, expected in {"ce": ce, "mask": bce, "dice": dice}.items():
            assert losses[f"loss_{name}{suffix}"].item() == pytest.approx(expected, rel=1e-4)
        total += 2 * ce + 5 * bce + 5 * dice
    contrast = reference.contrastive_term(
        decoded.queries.detach().double().numpy(), texts.detach().double().numpy(), 1 / 0.07
    )
    assert losses["loss_contrastive"].item() == pytest.approx(contrast, rel=1e-5)
    assert losses["loss"].item() == pytest.approx(total + 0.5 * contrast, rel=1e-4)
    assert len(losses) == 3 * 3 + 2


@pytest.mark.parametrize("counts", [(0, 0), (0, 3), (1, 0), (300, 2)])
def test_any_number_of_objects_gives_finite_losses_and_gradients_for_all(counts: tuple[int, int]) -> None:
    torch.manual_seed(0)
    criterion, decoded, texts = Criterion(small_spec()), random_decoded(2), leaf(2, 7, 16)
    targets = [random_target(n, (64, 80)) for n in counts]
    losses = criterion(decoded, targets, texts)
    assert all(v.isfinite() and v.ndim == 0 for v in losses.values())
    losses["loss"].backward()
    for x in [*leaves(decoded), texts, criterion.logit_scale]:
        assert x.grad is not None
        assert bool(torch.isfinite(x.grad).all())
    if not sum(counts):
        assert losses["loss_mask"].item() == losses["loss_dice"].item() == 0
        assert not decoded.mask_features.grad.any()
        assert not decoded.last.mask_embed.grad.any()


def test_an_image_that_is_all_void_adds_nothing_to_the_mask_losses() -> None:
    target = random_target(2)
    target = type(target)(target.labels, target.masks & False, torch.ones(32, 40, dtype=torch.bool))
    losses = Criterion(small_spec())(random_decoded(1), [target], None)
    assert losses["loss_mask"].item() == losses["loss_dice"].item() == 0
    assert losses["loss"].isfinite()


def test_objects_beyond_the_queries_count_in_the_mean() -> None:
    torch.manual_seed(0)
    target, decoded = random_target(3), random_decoded(1, queries=1, layers=1)
    losses = Criterion(small_spec())(decoded, [target], None, points=[some_points(target)])
    assert losses["loss_dice"].item() <= 1 / 3


def test_weights_of_the_spec_act() -> None:
    torch.manual_seed(0)
    decoded, targets, texts = random_decoded(2), [random_target(2), random_target(1)], leaf(2, 7, 16)
    spec = small_spec(contrastive_weight=0.25, class_weight=3.0, mask_weight=7.0, dice_weight=11.0)
    spec.sem_seg_head.loss_weight = 2.0
    losses = Criterion(spec)(decoded, targets, texts)
    expected = 0.25 * losses["loss_contrastive"]
    for suffix in ("", "_0", "_1"):
        expected = expected + 3 * losses[f"loss_ce{suffix}"] + 7 * losses[f"loss_mask{suffix}"]
        expected = expected + 11 * losses[f"loss_dice{suffix}"]
    torch.testing.assert_close(losses["loss"], 2 * expected)


def test_settings_of_points_and_of_the_no_object_class_act() -> None:
    decoded, targets = random_decoded(1), [random_target(2)]
    torch.manual_seed(1)
    base = Criterion(small_spec())(decoded, targets, None)
    for settings in ({"oversample_ratio": 8.0}, {"importance_sample_ratio": 0.0}, {"points": 96}):
        torch.manual_seed(1)
        other = Criterion(small_spec(**settings))(decoded, targets, None)
        assert other["loss_mask"].item() != pytest.approx(base["loss_mask"].item(), rel=1e-6), settings
    other = Criterion(small_spec(no_object_weight=0.9))(decoded, targets, None)
    assert other["loss_ce"].item() != pytest.approx(base["loss_ce"].item(), rel=1e-6)


def test_without_deep_supervision_only_the_last_layer_counts() -> None:
    decoded = random_decoded(1)
    losses = Criterion(small_spec(deep_supervision=False))(decoded, [random_target(2)], None)
    assert set(losses) == {"loss", "loss_ce", "loss_mask", "loss_dice", "loss_contrastive"}
    losses["loss"].backward()
    assert decoded.early[0].class_logits.grad is None
    assert decoded.early[0].mask_embed.grad is None


def test_the_learned_scale_starts_at_the_temperature_and_is_the_only_parameter() -> None:
    criterion = Criterion(small_spec(contrastive_temperature=0.2))
    assert dict(criterion.named_parameters()).keys() == {"logit_scale"}
    assert criterion.logit_scale.exp().item() == pytest.approx(5.0)


def test_without_texts_the_contrastive_part_is_zero_and_the_scale_keeps_still() -> None:
    criterion = Criterion(small_spec())
    losses = criterion(random_decoded(2), [random_target(1), random_target(1)], None)
    losses["loss"].backward()
    assert losses["loss_contrastive"].item() == 0
    assert criterion.logit_scale.grad.item() == 0


def test_texts_matter_only_with_weight_and_more_than_one_image() -> None:
    assert Criterion(small_spec()).contrastive_active(2)
    assert not Criterion(small_spec()).contrastive_active(1)
    assert not Criterion(small_spec(contrastive_weight=0.0)).contrastive_active(8)


def test_the_same_seed_gives_the_same_losses() -> None:
    decoded, targets = random_decoded(2), [random_target(2), random_target(4, void=True)]
    values = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        values.append(Criterion(small_spec())(decoded, targets, None)["loss"].item())
    assert values[0] == values[1] != values[2]


def test_a_target_held_as_masks_gives_the_losses_of_the_same_target_held_as_a_map() -> None:
    torch.manual_seed(0)
    decoded, target = random_decoded(1), random_target(3, void=True)
    points = [some_points(target)]
    criterion = Criterion(small_spec())
    first, second = (criterion(decoded, [t], None, points=points)["loss"] for t in (target, as_masks(target)))
    torch.testing.assert_close(first, second)


def test_half_precision_in_gives_float32_losses_near_the_full_ones() -> None:
    torch.manual_seed(0)
    decoded, target = random_decoded(1, layers=1), random_target(3)
    points = [some_points(target)]
    full = Criterion(small_spec())(decoded, [target], None, points=points)
    rounded = Prediction(*(x.bfloat16() for x in decoded.last))
    decoded = decoded._replace(last=rounded, mask_features=decoded.mask_features.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = Criterion(small_spec())(decoded, [target], None, points=points)
    assert all(value.dtype == torch.float32 for value in half.values())
    assert half["loss"].item() == pytest.approx(full["loss"].item(), rel=0.02)


@pytest.mark.parametrize("where", ["class_logits", "mask_embed"])
def test_a_nan_anywhere_stops_training_and_names_images_and_losses(where: str) -> None:
    torch.manual_seed(0)
    criterion, decoded = Criterion(small_spec()), random_decoded(2)
    with torch.no_grad():
        getattr(decoded.last, where)[1, 3] = float("nan")  # query 3 of image 1 will not be matched
    losses = criterion(decoded, [random_target(2), random_target(1)], None)
    with pytest.raises(WorkError) as caught:
        criterion.raise_if_not_finite(losses, ["a.jpg", "b.jpg"])
    assert "a.jpg" in caught.value.message
    assert "b.jpg" in caught.value.message
    assert ("loss_ce" if where == "class_logits" else "loss_mask") in caught.value.message
    assert "loss_mask_0" not in caught.value.message
    assert "train.optim.lr" in caught.value.message
    assert caught.value.exit_code == 1


def test_sound_losses_stop_nothing() -> None:
    losses = Criterion(small_spec())(random_decoded(1), [random_target(2)], None)
    Criterion.raise_if_not_finite(losses, ["a.jpg"])
