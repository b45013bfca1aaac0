"""Rows of tried values and how good each is -> the values of the next trial by TPE (Bergstra et al. 2011, section 4).

The best trials give one density, the others another; of points drawn from the first, the one with the greatest ratio of
the two is proposed. The densities, their draws and all constants are Optuna's, and so are the proposals
(tests/automl/test_models.py). But Optuna goes through its trials one by one, and through all kernels anew for each
point and key, which takes most of the time of a proposal; here trials are rows of an array, and kernels one product.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator, _ParzenEstimatorParameters
from optuna.samplers._tpe.sampler import default_gamma, default_weights
from scipy.special import ndtr
from typing_extensions import override

CANDIDATES = 24  # as many as Optuna draws, and Hyperopt before it
LEAST = 1e-9  # of a kernel's mass between the bounds: below it, differences of the distribution function say little
FAINT = -700.0  # logarithm of a kernel's share of the greatest one; below it, exponentials take much longer
DENSITY = _ParzenEstimatorParameters(
    prior_weight=1.0, consider_magic_clip=True, consider_endpoints=False, weights=default_weights, multivariate=True
)
Numbers = NDArray[np.float64]


def proposal(
    space: Mapping[str, BaseDistribution], rows: Numbers, values: Numbers, broken: NDArray[np.bool_], *, seed: int
) -> dict[str, Any]:
    """The next point; more of a value is better.

    Args:
        space: key -> how it is drawn.
        rows: (trials, keys), in the order of `space`, as Optuna computes with them.
        values: (trials,), NaN of those that are under way.
        broken: (trials,), which of them cannot be computed at all.
        seed: of the draws.
    """
    if not space:
        return {}
    best = split(values, broken)
    good, others = _density(space, rows[best]), _density(space, rows[~best])
    drawn = good.sample(np.random.RandomState(seed), CANDIDATES)
    place = int(np.argmax(good.log_pdf(drawn) - others.log_pdf(drawn)))
    return {key: kind.to_external_repr(drawn[key][place].item()) for key, kind in space.items()}


def split(values: Numbers, broken: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which trials are the best: a tenth of those that have ended, 25 at most; broken ones after all others."""
    ended = np.flatnonzero(~np.isnan(values))
    worth = np.where(broken[ended], 0.0, values[ended])  # all broken ones are alike
    ranked = ended[np.lexsort((-worth, broken[ended]))]
    chosen = np.zeros(len(values), dtype=bool)
    chosen[ranked[: default_gamma(len(ended))]] = True
    return chosen


def _density(space: Mapping[str, BaseDistribution], rows: Numbers) -> _Density:
    seen = {
        key: column.astype(np.int64) if isinstance(kind, CategoricalDistribution) else column
        for (key, kind), column in zip(space.items(), rows.T.copy(), strict=True)
    }
    return _Density(seen, dict(space), DENSITY)


class _Density(_ParzenEstimator):
    """Optuna's density of some trials; its logarithm is found faster."""

    @override
    def log_pdf(self, samples_dict: dict[str, Numbers]) -> Numbers:
        points, mixture = self._transform(samples_dict), self._mixture_distribution
        kernels = np.log(mixture.weights)[None].repeat(len(points), axis=0)  # (points, kernels)
        smooth: list[tuple[Numbers, Any]] = []
        parts: list[Any] = mixture.distributions
        for kind, column, one in zip(self._search_space.values(), points.T, parts, strict=True):
            if isinstance(kind, CategoricalDistribution):
                kernels += np.log(one.weights).T[column.astype(np.int64)]
                continue
            mass = _mass(one, one.adapted_low, one.adapted_high)  # (kernels,)
            if mass.min() < LEAST:
                return super().log_pdf(samples_dict)
            kernels -= np.log(mass)
            if one.step:
                kernels += _log_whole(one, column)
            else:
                smooth.append((np.log(column) if one.is_log else column, one))
        if smooth:
            _add_smooth(kernels, smooth)
        most = kernels.max(axis=1, keepdims=True)
        kernels -= most  # in place, as all that follows: new memory of this size takes longer than the arithmetic
        np.exp(np.maximum(kernels, FAINT, out=kernels), out=kernels)
        return np.asarray(np.log(kernels.sum(axis=1)) + most[:, 0])


def _mass(one: Any, low: Any, high: Any) -> Numbers:
    """How much of each kernel lies between two values."""
    return np.asarray(ndtr((high - one.mu) / one.sigma) - ndtr((low - one.mu) / one.sigma))


def _log_whole(one: Any, column: Numbers) -> Numbers:
    """Logarithms of the kernels' shares of whole numbers (points, kernels); -inf far outside, where others count."""
    values, places = np.unique(column, return_inverse=True)
    low, high = values[:, None] - one.step / 2, values[:, None] + one.step / 2
    with np.errstate(divide="ignore"):
        shares = np.log(_mass(one, np.log(low), np.log(high)) if one.is_log else _mass(one, low, high))
    return np.asarray(shares[places])


def _add_smooth(kernels: Numbers, keys: list[tuple[Numbers, Any]]) -> None:
    """Add the logarithms of normal densities, all keys in one product."""
    x = np.stack([column for column, _ in keys], axis=1)  # (points, keys)
    mean, deviation = (np.stack([getattr(one, name) for _, one in keys], axis=1) for name in ("mu", "sigma"))
    low, high = (np.array([getattr(one, f"adapted_{name}") for _, one in keys]) for name in ("low", "high"))
    width = high - low  # from bound to bound is 0..1, so that squares of large numbers do not cancel each other
    x, mean, precision = (x - low) / width, (mean - low) / width, (width / deviation) ** 2
    kernels += np.concatenate((x, x**2), axis=1) @ np.concatenate((mean * precision, precision / -2), axis=1).T
    kernels -= (mean**2 * precision / 2 + np.log(deviation * math.sqrt(2 * math.pi))).sum(axis=1)
