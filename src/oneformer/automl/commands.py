"""A spec -> what the commands of the group `automl` show and do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oneformer.automl.space import Space, space_of

if TYPE_CHECKING:
    from oneformer.automl.dimension import Dimension
    from oneformer.spec import ExperimentSpec

DRAWS = 10_000
PERCENTILES = (10, 50, 90)


@dataclass(frozen=True)
class SpaceShown:
    """The searched keys and what random draws of them look like."""

    space: Space
    draws: Mapping[str, list[Any]]

    def to_dict(self) -> dict[str, Any]:
        """Every key with its range, percentiles or shares of its draws, and what was left out."""
        keys = {d.key: {**d.to_dict(), "draws": self._draws(d)} for d in self.space.dimensions}
        return {"searched": keys, "left_out": dict(self.space.left_out)}

    def _draws(self, dimension: Dimension) -> dict[str, float]:
        drawn = self.draws[dimension.key]
        if dimension.kind == "choice":
            return {str(choice): drawn.count(choice) / len(drawn) for choice in dimension.choices}
        ordered = sorted(drawn)
        return {f"P{p}": ordered[(len(ordered) - 1) * p // 100] for p in PERCENTILES}

    def table(self) -> str:
        """One line for each key, then what was left out and why."""
        from oneformer.report.tables import align

        rows = []
        for d in self.space.dimensions:
            draws = self._draws(d)
            shares = ", ".join(f"{name} {share:.0%}" for name, share in draws.items()) if d.kind == "choice" else ""
            numbers = [f"{draws[f'P{p}']:.4g}" for p in PERCENTILES] if d.kind != "choice" else ["", "", ""]
            limits = [f"{d.low:.4g}", f"{d.high:.4g}"] if d.kind != "choice" else [shares, ""]
            rows.append((d.key, d.scale, _shown(d.own), *limits, *numbers))
        head = ("key", "scale", "own value", "lowest", "highest", *(f"P{p}" for p in PERCENTILES))
        lines = [align(head, rows, text_columns=2)]
        if self.space.left_out:
            lines += ["", *(f"not searched: {key} ({why})" for key, why in self.space.left_out.items())]
        return "\n".join(lines)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def space(spec: ExperimentSpec, *, dry_run: bool = False) -> SpaceShown:  # noqa: ARG001  # nothing is read or written
    """Every key that would be searched, with percentiles of 10 000 random draws."""
    import numpy as np

    found = space_of(spec)
    places = np.random.default_rng(0).random((len(found.dimensions), DRAWS))
    draws = {d.key: [d.at(float(p)) for p in row] for d, row in zip(found.dimensions, places, strict=True)}
    return SpaceShown(found, draws)
