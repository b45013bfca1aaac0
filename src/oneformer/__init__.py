"""OneFormer: one model, one set of weights, for semantic, instance and panoptic segmentation.

The public names are loaded when first used, so that `import oneformer` costs nothing and needs no torch:
`load` opens any weight file and returns a predictor, `create_job` lets an action run in the background.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["UserError", "__version__", "create_job", "load"]

if TYPE_CHECKING:
    from oneformer.errors import UserError
    from oneformer.jobs.submit import create_job
    from oneformer.predict.predictor import load

_HOMES = {
    "load": "oneformer.predict.predictor",
    "create_job": "oneformer.jobs.submit",
    "UserError": "oneformer.errors",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'oneformer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
