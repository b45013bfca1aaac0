"""A results folder -> paths, resolved spec, status lines, seeds and logs of one run."""

from typing import TYPE_CHECKING, Any

__all__ = ["RunFolder", "StatusLog", "run_path", "seed_everything"]

if TYPE_CHECKING:
    from oneformer.runs.folder import RunFolder, run_path
    from oneformer.runs.seed import seed_everything
    from oneformer.runs.status import StatusLog

# Loaded when first used: commands that only write a text need none of them.
_HOMES = {"RunFolder": "folder", "StatusLog": "status", "run_path": "folder", "seed_everything": "seed"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"oneformer.runs.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'oneformer.runs' has no attribute {name!r}")
