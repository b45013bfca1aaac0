"""An action's name -> a spec with the keys that concern it, each with its default and its meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneformer.errors import UserError
from oneformer.schema.inputs import ACTIONS
from oneformer.schema.templates import template

_FORM = "oneformer default_specs [ACTION] [-e SPEC] [results_dir=DIR] [section.key=value ...]"


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


def run(words: Sequence[str], experiment_spec: str | None = None, *, minimal: bool = False) -> DefaultSpecs:
    """Make a spec of defaults, or of the values that a spec and overrides give.

    Args:
        words: an action's name (none: the keys of all actions), `results_dir=DIR` (none: no file) and overrides.
        experiment_spec: YAML file whose values take the place of the defaults.
        minimal: write only what the action reads and what is changed most.

    Raises:
        UserError: another word, a wrong spec, or a folder that cannot be written to.
    """
    action, folder, overrides = "", "", []
    for word in words:
        key, equals, value = word.partition("=")
        if key == "results_dir" and value:
            folder = value
        elif equals or word.startswith("~"):
            overrides.append(word)
        elif word in ACTIONS and not action:
            action = word
        else:
            hint = f"{_FORM}; actions are {', '.join(ACTIONS)}"
            raise UserError(f"{word!r} is neither an action nor results_dir=DIR", where="default_specs", hint=hint)
    if minimal and not action:
        what = "the minimal form is that of one action"
        raise UserError(what, where="default_specs", hint=f"name one of {', '.join(ACTIONS)}")
    spec = None
    if experiment_spec or overrides:
        from oneformer.spec.load import load_spec

        spec = load_spec(experiment_spec, overrides, action=action or "default_specs")
    text = template(action, minimal=minimal, spec=spec)
    if not folder:
        return DefaultSpecs(text)
    from oneformer.runs.atomic import write_text

    return DefaultSpecs(text, write_text(Path(folder) / "experiment.yaml", text))
