"""Images (B, 3, H, W) -> four maps: any network of the package timm that gives maps at strides 4, 8, 16 and 32.

timm is used when it is installed and can be imported; nothing else here needs it. Its weights are not fetched:
`train.pretrained_backbone` takes them from a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from oneformer.errors import MissingExtra, SpecError
from oneformer.model.backbones.common import MAPS, Backbone, pad_to_multiple

if TYPE_CHECKING:
    from oneformer.spec.backbone import BackboneSpec, TimmSpec

WHERE = "model.backbone.timm.model"
COARSEST = 32
TRIED = (96, 160)  # height and width of the image that a new network is tried with
STRIDES = {name: 2 ** int(name[-1]) for name in MAPS}


def build_timm(spec: BackboneSpec) -> Backbone:
    """The network of `model.backbone.timm`.

    Raises:
        MissingExtra: timm is not installed.
        SpecError: it cannot be imported, has no such network, or the network gives other maps.
    """
    return Timm(spec.timm, create(imported(), spec.timm.model), freeze_at=spec.freeze_at)


def imported() -> ModuleType:
    """The package; an installed one may fail by what it needs itself, most often by torchvision."""
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name == "timm":
            raise MissingExtra("timm", extra="timm", needed_for="model.backbone.name timm") from error
        raise broken(error) from error
    except Exception as error:  # a torchvision built for another torch raises RuntimeError
        raise broken(error) from error
    found: ModuleType = timm
    return found


def broken(error: Exception) -> SpecError:
    """The error for a timm that is there and does not work."""
    return SpecError(
        f"timm is installed but cannot be imported: {first_line(error)}",
        where="model.backbone.name",
        hint="install the torchvision that belongs to this torch, or choose another backbone",
    )


def create(timm: ModuleType, name: str) -> Any:
    """timm's network `name` with its maps as output, initialised at random."""
    if not name:
        raise SpecError("the name of timm's network is missing", where=WHERE, hint="timm.list_models() lists them all")
    try:
        try:  # transformers of a fixed image size take this argument, the others refuse it
            return timm.create_model(name, pretrained=False, features_only=True, strict_img_size=False)
        except TypeError:
            return timm.create_model(name, pretrained=False, features_only=True)
    except Exception as error:  # whatever a network of timm raises when it cannot be made so
        near = ", ".join(timm.list_models(f"*{name.partition('_')[0]}*")[:5])
        raise SpecError(
            f"timm cannot make {name!r} as a backbone: {first_line(error)}",
            where=WHERE,
            hint=f"names like it: {near}" if near else "timm.list_models() lists all names",
        ) from error


def first_line(error: Exception) -> str:
    """The beginning of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


class Timm(Backbone):
    """timm's network behind our promises: images of any size, sizes rounded up, channels first."""

    def __init__(self, spec: TimmSpec, network: Any, *, freeze_at: int = 0) -> None:
        super().__init__(out_features=spec.out_features, where="model.backbone.timm.out_features")
        self.network: nn.Module = network
        strides, widths = network.feature_info.reduction(), network.feature_info.channels()
        # map -> its place among timm's: the deepest of its stride
        self.places = {name: len(strides) - 1 - strides[::-1].index(s) for name, s in STRIDES.items() if s in strides}
        for name in self.out_features:
            if name not in self.places:
                raise SpecError(
                    f"{spec.model} gives maps at strides {', '.join(map(str, strides))}, none at {STRIDES[name]}",
                    where=WHERE,
                    hint="choose a network with four stages, or model.backbone.name vit for a plain transformer",
                )
            self.channels[name], self.strides[name] = widths[self.places[name]], STRIDES[name]
        order = str(getattr(network, "output_fmt", "NCHW"))  # text, or a member of an enumeration
        self.channels_last = order.rsplit(".", maxsplit=1)[-1] == "NHWC"
        self.try_out(spec.model)
        if spec.use_checkpoint:
            if not hasattr(network, "set_grad_checkpointing"):
                raise SpecError(
                    f"timm cannot recompute the activations of {spec.model}",
                    where="model.backbone.timm.use_checkpoint",
                )
            network.set_grad_checkpointing(True)
        if freeze_at:
            self.freeze_up_to(freeze_at, [network.feature_info[i]["module"] for i in sorted(self.places.values())])

    def try_out(self, name: str) -> None:
        """Raises SpecError for a network that takes one size of images only, before a run begins with it."""
        self.eval()
        try:
            with torch.no_grad():
                self(torch.zeros(1, 3, *TRIED, device=next(self.network.parameters()).device))
        except Exception as error:  # whatever a network of timm raises on a size that it was not made for
            raise SpecError(
                f"{name} does not take images of any size: {first_line(error)}",
                where=WHERE,
                hint="choose a convolutional network or one with windows",
            ) from error
        self.train()

    def freeze_up_to(self, freeze_at: int, ends: Sequence[str]) -> None:
        """Fix the stem, which is all before the first stage, and the stages after it; `ends` are their last modules."""
        names = [name for name, _ in self.network.named_parameters()]
        stages = [[i for i, name in enumerate(names) if inside(name, end)] for end in ends]
        if not all(stages):
            raise SpecError(
                "the stages of this network are not known by name",
                where="model.backbone.freeze_at",
                hint="set it to 0 and name what to fix in train.freeze",
            )
        stop = stages[0][0] if freeze_at == 1 else stages[min(freeze_at - 1, len(stages)) - 1][-1] + 1
        fixed = {self.network.get_parameter(name).requires_grad_(False) for name in names[:stop]}
        modules = [(list(module.parameters()), module) for module in self.network.modules()]
        self.frozen = [module for own, module in modules if own and fixed.issuperset(own)]
        for module in self.frozen:
            module.eval()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        height, width = images.shape[2:]
        found = self.network(pad_to_multiple(images, COARSEST))
        maps = {}
        for name in self.out_features:
            x = found[self.places[name]]
            x = x.permute(0, 3, 1, 2) if self.channels_last else x
            maps[name] = x[:, :, : -(-height // self.strides[name]), : -(-width // self.strides[name])]
        return maps


def inside(parameter: str, module: str) -> bool:
    """Whether a parameter lies in a module; some networks of timm flatten its name (stages_0) or have it in `model`."""
    return parameter.startswith((f"{module}.", f"{module.replace('.', '_')}.", f"model.{module}."))
