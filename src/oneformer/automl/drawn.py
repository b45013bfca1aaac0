"""A key of the spec, its search mark and the wish of the user -> how it is drawn."""

from __future__ import annotations

import math
from types import NoneType
from typing import Any, Literal, cast, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

from oneformer.automl.custom import Wish
from oneformer.automl.dimension import DIGITS, SIGNS, Dimension, limited
from oneformer.errors import SpecError
from oneformer.spec import ExperimentSpec
from oneformer.spec.check import alternatives, parts
from oneformer.spec.field import Search
from oneformer.spec.tree import Leaf, get

FAR = 10  # times that a range may be widened on the way


def where_of(wish: Wish | None) -> str:
    """The place that a wish stands at."""
    return wish.where if wish else "automl.parameters"


def dimension_of(spec: ExperimentSpec, leaf: Leaf, mark: Search | None, wish: Wish | None) -> Dimension:
    """How one key is drawn: by the user's range, else by its mark, else all choices of a switch or list of choices.

    Raises:
        SpecError: there is no range, or the range does not suit the key.
    """
    own = get(spec, leaf.key)
    ties = mark.ties if mark else ()
    if wish and wish.options:
        return _choice(leaf.key, own, wish.options, wish.weights, ties)
    kind = next((k for m in alternatives(leaf.annotation) if (k := parts(m)[0]) is not NoneType), None)
    ranged = wish is not None and wish.ranged
    if not ranged and mark and mark.choices:
        return _choice(leaf.key, own, mark.choices, (), ties)
    if not ranged and kind is bool:
        return _choice(leaf.key, own, (False, True), (), ties)
    if not ranged and get_origin(kind) is Literal:
        return _choice(leaf.key, own, get_args(kind), (), ties)
    if kind not in (int, float) or isinstance(own, list | dict):
        hint = "give it valid_options in automl.ranges"
        raise SpecError(f"{leaf.key} is no number", where=where_of(wish), hint=hint)
    low, high, log = _range(spec, leaf, mark, wish)
    low, high = _conditioned(leaf.key, low, high, wish, whole=kind is int)
    if own is None:
        own = low
    if wish and wish.sign == "^":
        return _choice(leaf.key, own, _powers(low, high, wish), (), ties)
    low, high = min(low, own), max(high, own)
    if log and low <= 0:
        what = f"{leaf.key} is drawn on a logarithmic scale, but its range begins at {low:g}"
        raise SpecError(what, where=where_of(wish), hint="scale: linear in automl.ranges, or a value above 0")
    name: Literal["float", "int"] = "int" if kind is int else "float"
    if name == "int":
        low, high = math.ceil(low), math.floor(high)
    step = int(wish.number) if wish and wish.sign == "/" else 1
    widest = None if ranged else _widest(leaf, low, high)
    bound = wish.bound if wish else None
    return Dimension(leaf.key, name, own, low, high, log, ties=ties, step=step, bound=bound, widest=widest)


def _conditioned(key: str, low: float, high: float, wish: Wish | None, *, whole: bool) -> tuple[float, float]:
    """The range that a condition with a number leaves.

    Raises:
        SpecError: none, or the condition is not for numbers of this kind.
    """
    if wish is None or not (wish.sign or wish.bound):
        return low, high
    where = f"{wish.where}.math_cond"
    bound_sign = wish.bound.sign if wish.bound else ""
    if not whole and (wish.sign or bound_sign) in ("/", "^"):
        raise SpecError(f"{key} is no whole number, so math_cond {wish.sign or bound_sign} has no meaning", where=where)
    left = limited(wish.sign, wish.number, low, high, whole=whole) if wish.sign in SIGNS else (low, high)
    if wish.sign == "/":
        step = int(wish.number)
        left = math.ceil(low / step) * step, math.floor(high / step) * step
    if left[0] > left[1]:
        what = f"no value from {low:g} to {high:g} fulfils math_cond '{wish.sign} {wish.number:g}'"
        raise SpecError(what, where=where, hint="change valid_min, valid_max or math_cond")
    return left


def _powers(low: float, high: float, wish: Wish) -> tuple[int, ...]:
    base = int(wish.number)
    found = tuple(base**n for n in range(1, 64) if low <= base**n <= high)
    if len(found) < 2:
        what = f"there are {len(found)} powers of {base} from {low:g} to {high:g}, but a search needs two"
        raise SpecError(what, where=f"{wish.where}.math_cond")
    return found


def _plain(number: float) -> float:
    """A number with few digits, which can be written down and read again."""
    return float(f"{number:.{DIGITS}g}")


def _widest(leaf: Leaf, low: float, high: float) -> tuple[float, float]:
    """What the key may hold, but never more than ten times beyond its usual range."""
    first, last = (_plain(n / FAR if inwards else n * FAR) for n, inwards in ((low, low > 0), (high, high < 0)))
    for mark in leaf.marks:
        if isinstance(mark, Ge):
            first = max(first, cast(float, mark.ge))
        elif isinstance(mark, Gt) and first <= cast(float, mark.gt):
            first = mark.gt + (low - mark.gt) / FAR  # type: ignore[operator]
        elif isinstance(mark, Le):
            last = min(last, cast(float, mark.le))
        elif isinstance(mark, Lt) and last >= cast(float, mark.lt):
            last = mark.lt - (mark.lt - high) / FAR  # type: ignore[operator]
    return first, last


def _choice(
    key: str, own: Any, options: tuple[Any, ...], weights: tuple[float, ...], ties: tuple[str, ...]
) -> Dimension:
    """A choice; the spec's own value is always among the options."""
    if own not in options:
        options = (*options, own)
        weights = (*weights, min(w for w in weights if w > 0)) if weights else ()
    return Dimension(key, "choice", own, choices=options, weights=weights, ties=ties)


def _range(spec: ExperimentSpec, leaf: Leaf, mark: Search | None, wish: Wish | None) -> tuple[float, float, bool]:
    """(lowest, highest, whether drawn by its logarithm); what the user leaves open is the usual range's.

    Raises:
        SpecError: an end is open, and there is no usual range.
    """
    log = mark is not None and mark.scale == "log"
    usual: tuple[float, float] | None = None
    if mark is not None and mark.spread:
        middle = get(spec, leaf.key)
        if mark.images and middle == leaf.default:
            middle *= math.sqrt(images_per_step(spec) / mark.images)
        usual = middle / mark.spread, middle * mark.spread
    elif mark is not None and not mark.choices:
        usual = mark.low, mark.high
    low, high = (wish.low, wish.high) if wish else (None, None)
    if usual is None and (low is None or high is None):
        hint = f"automl.ranges: {{{leaf.key}: {{valid_min: ..., valid_max: ...}}}}"
        raise SpecError(f"{leaf.key} has no range of its own", where=where_of(wish), hint=hint)
    if wish is not None and (low is not None or high is not None):
        log = wish.scale == "log" if wish.scale else log and (low is None or low > 0)
    elif wish is not None and wish.scale:
        log = wish.scale == "log"
    low, high = low if low is not None or not usual else usual[0], high if high is not None or not usual else usual[1]
    assert low is not None and high is not None
    if low >= high:
        what = f"the range of {leaf.key} is {low:g} to {high:g}, one end of it the usual one"
        raise SpecError(what, where=where_of(wish), hint="give valid_min and valid_max")
    return low, high, log


def images_per_step(spec: ExperimentSpec) -> int:
    """Images that one optimiser step learns from."""
    train = spec.train
    return spec.dataset.train.batch_size * train.accumulate_grad_batches * train.num_gpus * train.num_nodes
