"""Where the values are -> which computation of deformable sampling reads them: "grid", "rows" or "triton".

The environment variable ONEFORMER_DEFORM forces one. An exported graph takes `grid` in any case: its operators are
standard ones. Triton's kernels are put to a test on each GPU before their first use, because they are compiled there:
that needs a C compiler and a driver that fits.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from oneformer.errors import UserError
from oneformer.model.deform_grid import sample_grid

VARIABLE = "ONEFORMER_DEFORM"
PATHS = ("auto", "grid", "rows", "triton")
TOLERANCE = 1e-4

log = logging.getLogger(__name__)


def path_for(value: Tensor) -> str:
    """The computation for these values.

    Raises:
        UserError: the one that is forced cannot be used.
    """
    # The first torch that is supported does not tell exporting from compiling.
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    if exporting() or torch.jit.is_tracing():
        return "grid"
    return choose(value.device.type, value.device.index or 0, torch.compiler.is_compiling())


def choose(device: str, index: int, compiling: bool) -> str:
    """`path_for` without a tensor. `torch.compile` cannot look into `rows` and takes `grid` in its place."""
    path = forced()
    if path == "auto":
        on_gpu = device == "cuda" and not obstacle(device, index)
        path = "rows" if device == "cpu" else "triton" if on_gpu else "grid"
    elif path == "rows" and device != "cpu":
        raise UserError("rows is a computation for the CPU", where=VARIABLE, hint="take triton, grid or auto")
    elif path == "triton" and (why := obstacle(device, index)):
        raise UserError(f"triton cannot be used: {why}", where=VARIABLE, hint="take auto, or remove the variable")
    return "grid" if path == "rows" and compiling else path


# Under torch.compile a choice is a fact about the machine, not a part of the graph. `assume_constant_result` says so by
# this mark too, but imports the whole compiler for it, which takes a second of every start.
choose._dynamo_marked_constant = True  # type: ignore[attr-defined]


def forced() -> str:
    """What ONEFORMER_DEFORM asks for, "auto" where it is not set.

    Raises:
        UserError: there is no such computation.
    """
    path = os.environ.get(VARIABLE) or "auto"
    if path not in PATHS:
        raise UserError(
            f"there is no computation {path!r} of deformable attention",
            where=VARIABLE,
            hint=f"take one of {', '.join(PATHS)}",
        )
    return path


def summary() -> str:
    """Which computation this machine uses where, and why, for `oneformer doctor`."""
    gpus = [f"GPU {index}: {told('cuda', index)}" for index in range(torch.cuda.device_count())]
    asked = os.environ.get(VARIABLE)
    return "; ".join(
        [f"CPU: {told('cpu', 0)}", *gpus, "exported graphs: grid", *([f"{VARIABLE}={asked}"] if asked else [])]
    )


def told(device: str, index: int) -> str:
    """The computation of a device, and what keeps a GPU from the better one."""
    try:
        path = choose(device, index, False)
        why = obstacle(device, index) if device == "cuda" and path == "grid" and forced() == "auto" else ""
    except UserError as error:
        return f"none, for {error.what}"
    return f"{path}, for {why}" if why else path


@cache
def obstacle(device: str, index: int) -> str:
    """Why Triton's kernels cannot be used on a device; empty when they can."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        return "on a CPU its kernels run for tests only, with TRITON_INTERPRET=1"
    if device not in ("cpu", "cuda") or torch.version.hip:
        return "its kernels are written for NVIDIA GPUs"
    why = failure(torch.device(device, index))
    if why:
        log.warning("deformable attention takes the slower way of grid_sample on %s:%d: %s", device, index, why)
    return why


def failure(device: torch.device) -> str:
    """What goes wrong when Triton's kernels compute a small problem and its gradients; empty when nothing does."""
    try:
        from oneformer.model.deform_triton import sample_triton

        wanted, found = (small_problem(sampling, device) for sampling in (sample_grid, sample_triton))
        worst = max(float((a - b).abs().max()) for a, b in zip(found, wanted, strict=True))
    except Exception as error:  # compilers and drivers fail in ways of their own, and there is another way to go
        return f"triton fails with {type(error).__name__}: {error}".splitlines()[0][:300]
    return "" if worst <= TOLERANCE else f"triton's kernels differ from grid_sample by {worst:.2g}"


def small_problem(sampling: Callable[..., Tensor], device: torch.device) -> list[Tensor]:
    """The result of a sampling function for fixed inputs, some places outside the maps, and all gradients."""
    with torch.inference_mode(False), torch.enable_grad():
        value = torch.linspace(-9, 9, 26 * 2 * 8, device=device).sin().view(1, 26, 2, 8)
        places = torch.linspace(-1.2, 5.3, 5 * 2 * 2 * 2 * 2, device=device).view(1, 5, 2, 2, 2, 2)
        weights = torch.linspace(0.1, 1, 5 * 2 * 2 * 2, device=device).view(1, 5, 2, 2, 2)
        inputs = [x.requires_grad_() for x in (value, places, weights)]
        out = sampling(*inputs, ((2, 3), (5, 4)))
        return [out.detach(), *torch.autograd.grad(out, inputs, out.detach())]
