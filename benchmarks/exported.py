"""Both libraries' networks as ONNX in OpenVINO and ONNX Runtime: time of ours beside transformers', as a ratio.

    python benchmarks/exported.py [--size 640] [--rounds 5] [--one-thread] [--keep FOLDER]

Swin-T with equal weights, one image. Ours is written by `oneformer export`'s own code. transformers' network has no
exporter; its PyTorch code is written by torch's, after the one line that no exporter takes (opening the rows of a mask
that are closed everywhere) is computed in another way with the same result. Writing both takes some minutes; `--keep`
keeps the files for the next time. The last row is what a user gains who leaves PyTorch: our file in OpenVINO beside
transformers in PyTorch, both in bfloat16 and compared with transformers in float32.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from _command import parser, run
from _measure import in_turn
from _network import CLASSES, picture, swin_t, twins
from _report import Row
from forward import theirs
from oneformer.data.labels import LabelMap
from oneformer.data.tokens import Tokenizer
from oneformer.engines.about import INPUTS, OUTPUTS, About
from oneformer.engines.base import EngineInfo
from oneformer.engines.onnxruntime import session_options
from oneformer.engines.openvino import imported
from oneformer.export.files import write_graph
from oneformer.spec.export import ExportSpec
from oneformer.spec.model import ModelSpec

Runner = Callable[[], tuple[np.ndarray, np.ndarray]]
OPENVINO = {"fp32": "f32", "bf16": "bf16"}
EAGER_SIZE = 512  # pixels of the images that both take in PyTorch, see forward.py


def write_ours(model: Any, spec: ModelSpec, size: int, path: Path) -> None:
    """Our network through our exporter."""
    names = tuple(f"class {i}" for i in range(CLASSES))
    labels = LabelMap(names, (True,) * CLASSES, ((9, 9, 9),) * CLASSES, tuple(range(CLASSES)))
    info = EngineInfo((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), size, size, spec)
    about = About(labels, info, {"panoptic": Tokenizer().task_tokens("panoptic").tolist()})
    section = ExportSpec(input_height=size, input_width=size, batch_size=1)
    write_graph(model, about, section, path, simplify=True)


class Theirs(nn.Module):
    """transformers' network with two inputs and two outputs, as ours."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, task_tokens: Tensor) -> tuple[Tensor, Tensor]:
        out = self.model(images, task_tokens, output_auxiliary_logits=False)
        return out.class_queries_logits, out.masks_queries_logits


class Rows(tuple[Tensor]):
    """In the place of the indices of the rows where a condition holds: the condition itself."""


class WithoutIndices(TorchFunctionMode):
    """`mask[torch.where(rows)] = False` as `mask &= ~rows`, which exporters take."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.where and len(args) == 1:
            return Rows(args)
        if func is Tensor.__setitem__ and isinstance(args[1], Rows):
            return args[0].logical_and_(~args[1][0].unsqueeze(-1))
        return func(*args, **(kwargs or {}))


def all_true(values: Any) -> Any:
    """An operator that torch's exporter does not know."""
    from onnxscript import opset18 as op

    return op.Cast(op.ReduceMin(op.Cast(values, to=7), keepdims=0), to=9)  # whole numbers, and back


