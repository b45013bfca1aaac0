"""Pretrained weights from anywhere -> `model.backbone`: a file, a folder or an address, in anybody's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from oneformer.errors import CheckpointError
from oneformer.model.weights.describe import describe
from oneformer.model.weights.download import fetch, is_remote
from oneformer.model.weights.families import LAYOUTS
from oneformer.model.weights.hf_folder import WEIGHTS, read_weights
from oneformer.model.weights.keras import MODEL, from_keras, is_keras, read_keras
from oneformer.model.weights.load import (
    CLASSIFIER,
    NOT_OURS,
    PREFIXES,
    LoadReport,
    beside,
    check_file,
    put,
    read_state_dict,
)
from oneformer.model.weights.numbers import check_numbers
from oneformer.model.weights.pixels import CAFFE, FIRST, IMAGENET, LITE, Pixels, conditioner, refit
from oneformer.model.weights.resize import fitted

# Where a backbone stands within larger models, beside what `PREFIXES` lists.
WITHIN = (*PREFIXES, "model.pixel_level_module.encoder.", "pixel_level_module.encoder.")
# Of a classifier, or computed here; said only where our network has a place for it.
UNUSED = (
    *CLASSIFIER,
    "_conv_head.",
    "_bn1.",
    "_fc.",
    "mask_token",
    "rope_embed.",
    "input_conditioner.",
    "summary_idxs",
)


@dataclass(frozen=True)
class Source:
    """Tensors and what is known of where they come from."""

    state: Mapping[str, Tensor]
    where: str = ""
    made_for: Pixels = IMAGENET
    stride_in_1x1: bool | None = None
    """Of a residual network; None where the file does not tell."""


def locate(source: str | Path) -> Path:
    """The file or folder that a user means, fetched first when it is an address (see `download.fetch`).

    Raises:
        UserError: there is nothing of that name, or it cannot be fetched.
    """
    if isinstance(source, str) and is_remote(source) and not Path(source).exists():
        return fetch(source)
    path = Path(source)
    if path.name == MODEL and path.is_file():  # of a Keras model, which is a folder
        return path.parent
    if path.is_dir():
        if not is_keras(path) and not any(file for name in WEIGHTS for file in path.glob(f"{name}*")):
            raise CheckpointError("the folder holds no backbone weights", where=str(path), hint=beside(path))
    else:
        check_file(path)
    return path


def load_backbone(
    model: nn.Module, weights: str | Path | Mapping[str, Tensor], *, pixels: Pixels = IMAGENET
) -> LoadReport:
    """Put pretrained weights into `model.backbone`, whosever names they have.

    Fit: the releases of Swin, ConvNeXt, DiNAT, DINOv2 and EfficientNet-lite, torchvision, timm, Hugging Face (also a
    folder), detectron2, Keras's ResNet (a folder), and backbones within larger models. Position tables of another size
    are interpolated. Weights made for other colours than `pixels` are rewritten. Classifier heads and buffers that are
    computed here are ignored, and the LayerNorms of the four maps are new in most cases.

    Args:
        model: a OneFormer.
        weights: a file, a folder, a name or address (see `download.fetch`), or tensors by name.
        pixels: how images will be prepared for this network.

    Raises:
        CheckpointError: the file cannot be read, holds no usable numbers, or less than half of the backbone.
        UserError: it cannot be fetched.
    """
    source = Source(weights) if isinstance(weights, Mapping) else read(locate(weights))
    backbone = model.get_submodule("backbone")
    own = {name: tensor for name, tensor in backbone.state_dict().items() if not name.endswith(NOT_OURS)}
    layout, state = recognised(source.state, own)
    state, reshaped = fitted(state, own)
    file, here = describe(source.state), describe(own)
    fitting = sum(name in state and state[name].shape == own[name].shape for name in own)
    if 2 * fitting < len(own):
        raise CheckpointError(
            f"only {fitting} of the {len(own)} tensors of the backbone are in the file and fit: "
            f"it seems to hold {file}, the backbone here is {here}",
            where=source.where,
            hint="choose the file or the sizes of model.backbone so that they agree",
        )
    check_stride(backbone, source)
    check_numbers({name: state[name] for name in own if name in state}, where=source.where)
    state, notes = as_prepared(state, source, pixels)
    report = put(backbone, {n: v for n, v in state.items() if n in own or not n.startswith(UNUSED)})
    if layout != "ours":
        notes.insert(0, f"the names are those of {layout}")
    if (report.missing or report.mismatched) and file != here:
        notes.append(f"the file holds {file}; the backbone here is {here}")
    return replace(report, reshaped=tuple(reshaped), notes=tuple(notes))


def read(path: Path) -> Source:
    """The tensors of a file or folder, under its own names but for Keras's. Raises CheckpointError."""
    if not path.is_dir():
        return Source(read_state_dict(path), str(path))
    if is_keras(path):
        state, in_1x1 = from_keras(*read_keras(path))
        return Source(state, str(path), made_for=CAFFE, stride_in_1x1=in_1x1)
    return Source(read_weights(path), str(path))


def recognised(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """The layout with which most tensors fit our names and sizes, and the tensors under our names."""
    best: tuple[tuple[int, int], str, dict[str, Tensor]] = ((-1, -1), "ours", {})
    for prefix in WITHIN:
        inner = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
        inner = {n: v for n, v in inner.items() if not n.endswith(NOT_OURS)}
        for layout, read_as in LAYOUTS.items() if inner else ():
            names = read_as(inner)
            same = [n for n in names if n in own]
            score = (sum(names[n].numel() == own[n].numel() for n in same), len(same))
            if score > best[0]:
                best = (score, layout, names)
    return best[1], best[2]


def as_prepared(state: dict[str, Tensor], source: Source, pixels: Pixels) -> tuple[dict[str, Tensor], list[str]]:
    """The weights for images prepared as `pixels`, and a note when they had to be rewritten."""
    first = next((name for name in FIRST if name in state and FIRST[name][0] in state), "")
    made_for = source.made_for
    if first == "_conv_stem.weight":
        made_for = LITE
    if "input_conditioner.norm_mean" in state and "input_conditioner.norm_std" in state:
        made_for = conditioner(state["input_conditioner.norm_mean"], state["input_conditioner.norm_std"])
    if not first or made_for in (IMAGENET, pixels):
        return state, []
    note = f"{first} was made for images as {made_for} and is rewritten for {pixels}"
    return refit(state, first, made_for=made_for, given=pixels), [note]


def check_stride(backbone: nn.Module, source: Source) -> None:
    """Raises CheckpointError when a residual network was trained with its strides in the other place."""
    here = getattr(backbone, "stride_in_1x1", None)
    if None not in (here, source.stride_in_1x1) and here != source.stride_in_1x1:
        place = "first 1x1" if source.stride_in_1x1 else "3x3"
        raise CheckpointError(
            f"the weights were trained with the stride in the {place} convolution",
            where=source.where,
            hint=f"set model.backbone.resnet.stride_in_1x1={str(source.stride_in_1x1).lower()}",
        )
