"""Points that are good -> a new one by differential evolution, or one of them changed a little for a population.

Sources: Awad et al., "DEHB" (2021), section 4: mutation rand/1 and binomial crossover with its factors, over ordered
numbers between 0 and 1 for every kind of key. Jaderberg et al., "Population Based Training of Neural Networks" (2017),
section 4.1.1, for the factors of `changed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from oneformer.automl.dimension import Dimension
from oneformer.automl.space import Space

MUTATION, CROSSOVER = 0.5, 0.5
PARENTS = 10  # best points that a new one descends from
FACTORS = (0.8, 1.2)


def descendant(space: Space, best: Sequence[Mapping[str, Any]], rng: np.random.Generator) -> dict[str, Any]:
    """A point between the best ones (three at least, best first), with a mutation."""
    places = np.array([[d.place_of(point[d.key]) for d in space.dimensions] for point in best[:PARENTS]])  # (N, D)
    target = places[rng.integers(len(places))]
    one, two, three = places[rng.permutation(len(places))[:3]]
    mutant = one + MUTATION * (two - three)
    outside = (mutant < 0) | (mutant > 1)
    mutant = np.where(outside, rng.random(len(mutant)), mutant)
    crossed = rng.random(len(mutant)) < CROSSOVER
    crossed[rng.integers(len(mutant))] = True  # one key at least
    child = iter(np.where(crossed, mutant, target))
    return space.draw(lambda: min(float(next(child)), 1 - 1e-12))


def changed(space: Space, point: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """A point with every number a fifth smaller or larger, and every choice drawn anew at one time in five."""
    return space.settled({d.key: _changed(d, point[d.key], rng) for d in space.dimensions})


def _changed(dimension: Dimension, value: Any, rng: np.random.Generator) -> Any:
    factor, drawn = FACTORS[int(rng.integers(2))], float(rng.random())
    if dimension.kind == "choice":
        return dimension.at(drawn) if rng.random() < 0.2 else value
    if value == 0:  # no factor leads away from there
        return dimension.at(drawn)
    other = dimension.realised(value * factor)
    if dimension.kind == "int" and other == value:
        other = dimension.realised(value + (1 if factor > 1 else -1))
    return other
