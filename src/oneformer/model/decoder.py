"""Queries (B, Q, C) and memory maps -> class logits (B, Q, K+1) and mask logits (B, Q, h, w): masked attention.

Each layer lets a query look only where its own last mask prediction was positive (Mask2Former, arXiv:2112.01527,
section 3.2.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer.model.layers import MLP, QueryLayer, as_tokens, recompute
from oneformer.model.pixel import Features
from oneformer.model.position import sine_position, spread_points
from oneformer.model.query import QueryInitialiser

if TYPE_CHECKING:
    from oneformer.spec.model import ModelSpec


class Prediction(NamedTuple):
    """What the heads make of the queries after one layer."""

    class_logits: Tensor  # (B, Q, K+1), the last column is "no object"
    mask_embed: Tensor  # (B, Q, C'), its product with the mask features is the mask


class Decoded(NamedTuple):
    """What the decoder says about a batch.

    Masks are kept as the two factors of their product, because training needs few of the pixels of ten layers' masks:
    the matched queries' masks, and all masks at random points (loss/total.py).
    """

    last: Prediction
    early: tuple[Prediction, ...]  # before the first layer and after each but the last; () unless asked for
    mask_features: Tensor  # (B, C', h, w)
    queries: Tensor  # (B, Q, C), as they entered the first layer

    @property
    def class_logits(self) -> Tensor:
        """(B, Q, K+1) after the last layer."""
        return self.last.class_logits

    @property
    def mask_logits(self) -> Tensor:
        """(B, Q, h, w) after the last layer; computed anew each time it is asked for."""
        return mask_logits(self.last.mask_embed, self.mask_features)

    @property
    def auxiliary(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Class and mask logits of the earlier layers, computed anew each time."""
        return tuple((p.class_logits, mask_logits(p.mask_embed, self.mask_features)) for p in self.early)


def mask_logits(embed: Tensor, mask_features: Tensor) -> Tensor:
    """(B, n, C') and (B, C', h, w) -> (B, n, h, w)."""
    masks = embed.to(mask_features.dtype) @ mask_features.flatten(2)  # (B, n, h*w)
    return masks.unflatten(2, mask_features.shape[2:])


class Level(NamedTuple):
    """One memory map, ready to be attended to."""

    key: Tensor  # (B, h_l*w_l, C), with position
    value: Tensor  # (B, h_l*w_l, C)
    mask_features: Tensor  # (B, C', h_l*w_l), to predict masks at this level's own resolution


class Memory(NamedTuple):
    """What the decoder reads of the images; no task changes it, so several tasks share it."""

    first: tuple[tuple[Tensor, Tensor], ...]  # keys and values of the query initialiser's layers, each (B, h*w, C)
    levels: tuple[Level, ...]
    projected: tuple[tuple[Tensor, Tensor] | None, ...]  # the same of the decoder's; None: each task makes its own


