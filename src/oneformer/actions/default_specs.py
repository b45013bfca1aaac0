"""An action's name -> a spec with every key it reads, each with its default and its meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneformer.errors import UserError
from oneformer.runs.atomic import write_text
from oneformer.spec import ExperimentSpec
from oneformer.spec.write import to_yaml

# Action -> its own section; the sections that every action shares stand before it.
SECTIONS = {
    "train": "train",
    "evaluate": "evaluate",
    "inference": "inference",
    "export": "export",
    "quantize": "quantize",
    "gen_trt_engine": "gen_trt_engine",
}
SHARED = ("preset", "model_name", "results_dir", "wandb", "model", "dataset")
_FORM = "oneformer default_specs [ACTION] [results_dir=DIR]"


@dataclass(frozen=True)
class DefaultSpecs:
    """The spec as text, and the file that holds it when one was asked for."""

    text: str
    path: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """The file's path, or the text when there is no file."""
        return {"path": str(self.path)} if self.path else {"text": self.text}

    def table(self) -> str:
        """What stands on stdout."""
        return f"wrote {self.path}" if self.path else self.text


def run(words: Sequence[str]) -> DefaultSpecs:
    """Make a spec of defaults.

    Args:
        words: an action's name (none: the keys of all actions) and `results_dir=DIR` (none: no file).

    Raises:
        UserError: another word, or a folder that cannot be written to.
    """
    action, folder = "", ""
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key == "results_dir" and value:
            folder = value
        elif word in SECTIONS and not action:
            action = word
        else:
            hint = f"{_FORM}; actions are {', '.join(SECTIONS)}"
            raise UserError(f"{word!r} is neither an action nor results_dir=DIR", where="default_specs", hint=hint)
    only = (*SHARED, SECTIONS[action]) if action else ()
    text = f"# Defaults of oneformer{' ' + action if action else ''}. Delete what you do not change.\n" + to_yaml(
        ExperimentSpec(), only=only
    )
    return DefaultSpecs(text, write_text(Path(folder) / "experiment.yaml", text) if folder else None)
