"""A checkpoint -> an engine that runs the PyTorch network itself."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from oneformer.data.labels import LabelMap
from oneformer.data.tokens import task_tokenizer
from oneformer.engines.base import EngineInfo, Options
from oneformer.errors import CheckpointError, UserError
from oneformer.model.oneformer import OneFormer, build_model
from oneformer.model.quantized import Quantized, quantize_layers
from oneformer.model.weights.numbers import check_numbers
from oneformer.model.weights.settle import read_model
from oneformer.segments.types import TASKS, Outputs

PRECISIONS: dict[str, torch.dtype | None] = {
    "fp32": None, "32": None, "32-true": None,
    "bf16": torch.bfloat16, "bf16-mixed": torch.bfloat16,
    "fp16": torch.float16, "16": torch.float16, "16-mixed": torch.float16,
}  # fmt: skip


class TorchEngine:
    """The network in PyTorch, in evaluation mode.

    Args:
        model: the network; it is moved to the device.
        labels: its classes.
        info: how images are prepared for it.
        precision: `fp32`, `bf16` or `fp16` (weights stay float32, products are rounded), or `auto`: bf16 where the
            device computes in it, else fp32.
        device: `cpu`, `cuda`, `cuda:1`..., or `auto`: a GPU when there is one.

    Raises:
        UserError: the precision or device does not exist here.
    """

    def __init__(
        self, model: OneFormer, labels: LabelMap, info: EngineInfo, *, precision: str = "auto", device: str = "auto"
    ) -> None:
        self.device = chosen_device(device)
        self.dtype = chosen_dtype(precision, self.device)
        self.labels = labels
        self.info = info
        self.quantized: dict[str, str] = {}
        """Of a quantized file: backend, mode and algorithm."""
        self.model = model.to(self.device).eval()
        tokenizer = task_tokenizer(info.model.text_encoder)
        self.task_tokens = {task: tokenizer.task_tokens(task).to(self.device) for task in TASKS}  # float32 (T,) each

    @classmethod
    def from_checkpoint(cls, path: str | Path, *, precision: str = "auto", device: str = "auto") -> TorchEngine:
        """Open a checkpoint of `oneformer train`, averaged weights where it has them, or a Hugging Face folder.

        Raises:
            CheckpointError: the file is missing, broken, unsafe, or its weights are not those of its own description.
            UserError: the precision or device does not exist here.
        """
        chosen_dtype(precision, chosen_device(device))  # a wrong request is refused before a large file is read
        found = read_model(path)
        with torch.device("meta"):  # the weights of the file take the place of these, nothing is initialised in vain
            model = build_model(found.model, text_branch=False)
        state = {name: value for name, value in found.state_dict.items() if not name.startswith("text.")}
        check_numbers(state, where=str(path))
        take_weights(model, state, where=str(path))
        try:
            quantize_layers(model, found.quantized.layers)
        except ValueError as error:
            raise CheckpointError(f"its quantized layers are not its network's: {error}", where=str(path)) from error
        info = EngineInfo(
            pixel_mean=found.pixel_mean,
            pixel_std=found.pixel_std,
            test_min_size=found.test_min_size,
            test_max_size=found.test_max_size,
            model=found.model,
            epoch=found.epoch,
            step=found.step,
            metrics=found.metrics,
        )
        engine = cls(model, found.labels, info, precision=precision, device=device)
        engine.quantized = found.quantized.about
        return engine

    @classmethod
    def open(cls, path: Path, options: Options) -> TorchEngine:
        """`from_checkpoint` with the options that all engines share; `threads` holds for the whole process."""
        if options.threads:
            torch.set_num_threads(options.threads)
        return cls.from_checkpoint(path, precision=options.precision, device=options.device)

    def __repr__(self) -> str:
        small = sum(isinstance(layer, Quantized) for layer in self.model.modules())
        more = f", {small} layers quantized" if small else ""
        return f"TorchEngine({self.info.model.backbone.name}, {self.device}, {self.precision}{more})"

    @property
    def precision(self) -> str:
        """`fp32`, `bf16` or `fp16`."""
        return {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.dtype]

    @torch.inference_mode()
    def outputs(self, images: Tensor, tasks: Sequence[str]) -> dict[str, Outputs]:
        """Normalised float32 images (B, 3, H, W), any H and W -> outputs by task, float32 on the engine's device.

        The image features are computed once, whatever the number of tasks.
        """
        found = {}
        with self._autocast():
            features = self.model.features(images.to(self.device))
            memory = self.model.memory(features) if len(tasks) > 1 else None
            for task in tasks:
                tokens = self.task_tokens[task].expand(images.shape[0], -1)  # (B, T)
                decoded = self.model.decode(features, tokens, auxiliary=False, memory=memory)
                found[task] = Outputs(decoded.class_logits.float(), decoded.mask_logits.float())
        return found

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)


def take_weights(model: OneFormer, state: dict[str, Tensor], *, where: str) -> None:
    """Give a network without memory (device `meta`) its parameters. Raises CheckpointError when they do not fit."""
    own = model.state_dict()
    missing, extra = own.keys() - state.keys(), state.keys() - own.keys()
    shapes = sorted(n for n in own.keys() & state.keys() if own[n].shape != state[n].shape)
    if missing or extra or shapes:
        first = (sorted(missing) + sorted(extra) + shapes)[0]
        counts = f"{len(missing)} are missing, {len(extra)} unknown, {len(shapes)} of another shape, {first} for one"
        raise CheckpointError(f"the weights are not those of the network it describes: {counts}", where=where)
    model.load_state_dict({n: v.float() if v.is_floating_point() else v for n, v in state.items()}, assign=True)
    assert not any(t.is_meta for t in [*model.parameters(), *model.buffers()])


def chosen_device(device: str) -> torch.device:
    """The device of that name. Raises UserError when it is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UserError(f"there is no device {device!r}", hint="use auto, cpu, cuda or cuda:N") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= (torch.cuda.device_count() if torch.cuda.is_available() else 0):
        raise UserError(f"there is no GPU for {device!r} that torch can use", hint="use device=auto or device=cpu")
    return chosen


def chosen_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The number format of the products, None for float32. Raises UserError."""
    name = str(precision).lower()
    if name == "auto":
        return torch.bfloat16 if bf16_is_fast(device) else None
    if name not in PRECISIONS:
        raise UserError(f"there is no precision {precision!r}", hint="use auto, fp32, bf16 or fp16")
    if PRECISIONS[name] == torch.float16 and device.type == "cpu":
        raise UserError("fp16 needs a GPU", hint="use fp32, or bf16 on a CPU with AMX or AVX512-BF16")
    return PRECISIONS[name]


def bf16_is_fast(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16; a CPU without them was 50 times slower than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    able: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # torch before 2.9 cannot tell
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))
