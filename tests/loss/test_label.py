"""Class loss: torch's weighted cross-entropy for every layer at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from oneformer.loss.label import assigned_classes, label_loss
from oneformer.loss.match import Match


def test_matched_queries_get_their_objects_class_and_the_rest_no_object() -> None:
    first = Match(torch.tensor([[0, 2], [1, 3]]), torch.tensor([[1, 0], [0, 1]]))
    none = Match(torch.empty(2, 0, dtype=torch.long), torch.empty(2, 0, dtype=torch.long))
    labels = [torch.tensor([4, 3]), torch.empty(0, dtype=torch.long)]
    classes = assigned_classes([first, none], labels, queries=4, no_object=9)
    assert classes[0].tolist() == [[3, 9, 4, 9], [9, 9, 9, 9]]
    assert classes[1].tolist() == [[9, 4, 9, 3], [9, 9, 9, 9]]


def test_each_layer_equals_torchs_weighted_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, classes = torch.randn(3, 2, 7, 6), torch.randint(0, 6, (3, 2, 7))
    weight = torch.tensor([1.0, 1, 1, 1, 1, 0.1])
    for layer, loss in enumerate(label_loss(logits, classes, no_object_weight=0.1)):
        expected = F.cross_entropy(logits[layer].flatten(0, 1), classes[layer].flatten(), weight)
        torch.testing.assert_close(loss, expected)


def test_with_no_weight_on_no_object_only_the_matched_queries_count() -> None:
    logits, classes = torch.randn(1, 1, 4, 6), torch.tensor([[[5, 5, 2, 5]]])
    expected = F.cross_entropy(logits[0, 0, 2:3], torch.tensor([2]))
    torch.testing.assert_close(label_loss(logits, classes, no_object_weight=0.0)[0], expected)


def test_with_no_weight_on_no_object_an_empty_batch_has_no_loss() -> None:
    logits, classes = torch.randn(1, 2, 4, 6), torch.full((1, 2, 4), 5)
    assert label_loss(logits, classes, no_object_weight=0.0).tolist() == [0.0]


def test_parts_of_a_batch_with_the_mean_of_their_weights_are_the_whole_batch_on_average() -> None:
    torch.manual_seed(0)
    logits, classes = torch.randn(2, 3, 7, 6), torch.full((2, 3, 7), 5)
    classes[:, 0, :4], classes[:, 1, :1] = 2, 3  # four objects, one and none
    weight = torch.where(classes == 5, 0.1, 1.0)
    mean = float(weight[0].sum()) / 2
    shares = [
        label_loss(logits[:, part], classes[:, part], no_object_weight=0.1, divisor=mean) for part in ([0], [1, 2])
    ]
    torch.testing.assert_close(torch.stack(shares).mean(0), label_loss(logits, classes, no_object_weight=0.1))
    alone = [label_loss(logits[:, part], classes[:, part], no_object_weight=0.1) for part in ([0], [1, 2])]
    assert not torch.allclose(torch.stack(alone).mean(0), label_loss(logits, classes, no_object_weight=0.1), rtol=0.01)
