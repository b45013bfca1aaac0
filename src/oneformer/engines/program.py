"""A `.pt2` file of torch.export -> an engine that runs it with PyTorch, without the source of the network."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oneformer.engines.about import INPUTS, OUTPUTS, read_about
from oneformer.engines.base import Options
from oneformer.engines.graph import Dims, GraphEngine, Ports, checked_names
from oneformer.engines.onnxruntime import first_line
from oneformer.engines.program_check import description
from oneformer.engines.torch import chosen_device
from oneformer.errors import CheckpointError, UserError
from oneformer.model.quantized import tells_graphs
from oneformer.runs.encrypt import is_encrypted, opened


class ProgramEngine(GraphEngine):
    """An exported program. Made by `open`."""

    def __init__(self, path: Path, program: Any, *, embedded: str | None, device: torch.device) -> None:
        found = checked_names(path, ports(program))
        super().__init__(path, read_about(path, embedded), found)
        # The guards of the trace are source code; `check_size` says the same in words.
        self.module = program.module(check_guards=False)
        self._device = device

    @classmethod
    def open(cls, path: Path, options: Options) -> ProgramEngine:
        """Read the file; nothing in it is run that is not on the short list of `program_check`.

        Raises:
            UserError: the precision or device is none that the program has.
            CheckpointError: the file is broken, unsafe or of another model, or of another version of torch.
        """
        if options.precision not in ("auto", "fp32"):
            raise UserError(
                f"a program computes in fp32, not in {options.precision}",
                where=str(path),
                hint="open the checkpoint itself for bf16 and fp16",
            )
        device = chosen_device(options.device)
        embedded = description(path)
        tells_graphs()  # makes the operators known that files with quantized weights have
        try:
            with opened(path) as file:
                program = torch.export.load(BytesIO(file.read()) if is_encrypted(path) else path)
            if device.type != "cpu":
                from torch.export.passes import move_to_device_pass

                program = move_to_device_pass(program, str(device))
        except Exception as error:  # torch raises what its version finds first
            what = f"torch {torch.__version__} cannot read it: {error!r}"[:300]
            raise CheckpointError(what, where=str(path), hint="export it again with this version of torch") from error
        return cls(path, program, embedded=embedded, device=device)

    @property
    def device(self) -> str:
        return str(self._device)

    @property
    def precision(self) -> str:
        return "fp32"

    @torch.inference_mode()
    def run(self, images: Tensor, task_tokens: Tensor) -> tuple[Tensor, Tensor]:
        try:
            classes, masks = self.module(images.to(self._device), task_tokens.to(self._device))
        except RuntimeError as error:  # a size below what the trace allows, or no memory
            raise UserError(f"the program failed: {first_line(error)}", where=str(self.path), exit_code=1) from error
        return classes, masks


def ports(program: Any) -> Ports:
    """Names and sizes of a program's inputs and outputs; outputs have no names in it, their order is fixed."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature
    taken = {name: dims(values[name]) for name in signature.user_inputs}
    given = [dims(values[name]) for name in signature.user_outputs]
    names = OUTPUTS if len(given) == len(OUTPUTS) and set(taken) == set(INPUTS) else map(str, range(len(given)))
    return Ports(taken, dict(zip(names, given, strict=True)))


def dims(value: Any) -> Dims:
    """The shape of a traced tensor, in which open sizes are symbols."""
    return tuple(size if isinstance(size, int) else None for size in value.shape)
