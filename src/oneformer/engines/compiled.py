"""A checkpoint -> an engine that runs the PyTorch network through torch.compile: slow to start, on GPUs faster then."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from oneformer.engines.base import Options
from oneformer.engines.torch import TorchEngine
from oneformer.errors import UserError

COMPILERS = ("g++", "clang++", "cl")


class CompiledEngine(TorchEngine):
    """`TorchEngine` with features and decoder compiled at the first call of each shape."""

    @classmethod
    def open(cls, path: Path, options: Options) -> CompiledEngine:
        """Like `TorchEngine.open`.

        Raises:
            UserError: on the CPU, where torch finds no C++ compiler; and what `TorchEngine` raises.
        """
        if options.threads:
            torch.set_num_threads(options.threads)
        engine = cls.from_checkpoint(path, precision=options.precision, device=options.device)
        assert isinstance(engine, CompiledEngine)
        if engine.device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", ""), *COMPILERS))):
            hint = "install g++, name one in the environment variable CXX, or use engine=torch"
            raise UserError("torch.compile needs a C++ compiler on the CPU, and there is none", hint=hint)
        engine.model.features = torch.compile(engine.model.features)  # type: ignore[method-assign]
        engine.model.memory = torch.compile(engine.model.memory)  # type: ignore[method-assign]
        engine.model.decode = torch.compile(engine.model.decode)  # type: ignore[method-assign]
        return engine

    def __repr__(self) -> str:
        return super().__repr__().replace("TorchEngine", "CompiledEngine")
