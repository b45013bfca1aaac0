"""The running average of the weights."""

from __future__ import annotations

import torch
from torch import nn

from oneformer.train.ema import Average


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


def test_the_average_follows_the_weights_with_its_decay() -> None:
    model = net()
    average = Average(model, decay=0.5)
    average.updates = 1000  # past the warm-up of the decay
    start = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight.add_(1.0)
    average.update()
    assert torch.allclose(average.shadow["0.weight"], start + 0.5)


def test_the_first_updates_forget_the_random_start_quickly() -> None:
    model = net()
    average = Average(model, decay=0.9999)
    with torch.no_grad():
        model[0].weight.fill_(7.0)
    for _ in range(30):
        average.update()
    assert torch.allclose(average.shadow["0.weight"], torch.tensor(7.0), atol=0.05)


def test_swapping_twice_gives_the_weights_back_bit_for_bit() -> None:
    model = net()
    average = Average(model, decay=0.9)
    with torch.no_grad():
        model[0].weight.add_(0.123)
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    average.swap()
    assert not torch.equal(model[0].weight, weights["0.weight"])
    average.swap()
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


def test_the_state_has_every_entry_of_the_network_and_round_trips() -> None:
    model = net()
    average = Average(model, decay=0.9)
    with torch.no_grad():
        model[0].weight.add_(1.0)
    average.update()
    state = average.state_dict()
    assert list(state) == list(model.state_dict())
    assert state["1.num_batches_tracked"].dtype == torch.int64
    other = Average(net(), decay=0.9)
    other.load_state_dict(state, average.updates)
    assert torch.equal(other.shadow["0.weight"], average.shadow["0.weight"])
