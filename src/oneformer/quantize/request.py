"""The `quantize` section -> what is asked for, checked: a backend, a mode that it has, and a format for each layer."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from oneformer.errors import SpecError, UserError, UserErrors
from oneformer.spec.quantize import QuantizeSpec

log = logging.getLogger(__name__)

NATIVE = "native"
DTYPES = {
    "int8": "int8", "int4": "int4", "native": NATIVE,
    "fp8_e4m3fn": "fp8_e4m3fn", "float8_e4m3fn": "fp8_e4m3fn", "fp8_e5m2": "fp8_e5m2", "float8_e5m2": "fp8_e5m2",
}  # fmt: skip
"""What a user may write -> our name of the number format."""
FP8 = ("fp8_e4m3fn", "fp8_e5m2")

# Parts that stay in float32 unless `quantize.layers` names them, and why.
KEPT = (
    "task.mlp*",  # takes token ids up to 49407, which eight bits spoil
    "*.sampling_offsets*",  # places in an image, with fractions of a pixel
    "*.attention_weights*",  # how what lies there is mixed
    "decoder.class_embed*",  # the heads: small, and what they give is the answer
    "decoder.mask_embed*",
    # The layer that sees the pixels: with it OpenVINO's eight bits lost 3.6 points of mIoU on eight images of the demo,
    # without it none. The names are those of Swin, DiNAT and plain ViT, ConvNeXt, ResNet, EfficientNet, C-RADIO.
    "backbone.patch_embed*",
    "backbone.downsample_layers.0*",
    "backbone.conv1",
    "backbone._conv_stem*",
    "backbone.patch_generator*",
)


@dataclass(frozen=True)
class Support:
    """What a backend can do in one mode."""

    weights: tuple[str, ...]
    """Number formats, the default first."""
    activations: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ()
    """Empty where nothing is measured."""


SUPPORTED: dict[tuple[str, str], Support] = {
    ("torchao", "weight_only_ptq"): Support(("int8", "int4", *FP8)),
    ("torchao", "dynamic_ptq"): Support(("int8",), ("int8",)),
    ("modelopt.pytorch", "weight_only_ptq"): Support(("int8", "fp8_e4m3fn"), (), ("minmax", "max")),
    ("modelopt.pytorch", "static_ptq"): Support(
        ("int8", "fp8_e4m3fn"), ("int8", "fp8_e4m3fn"), ("minmax", "max")
    ),
    ("modelopt.onnx", "static_ptq"): Support(
        ("int8", "fp8_e4m3fn"), ("int8", "fp8_e4m3fn"), ("minmax", "max", "entropy")
    ),
    ("onnxruntime", "dynamic_ptq"): Support(("int8",), ("int8",)),
    ("onnxruntime", "static_ptq"): Support(("int8",), ("int8",), ("minmax", "max", "entropy")),
    ("openvino", "weight_only_ptq"): Support(("int8", "int4")),
    ("openvino", "static_ptq"): Support(("int8",), ("int8",), ("minmax",)),
}  # fmt: skip
PYTORCH = ("torchao", "modelopt.pytorch")
# TAO's own default, which says nothing of the user's wish.
DEFAULT_ALGORITHM = "minmax"


@dataclass(frozen=True)
class Layer:
    """Something with a weight, under all the names that a pattern may mean."""

    name: str
    kind: str
    """`Linear` or `Conv2d`."""
    also: tuple[str, ...] = ()
    """Other names: the part of the network, the operator."""

    def is_meant(self, pattern: str) -> bool:
        """Whether a pattern fits one of its names, or its class. TAO's names begin with `model.`."""
        pattern = pattern.removeprefix("model.")
        return any(fnmatchcase(name, pattern) for name in (self.name, self.kind, *self.also))


@dataclass(frozen=True)
class Rule:
    """One entry of `quantize.layers`."""

    where: str
    pattern: str
    """Empty: every layer but those of `KEPT`."""
    weights: str
    activations: str
    """A format, or `native`."""


@dataclass(frozen=True)
class Formats:
    """What becomes of one layer."""

    weights: str
    activations: str = NATIVE


