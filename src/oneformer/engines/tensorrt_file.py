"""A TensorRT engine file <-> what it says of itself: the description of its graph, and how and for what it was built.

An engine is kept as the library wrote it, so that other programs run it too; the text lies beside it as
`<file name>.json`. For an engine that another program built from our ONNX file, the `<stem>.json` of the export does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from oneformer.engines.about import About, parse
from oneformer.engines.graph import Dims
from oneformer.errors import CheckpointError, UserError
from oneformer.runs.encrypt import plain_size

KEY = "tensorrt"
"""Where our part stands in the description."""
Range = tuple[Dims, Dims, Dims]
"""Smallest, usual and largest sizes of one input."""


@dataclass(frozen=True)
class Built:
    """How an engine was built."""

    library: str
    """Package that built it and runs it: `tensorrt` or `tensorrt_rtx`."""
    version: str
    bytes: int
    """Size of the engine file."""
    inputs: dict[str, Dims]
    outputs: dict[str, Dims]
    profile: dict[str, Range]
    """Input -> the sizes it takes."""
    gpus: tuple[str, ...] = ()
    """Compute capabilities it was built for; empty leaves the choice to the library."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)


def beside(engine: Path) -> Path:
    """Where the description of an engine lies."""
    return engine.with_name(f"{engine.name}.json")


def description(about: About, built: Built) -> dict[str, Any]:
    """The content of the file beside the engine."""
    return {**about.to_dict(), KEY: built.to_dict()}


def read_description(engine: Path) -> tuple[About, Built | None]:
    """What lies beside an engine; None where another program built it.

    Raises:
        CheckpointError: there is nothing, it cannot be understood, or it is that of another file.
    """
    places = (beside(engine), engine.with_suffix(".json"))
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise CheckpointError(
            "an engine does not say what its classes and sizes are, and there is no description beside it",
            where=str(engine),
            hint=f"put the {places[0].name} that oneformer gen_trt_engine wrote beside it, or build it again",
        )
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        about, built = parse(stored), read_built(stored.get(KEY))
    except UserError as error:
        raise CheckpointError(f"the description of the engine is broken: {error.what}", where=str(file)) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the description of the engine is broken: {error!r}", where=str(file)) from error
    size = plain_size(engine)
    if built and built.bytes != size:
        raise CheckpointError(
            f"the file has {size} bytes, the engine that {file.name} describes has {built.bytes}",
            where=str(engine),
            hint="it was cut short or replaced; copy both files again, or build the engine again",
        )
    return about, built


def read_built(stored: Mapping[str, Any] | None) -> Built | None:
    """The inverse of `Built.to_dict`. Raises KeyError, TypeError or ValueError."""
    if stored is None:
        return None
    return Built(
        library=str(stored["library"]),
        version=str(stored["version"]),
        bytes=int(stored["bytes"]),
        inputs={name: dims(row) for name, row in stored["inputs"].items()},
        outputs={name: dims(row) for name, row in stored["outputs"].items()},
        profile={name: (dims(a), dims(b), dims(c)) for name, (a, b, c) in stored["profile"].items()},
        gpus=tuple(str(name) for name in stored["gpus"]),
    )


def dims(sizes: Any) -> Dims:
    """Sizes of which those that are open are None or negative."""
    return tuple(None if size is None or int(size) < 0 else int(size) for size in sizes)