def write_theirs(model: Any, size: int, path: Path) -> None:
    """transformers' network through torch's exporter, with its own tidying."""
    example = (torch.zeros(1, 3, size, size), torch.zeros(1, 77))
    # Of the attention kernels only this one has a result whose layout torch's exporter understands.
    with WithoutIndices(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        program = torch.export.export(Theirs(model).eval(), example, strict=False)
        made = torch.onnx.export(
            program, dynamo=True, input_names=list(INPUTS), output_names=list(OUTPUTS), opset_version=18,
            optimize=True, external_data=False, verbose=False,
            custom_translation_table={torch.ops.aten._is_all_true.default: all_true},
        )  # fmt: skip
    made.save(path)


def in_openvino(path: Path, feed: dict[str, np.ndarray], precision: str) -> Runner:
    """The file compiled for the CPU."""
    settings = {"INFERENCE_PRECISION_HINT": OPENVINO[precision], "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": str(torch.get_num_threads())}  # fmt: skip
    compiled = imported(needed_for="this benchmark").Core().compile_model(str(path), "CPU", settings)

    def go() -> tuple[np.ndarray, np.ndarray]:
        found = compiled(feed)
        return found[OUTPUTS[0]].copy(), found[OUTPUTS[1]].copy()

    return go


def in_onnxruntime(path: Path, feed: dict[str, np.ndarray]) -> Runner:
    """The file in a session on the CPU."""
    import onnxruntime

    settings = session_options(torch.get_num_threads())
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    return lambda: tuple(session.run(list(OUTPUTS), feed))


def agreement(one: Runner, other: Runner) -> str:
    """How many queries have the same class, and how many mask logits the same sign."""
    (classes, masks), (other_classes, other_masks) = one(), other()
    same_class = np.mean(classes.argmax(-1) == other_classes.argmax(-1))
    return f"{same_class:.1%} of classes, {np.mean((masks > 0) == (other_masks > 0)):.1%} of signs"


def measure(options: argparse.Namespace) -> list[Row]:
    """Every runtime and precision."""
    spec = swin_t()
    model, peer = twins(spec)
    with tempfile.TemporaryDirectory() as folder:
        kept = options.keep or Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        files = {side: kept / f"{side}-{options.size}.onnx" for side in ("ours", "theirs")}
        if not all(file.is_file() for file in files.values()):
            write_ours(model, spec, options.size, files["ours"])
            write_theirs(peer, options.size, files["theirs"])
        small = kept / f"ours-{EAGER_SIZE}.onnx"
        if not small.is_file():
            write_ours(model, spec, EAGER_SIZE, small)
        feed = feed_of(options.size)
        sides: dict[str, Runner] = {}
        for side, file in files.items():
            for precision in OPENVINO:
                sides[f"{side} OpenVINO {precision}"] = in_openvino(file, feed, precision)
            sides[f"{side} ONNX Runtime fp32"] = in_onnxruntime(file, feed)
        times = in_turn(sides, rounds=options.rounds)
        rows = [
            Row(
                f"Swin-T, {options.size}x{options.size}, {name}",
                times[f"ours {name}"],
                times[f"theirs {name}"],
                note=f"equal to transformers': {agreement(sides[f'ours {name}'], sides[f'theirs {name}'])}",
            )
            for name in ("OpenVINO fp32", "OpenVINO bf16", "ONNX Runtime fp32")
        ]
        return [*rows, beside_pytorch(small, peer, options.rounds)]


def feed_of(size: int) -> dict[str, np.ndarray]:
    """A photo and a task."""
    tokens = Tokenizer().task_tokens("panoptic")[None]
    return dict(zip(INPUTS, (picture(size, size).numpy(), tokens.numpy()), strict=True))


def beside_pytorch(ours: Path, peer: Any, rounds: int) -> Row:
    """Our file in OpenVINO and transformers in PyTorch, both in bfloat16."""
    image, tokens = picture(EAGER_SIZE, EAGER_SIZE), Tokenizer().task_tokens("panoptic")

    def eager(dtype: torch.dtype) -> Runner:
        go = theirs(peer, image, tokens, dtype)
        return torch.inference_mode()(lambda: tuple(logits.float().numpy() for logits in go()))

    sides = {"ours": in_openvino(ours, feed_of(EAGER_SIZE), "bf16"), "theirs": eager(torch.bfloat16)}
    times = in_turn(sides, rounds=rounds)
    work = f"Swin-T, {EAGER_SIZE}x{EAGER_SIZE}, OpenVINO bf16"
    note = f"equal to transformers' in fp32: {agreement(sides['ours'], eager(torch.float32))}"
    return Row(work, times["ours"], times["theirs"], "transformers in PyTorch, bf16", note=note)


if __name__ == "__main__":
    made = parser(__doc__, rounds=5)
    made.add_argument("--size", type=int, default=640)
    made.add_argument("--keep", type=Path, help="where the files are, or go")
    run(measure, made.parse_args())
