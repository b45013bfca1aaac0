"""The optimiser's groups follow the published rule."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from oneformer.errors import UserError
from oneformer.spec.train import OptimSpec
from oneformer.train.freeze import freeze, rest
from oneformer.train.optim import build_optimizer, group_table, parameter_groups


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
        self.proj = nn.Linear(4, 4)


class Net(nn.Module):
    """The kinds of parameters that the real network has."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), Attention())
        self.pixel_decoder = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.query_embed = nn.Embedding(5, 4)
        self.level_embed = nn.Parameter(torch.zeros(3, 4))
        self.norm = nn.LayerNorm(4)


class Loss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.zeros(()))


def names_in(spec: OptimSpec, net: nn.Module, loss: nn.Module) -> dict[str, set[str]]:
    by_id = {id(p): n for part in (net, loss) for n, p in part.named_parameters()}
    return {g.name: {by_id[id(p)] for p in g.tensors} for g in parameter_groups(spec, net, loss)}


def test_norms_embeddings_and_position_tables_are_not_decayed() -> None:
    groups = names_in(OptimSpec(), Net(), Loss())
    assert groups == {
        "backbone": {"backbone.0.weight", "backbone.0.bias", "backbone.2.proj.weight", "backbone.2.proj.bias"},
        "backbone, no decay": {"backbone.1.weight", "backbone.1.bias", "backbone.2.relative_position_bias_table"},
        "heads": {"pixel_decoder.0.weight", "pixel_decoder.0.bias"},
        "heads, no decay": {
            "pixel_decoder.1.weight", "pixel_decoder.1.bias", "query_embed.weight", "level_embed", "norm.weight",
            "norm.bias", "logit_scale",
        },
    }  # fmt: skip


def test_the_settings_reach_the_optimiser() -> None:
    spec = OptimSpec(lr=1e-3, backbone_multiplier=0.2, weight_decay=0.3, momentum=0.7)
    optimizer = build_optimizer(spec, Net(), Loss())
    rates = {g["name"]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups}
    assert rates == {
        "backbone": (2e-4, 0.3), "backbone, no decay": (2e-4, 0.0),
        "heads": (1e-3, 0.3), "heads, no decay": (1e-3, 0.0),
    }  # fmt: skip
    assert all(g["betas"] == (0.7, 0.999) for g in optimizer.param_groups)
    assert group_table(optimizer).count("\n") == 4


def test_every_parameter_is_in_exactly_one_group() -> None:
    net, loss = Net(), Loss()
    grouped = [id(p) for g in parameter_groups(OptimSpec(), net, loss) for p in g.tensors]
    assert sorted(grouped) == sorted(id(p) for part in (net, loss) for p in part.parameters())


@pytest.mark.parametrize("pattern", ["backbone", "model.backbone", "backbone.*"])
def test_frozen_parts_leave_the_optimiser_and_rest(pattern: str) -> None:
    net = Net().train()
    assert freeze(net, [pattern]) == 7
    rest(net)
    groups = names_in(OptimSpec(), net, Loss())
    assert set(groups) == {"heads", "heads, no decay"}
    assert not any(m.training for m in net.backbone.modules())
    assert net.pixel_decoder[1].training


def test_a_frozen_batch_norm_and_dropout_do_not_move() -> None:
    net = Net()
    freeze(net, ["pixel_decoder"])
    net.train()
    rest(net)
    before = net.pixel_decoder[1].running_mean.clone()
    photo = torch.randn(2, 4, 3, 3)
    assert torch.equal(net.pixel_decoder(photo), net.pixel_decoder(photo))
    assert torch.equal(net.pixel_decoder[1].running_mean, before)


def test_an_unknown_part_is_named_with_the_nearest_one() -> None:
    with pytest.raises(UserError, match="no part of the network is called 'backbon'") as error:
        freeze(Net(), ["backbon"])
    assert "did you mean 'backbone'?" in error.value.hint


def test_freezing_everything_is_refused() -> None:
    net = Net()
    freeze(net, ["*"])
    with pytest.raises(UserError, match="nothing is left to train"):
        build_optimizer(OptimSpec(), net, Loss())
