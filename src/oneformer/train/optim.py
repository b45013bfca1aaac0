"""Network, criterion and optimiser settings -> AdamW over a few parameter groups, and a table of what is in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from oneformer.errors import UserError

if TYPE_CHECKING:
    from oneformer.spec.train import OptimSpec

# Position tables and learned tokens are stored as bare parameters as well as nn.Embedding; decaying them pulls
# positions towards each other. The first two names are the published list (SHI train_net, Swin), the rest are ours.
UNDECAYED_NAMES = (
    "relative_position_bias_table",
    "absolute_pos_embed",
    "pos_embed",
    "cls_token",
    "register_tokens",
    "token",
    "level_embed",
    "positional_embedding",
    "prompt_ctx",
    "logit_scale",
)
UNDECAYED = ", no decay"
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase, nn.LocalResponseNorm)


@dataclass
class Group:
    """One parameter group in the making."""

    name: str
    lr: float
    weight_decay: float
    tensors: list[nn.Parameter] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Numbers that are trained in this group."""
        return sum(p.numel() for p in self.tensors)


def parameter_groups(spec: OptimSpec, model: nn.Module, criterion: nn.Module | None = None) -> list[Group]:
    """The trained parameters in at most four groups: backbone or not, decayed or not.

    The rule is the published one (oneformer-model.md 1.9): learning rate x `backbone_multiplier` in the backbone, no
    weight decay on normalisation layers, embeddings and position tables. Biases are decayed, as there. Frozen
    parameters (`requires_grad` False) are in no group.
    """
    groups = {
        (backbone, decayed): Group(
            ("backbone" if backbone else "heads") + ("" if decayed else UNDECAYED),
            spec.lr * (spec.backbone_multiplier if backbone else 1.0),
            spec.weight_decay if decayed else 0.0,
        )
        for backbone in (True, False)
        for decayed in (True, False)
    }
    seen: set[int] = set()
    for part in (model, criterion):
        for prefix, module in part.named_modules() if part is not None else ():
            undecayed = isinstance(module, (*NORMS, nn.Embedding))
            for name, parameter in module.named_parameters(recurse=False):
                if not parameter.requires_grad or id(parameter) in seen:
                    continue
                seen.add(id(parameter))
                backbone = part is model and f"{prefix}.{name}".startswith("backbone.")
                groups[backbone, not (undecayed or name in UNDECAYED_NAMES)].tensors.append(parameter)
    return [group for group in groups.values() if group.tensors]


def build_optimizer(
    spec: OptimSpec, model: nn.Module, criterion: nn.Module | None = None, *, fused: bool = True
) -> torch.optim.AdamW:
    """AdamW with `optim.momentum` as its first beta; the group names stand in `param_groups[i]["name"]`.

    `fused` steps all tensors in one kernel (on the CPU it was three times faster than the multi-tensor form); it must
    be off where a gradient scaler has to unscale before clipping, because the fused step unscales by itself.

    Raises:
        UserError: every parameter is frozen.
    """
    groups = parameter_groups(spec, model, criterion)
    if not groups or not any(p.requires_grad for p in model.parameters()):
        raise UserError("nothing is left to train: every parameter is frozen", where="train.freeze")
    return torch.optim.AdamW(
        [{"params": g.tensors, "lr": g.lr, "weight_decay": g.weight_decay, "name": g.name} for g in groups],
        lr=spec.lr,
        betas=(spec.momentum, 0.999),  # the second beta and epsilon are AdamW's defaults, as in the published recipe
        fused=fused,
    )


def renew(optimizer: torch.optim.Optimizer, spec: OptimSpec) -> None:
    """Put the spec's weight decay and beta into an optimiser whose state was restored; rates are the schedule's."""
    for group in optimizer.param_groups:
        group["betas"] = (spec.momentum, group["betas"][1])
        if not group["name"].endswith(UNDECAYED):
            group["weight_decay"] = spec.weight_decay


def group_table(optimizer: torch.optim.Optimizer) -> str:
    """The groups as aligned text lines: name, tensors, parameters, learning rate, weight decay."""
    rows = [("parameters", "tensors", "numbers", "lr", "weight decay")]
    for group in optimizer.param_groups:
        numbers = sum(p.numel() for p in group["params"])
        lr = group.get("initial_lr", group["lr"])
        rows.append(
            (group["name"], str(len(group["params"])), f"{numbers:,}", f"{lr:.3g}", f"{group['weight_decay']:g}")
        )
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )
