"""What is installed here -> one face for both TensorRT libraries: TensorRT from its vendor, and TensorRT-RTX.

Their Python packages have the same classes, so everything is written once; where they differ, `Library.rtx` decides.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from oneformer.errors import UserError

log = logging.getLogger(__name__)

TOLD = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
"""Name of the Python package -> name for people; `auto` takes the first that is installed."""
INSTALL = {
    "tensorrt": "pip install tensorrt (from NVIDIA's own index, 10 or newer)",
    "tensorrt_rtx": 'pip install "oneformer[tensorrt]"',
}
OLDEST = 10  # before it precision could not be taken from the graph of every network
KEPT_LINES = 20  # of what a library said; its own last words explain a failure


@dataclass(frozen=True)
class Library:
    """One installed library."""

    name: str
    """Name of the package: `tensorrt` or `tensorrt_rtx`."""
    module: Any
    version: str

    @property
    def rtx(self) -> bool:
        """Whether it is TensorRT-RTX: builds for named GPUs without having one, finishes kernels where they run."""
        return self.name == "tensorrt_rtx"

    @property
    def told(self) -> str:
        """Name and version for people."""
        return f"{TOLD[self.name]} {self.version}"

    def listener(self, *, verbose: bool = False) -> tuple[Any, Said]:
        """A logger as the library wants it, and what it has heard; with `verbose` everything also goes to our log."""
        said = Said()
        levels = self.module.ILogger

        class Listener(levels):  # type: ignore[misc, valid-type]
            def __init__(self) -> None:
                levels.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                bad = int(severity) <= int(levels.ERROR)
                if bad:
                    said.add(message)
                level = logging.ERROR if bad else logging.INFO
                log.log(level if verbose else logging.DEBUG, "%s: %s", TOLD[self_name], message)

        self_name = self.name
        return Listener(), said


@dataclass
class Said:
    """The errors that a library has told its logger."""

    lines: list[str] = field(default_factory=list)

    def add(self, message: str) -> None:
        """Keep one of them."""
        self.lines = [*self.lines, message][-KEPT_LINES:]

    @property
    def why(self) -> str:
        """The first of them on one line, or that there was none."""
        return " ".join(self.lines[0].split())[:300] if self.lines else "the library gives no reason"


def find_library(wanted: str = "auto", *, needed_for: str) -> Library:
    """An installed library that can be imported.

    Args:
        wanted: `tensorrt`, `tensorrt_rtx`, or `auto`: the first that is there.
        needed_for: what cannot be done without it.

    Raises:
        UserError: none is installed, or one that is too old.
    """
    names = TOLD if wanted == "auto" else (wanted,)
    broken = ""
    for name in names:
        try:
            module = import_module(name)
        except ModuleNotFoundError as error:
            broken = broken or ("" if error.name == name else str(error))
        except (ImportError, OSError) as error:  # the package is there, a shared library that it loads is not
            broken = broken or str(error)
        else:
            return checked(Library(name, module, str(module.__version__)))
    told = " or ".join(TOLD[name] for name in names)
    state = f"cannot be loaded here ({broken})" if broken else "is not installed"
    hint = (
        f"{' or '.join(INSTALL[name] for name in names)}; without it, the ONNX file runs in ONNX Runtime and OpenVINO"
    )
    raise UserError(f"{needed_for} needs {told}, which {state}", hint=hint)


def checked(library: Library) -> Library:
    """The library when it is new enough. Raises UserError."""
    first = library.version.partition(".")[0]
    if not library.rtx and first.isdecimal() and int(first) < OLDEST:
        raise UserError(
            f"{library.told} is too old: it cannot take the precision of every product from the graph",
            hint=INSTALL[library.name],
        )
    return library