@dataclass(frozen=True)
class Request:
    """The section, understood."""

    backend: str
    mode: str
    algorithm: str
    rules: tuple[Rule, ...]
    """Empty: the default, `everything` but `KEPT`."""
    everything: Formats
    skip: tuple[str, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def calibrates(self) -> bool:
        """Whether images are needed to measure ranges."""
        return self.mode == "static_ptq"

    @property
    def about(self) -> dict[str, str]:
        """For the files."""
        return {"backend": self.backend, "mode": self.mode, "algorithm": self.algorithm}

    def chosen(self, layers: Sequence[Layer]) -> dict[str, Formats]:
        """Name -> formats of each layer that is quantized.

        Raises:
            UserErrors: a pattern fits no layer, or nothing is left to quantize.
        """
        errors: list[UserError] = []
        found: dict[str, Formats] = {}
        usual = [layer.name for layer in layers if not any(layer.is_meant(kept) for kept in KEPT)]
        if not self.rules:
            found = dict.fromkeys(usual, self.everything)
        for rule in self.rules:
            meant = [layer.name for layer in layers if layer.is_meant(rule.pattern)] if rule.pattern else usual
            if not meant:
                errors.append(no_layer(rule.pattern, layers, where=f"{rule.where}.module_name"))
            found |= {name: Formats(rule.weights, rule.activations) for name in meant}
        for place, pattern in enumerate(self.skip):
            skipped = [layer.name for layer in layers if layer.is_meant(pattern)]
            if not skipped:
                errors.append(no_layer(pattern, layers, where=f"quantize.skip_names[{place}]"))
            for name in skipped:
                found.pop(name, None)
        found = {name: formats for name, formats in found.items() if formats.weights != NATIVE}
        if not found and not errors:
            hint = "an empty quantize.layers takes a default set" if self.rules else "shorten quantize.skip_names"
            errors.append(SpecError("no layer is left to quantize", where="quantize.layers", hint=hint))
        if errors:
            raise UserErrors(errors)
        return found


def no_layer(pattern: str, layers: Iterable[Layer], *, where: str) -> SpecError:
    """The refusal of a pattern, with names that resemble it."""
    names = [layer.name for layer in layers]
    near = get_close_matches(pattern.strip("*"), names, n=3, cutoff=0.5) or names[:3]
    what = f"the pattern {pattern!r} fits no layer of the {len(names)} that could be quantized"
    return SpecError(
        what, where=where, hint=f"names are like {', '.join(near)}; Linear and Conv2d stand for all of a kind"
    )


def understood(section: QuantizeSpec) -> Request:
    """The section as a request.

    Raises:
        UserErrors: the backend has no such mode, algorithm or number format, or a rule is none; all faults together.
    """
    backend, mode = section.backend, section.mode
    support = SUPPORTED.get((backend, mode))
    if support is None:
        has = [m for b, m in SUPPORTED if b == backend]
        others = [b for b, m in SUPPORTED if m == mode]
        what = f"{backend} has no mode {mode}, it has {' and '.join(has)}"
        hint = f"quantize.mode={has[0]}, or for {mode} one of the backends {', '.join(others)}"
        raise UserErrors([SpecError(what, where="quantize.mode", hint=hint)])
    errors: list[UserError] = []
    if section.algorithm != DEFAULT_ALGORITHM and not support.algorithms:
        log.warning("quantize.algorithm has no effect: %s measures nothing in %s", backend, mode)
    elif section.algorithm != DEFAULT_ALGORITHM and section.algorithm not in support.algorithms:
        what = f"{backend} has no algorithm {section.algorithm} for {mode}"
        errors.append(SpecError(what, where="quantize.algorithm", hint=f"it has {', '.join(support.algorithms)}"))
    everything = Formats(support.weights[0], support.activations[0] if support.activations else NATIVE)
    rules = [rule_of(entry, i, everything, errors) for i, entry in enumerate(section.layers)]
    for rule in rules:
        check_formats(rule, support, f"{backend} in {mode}", errors)
    for i, pattern in enumerate(section.skip_names):
        if not isinstance(pattern, str) or not pattern:
            errors.append(SpecError("a pattern must be a text", where=f"quantize.skip_names[{i}]"))
    if errors:
        raise UserErrors(errors)
    skip = tuple(section.skip_names)
    return Request(backend, mode, section.algorithm, tuple(rules), everything, skip, dict(section.backend_kwargs))


def rule_of(entry: Any, place: int, everything: Formats, errors: list[UserError]) -> Rule:
    """One entry of `quantize.layers`; what is wrong with it is added to the errors."""
    where = f"quantize.layers[{place}]"
    known = ("module_name", "weights", "activations")
    hint = "for example {module_name: 'backbone.*', weights: {dtype: int8}}; without a module_name it is for all layers"
    if not isinstance(entry, Mapping) or not isinstance(entry.get("module_name", ""), str):
        errors.append(SpecError("a rule is a table, and its module_name a text", where=where, hint=hint))
        return Rule(where, "*", NATIVE, NATIVE)
    for key in entry:
        if key not in known:
            errors.append(SpecError(f"a rule has no key {key!r}", where=where, hint=f"it has {', '.join(known)}"))
    formats = {}
    for key, default in (("weights", everything.weights), ("activations", everything.activations)):
        given = entry.get(key)
        given = given.get("dtype", default) if isinstance(given, Mapping) else default if given is None else given
        if str(given) not in DTYPES:
            what = f"there is no number format {given!r}"
            errors.append(SpecError(what, where=f"{where}.{key}", hint=f"there are {', '.join(DTYPES)}"))
            given = NATIVE
        formats[key] = DTYPES[str(given)]
    return Rule(where, entry.get("module_name", ""), formats["weights"], formats["activations"])


def check_formats(rule: Rule, support: Support, who: str, errors: list[UserError]) -> None:
    """Add what the backend cannot do with a rule to the errors."""
    parts = (("weights", rule.weights, support.weights), ("activations", rule.activations, support.activations))
    for part, asked, has in parts:
        if asked != NATIVE and asked not in has:
            hint = f"it has {', '.join(has)}" if has else "it quantizes weights only; another quantize.mode does more"
            errors.append(SpecError(f"{who} has no {asked} {part}", where=f"{rule.where}.{part}", hint=hint))
    if rule.weights == NATIVE != rule.activations:
        what = "activations alone are not quantized: the product would still be one of floats"
        errors.append(SpecError(what, where=rule.where, hint="name a dtype for the weights too"))
