"""A graph's inputs and the user's limits -> the sizes that an engine takes: smallest, usual, largest of each input."""

from __future__ import annotations

from oneformer.engines.about import INPUTS, About
from oneformer.engines.graph import STRIDE, Dims, Ports
from oneformer.engines.tensorrt_file import Range
from oneformer.errors import SpecError
from oneformer.spec.engine import GenTrtEngineSpec, TensorrtSpec

KEY = "gen_trt_engine.tensorrt"
Three = tuple[int, int, int]
UNSET: Three = (1, 1, 1)


def profile(ports: Ports, about: About, section: GenTrtEngineSpec) -> dict[str, Range]:
    """Input -> its three sizes; those that the graph fixes are equal in all of them.

    Raises:
        SpecError: the limits are not those of the graph, or do not rise.
    """
    images = ports.inputs[INPUTS[0]]
    batches = batch_sizes(images[0], section)
    first = 1 if about.embed_preprocess else 2
    axes: dict[int, Three] = {0: batches}
    for axis, sizes in zip((first, first + 1), sides(images[first : first + 2], about, section.tensorrt), strict=True):
        axes[axis] = sizes
    low, usual, high = (
        tuple(axes[axis][i] if axis in axes else size for axis, size in enumerate(images)) for i in range(3)
    )
    tokens = ports.inputs[INPUTS[1]][1:]
    rows = tuple((batch, *tokens) for batch in batches)
    return {INPUTS[0]: (low, usual, high), INPUTS[1]: (rows[0], rows[1], rows[2])}


def batch_sizes(fixed: int | None, section: GenTrtEngineSpec) -> Three:
    """The numbers of images per call. Raises SpecError when the graph has another."""
    limits = section.tensorrt
    asked = (limits.min_batch_size, limits.opt_batch_size, limits.max_batch_size)
    key = f"{KEY}.max_batch_size"
    if section.batch_size > 0:
        asked, key = (section.batch_size,) * 3, "gen_trt_engine.batch_size"
    if fixed is None or asked == (fixed,) * 3:
        return asked
    if asked == UNSET:
        return (fixed, fixed, fixed)
    told = " to ".join(str(size) for size in sorted({asked[0], asked[2]}))
    raise SpecError(
        f"the graph takes {fixed} images per call, the engine is to take {told}",
        where=key,
        hint="leave the limits out, or export with export.batch_size=-1",
    )


def sides(fixed: Dims, about: About, limits: TensorrtSpec) -> tuple[Three, Three]:
    """Heights and widths in pixels. Raises SpecError when the graph has others.

    Where the graph leaves them open and nobody says anything, an engine takes what evaluation makes of photos: from the
    shorter side's size on both sides to the longest side's on both.
    """
    asked = {name: getattr(limits, name) for name in ("min_size", "opt_size", "max_size")}
    given = {name: size for name, size in asked.items() if size}
    height, width = fixed
    if height is not None and width is not None:
        other = next((name for name, size in given.items() if list(size) != [width, height]), "")
        if other:
            what = f"the graph takes images of [{width}, {height}] only"
            raise SpecError(
                what, where=f"{KEY}.{other}", hint="leave it empty, or export with export.dynamic_size=true"
            )
        return (height,) * 3, (width,) * 3
    for name, size in given.items():
        if any(side % STRIDE for side in size):
            hint = f"try {[-(-side // STRIDE) * STRIDE for side in size]}"
            raise SpecError(f"open sizes go in steps of {STRIDE}", where=f"{KEY}.{name}", hint=hint)
    short, long = (-(-side // STRIDE) * STRIDE for side in (about.info.test_min_size, about.info.test_max_size))
    least = given.get("min_size", [min(short, *given.get("opt_size", [short]))] * 2)
    most = given.get("max_size", [max(long, *given.get("opt_size", [long]))] * 2)
    usual = given.get("opt_size", [min(max(short, low), high) for low, high in zip(least, most, strict=True)])
    for low, middle, high in zip(least, usual, most, strict=True):
        if not low <= middle <= high:
            what = f"smallest, usual and largest size are {least}, {usual} and {most}, but must not fall"
            raise SpecError(what, where=f"{KEY}.min_size", hint="sizes are [width, height]")
    return (least[1], usual[1], most[1]), (least[0], usual[0], most[0])
