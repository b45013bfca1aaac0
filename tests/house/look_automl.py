"""A spec -> what a search would make of it."""

from __future__ import annotations

from typing import Any

from house.world import World
from oneformer.automl.space import space_of
from oneformer.spec import ExperimentSpec


def searched(spec: ExperimentSpec, _: World) -> dict[str, Any]:
    """The searched keys with their ranges."""
    return space_of(spec).to_dict()
