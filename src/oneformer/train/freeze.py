"""Names from `train.freeze` -> parameters without gradient, and modules that stay in evaluation mode."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from oneformer.errors import UserError, UserErrors

# Parts by the names that published OneFormer checkpoints and TAO give them.
PUBLISHED = {
    "sem_seg_head.pixel_decoder": "pixel_decoder",
    "sem_seg_head.predictor": "decoder",
    "task_mlp": "task",
    "text_encoder": "text",
}


def freeze(model: nn.Module, patterns: Sequence[str]) -> int:
    """Stop training the parameters that `patterns` name; returns how many tensors were frozen.

    A pattern is a module ("backbone"), a parameter ("decoder.level_embed") or either with wildcards ("backbone.norm*").
    Names are those of the network, with or without the `model.` in front that checkpoints carry, or the published names
    of its parts.

    Raises:
        UserError: a pattern names nothing; the message gives the nearest name.
    """
    parameters = dict(model.named_parameters())
    frozen: set[str] = set()
    errors: list[UserError] = []
    for pattern in patterns:
        wanted = _own_name(pattern)
        hits = {n for n in parameters if _names(wanted, n)}
        if not hits:
            errors.append(_unknown(pattern, wanted, model))
        frozen |= hits
    if errors:
        raise UserErrors(errors) if len(errors) > 1 else errors[0]
    for name in frozen:
        parameters[name].requires_grad_(False)
    return len(frozen)


def rest(model: nn.Module) -> None:
    """Put every module whose parameters are all frozen into evaluation mode: its dropout and statistics rest too.

    Modules without parameters follow the module that holds them.
    """
    for module in model.modules():
        own = list(module.parameters())
        if own and not any(p.requires_grad for p in own):
            module.eval()


def _own_name(pattern: str) -> str:
    name = pattern.removeprefix("model.").removesuffix(".")
    for published, own in PUBLISHED.items():
        if name == published or name.startswith(f"{published}."):
            return own + name.removeprefix(published)
    return name


def _names(pattern: str, parameter: str) -> bool:
    if any(sign in pattern for sign in "*?["):
        return fnmatchcase(parameter, pattern) or fnmatchcase(parameter, f"{pattern}.*")
    return parameter == pattern or parameter.startswith(f"{pattern}.")


def _unknown(pattern: str, wanted: str, model: nn.Module) -> UserError:
    names = [name for name, _ in model.named_modules() if name] + [name for name, _ in model.named_parameters()]
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.3)
    top = ", ".join(name for name, _ in model.named_children())
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UserError(
        f"no part of the network is called {pattern!r}", where="train.freeze", hint=f"{hint}The parts are: {top}"
    )