class Decoder(nn.Module):
    """Query initialisation, masked-attention layers and prediction heads."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        head, former = spec.sem_seg_head, spec.one_former
        dim = former.hidden_dim
        self.query_embed = nn.Embedding(former.num_object_queries, dim)  # both from the unit normal
        self.level_embed = nn.Embedding(former.num_feature_levels, dim)
        project = former.enforce_input_proj or head.convs_dim != dim
        self.input_proj = nn.ModuleList(
            nn.Conv2d(head.convs_dim, dim, 1) if project else nn.Identity() for _ in range(former.num_feature_levels)
        )
        self.initialiser = QueryInitialiser(spec)
        self.layers = nn.ModuleList(
            QueryLayer(
                dim,
                former.nheads,
                dim_feedforward=former.dim_feedforward,
                dropout=0.0,  # the published decoder has none; `dropout` acts in initialiser and pixel decoder
                pre_norm=former.pre_norm,
                self_first=False,
            )
            for _ in range(former.dec_layers - 1)
        )
        self.norm = nn.LayerNorm(dim)
        self.class_embed = nn.Linear(dim, head.num_classes + 1)
        self.mask_embed = MLP(dim, dim, head.mask_dim, num_layers=3)
        self.use_task_norm = former.use_task_norm
        self.turns = former.position_turns
        if former.query_init == "spread":
            places = spread_points(former.num_object_queries, dim, turns=former.position_turns)
            self.query_embed.weight.data.copy_(places)
        self.activation_checkpointing = False
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming-uniform (a=1) projections, biases zero (Mask2Former's code); other parts initialise themselves."""
        for module in self.input_proj:
            if isinstance(module, nn.Conv2d):
                assert module.bias is not None
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)

    def forward(self, features: Features, task: Tensor, *, auxiliary: bool, memory: Memory | None = None) -> Decoded:
        """task (B, C) -> predictions; `auxiliary` asks for those of the earlier layers too."""
        if self.use_task_norm:
            task = self.norm(task)  # the published network shares this norm with the predictions
        if memory is None:
            memory = self.memory(features, project=False)
        x = queries = self.initialiser(task, memory.first, self.query_embed.weight)
        early: list[Prediction] = []
        for i, (layer, projected) in enumerate(zip(self.layers, memory.projected, strict=True)):
            level = memory.levels[i % len(memory.levels)]
            if auxiliary:
                early.append(self.predict(x))
            x = recompute(
                self.attend,
                layer,
                x,
                projected or level,
                self.open_places(x, level),
                on=self.activation_checkpointing and self.training,
            )
        return Decoded(self.predict(x), tuple(early), features.mask_features, queries)

    def memory(self, features: Features, *, project: bool = True) -> Memory:
        """What all tasks of the images read.

        Args:
            features: of the images.
            project: make every layer's keys and values; for a single task they are made, and let go, layer by layer.
        """
        levels = tuple(self.level(i, features) for i in range(len(self.input_proj)))
        projected = [
            self.project(layer, levels[i % len(levels)]) if project else None for i, layer in enumerate(self.layers)
        ]
        return Memory(self.initialiser.read(features.mask_features), levels, tuple(projected))

    def level(self, index: int, features: Features) -> Level:
        """Memory map `index` as tokens."""
        memory = self.input_proj[index](features.memory[index])  # (B, C, h_l, w_l)
        height, width = memory.shape[2:]
        value = as_tokens(memory) + self.level_embed.weight[index]
        key = value + sine_position(height, width, value.shape[2], device=value.device, turns=self.turns)
        # A mask is linear in the mask features, so resizing them once equals resizing every layer's masks.
        with torch.no_grad():
            small = F.interpolate(features.mask_features, size=(height, width), mode="bilinear", align_corners=False)
        return Level(key, value, small.flatten(2))

    def open_places(self, x: Tensor, level: Level) -> Tensor:
        """Where each query may look, (B, 1, Q, h_l*w_l), true = allowed: where its mask is not negative.

        A query whose mask is negative everywhere may look everywhere.
        """
        with torch.no_grad():
            closed = self.closed_places(self.mask_embed(self.norm(x)) @ level.mask_features)
            return ~(closed & ~closed.all(dim=-1, keepdim=True)).unsqueeze(1)

    def closed_places(self, masks: Tensor) -> Tensor:
        """Mask logits (B, Q, h_l*w_l) -> true where the query's own mask is negative."""
        return masks < 0

    def attend(self, layer: QueryLayer, x: Tensor, seen: Level | tuple[Tensor, Tensor], places: Tensor) -> Tensor:
        """One layer on one level or on what `project` made of it, (B, Q, C) -> (B, Q, C)."""
        k, v = self.project(layer, seen) if isinstance(seen, Level) else seen
        out: Tensor = layer(x, self.query_embed.weight, k, v, places)
        return out

    def project(self, layer: nn.Module, level: Level) -> tuple[Tensor, Tensor]:
        """One layer's keys and values (B, h_l*w_l, C)."""
        assert isinstance(layer, QueryLayer)
        _, wk, wv = layer.cross_attn.weights()
        return F.linear(level.key, *wk), F.linear(level.value, *wv)

    def predict(self, x: Tensor) -> Prediction:
        """Queries (B, Q, C) -> what they stand for."""
        x = self.norm(x)
        return Prediction(self.class_embed(x), self.mask_embed(x))
