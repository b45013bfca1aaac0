"""An action's `run` -> the same with what holds for all of them around it: the key of files, and results elsewhere."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from oneformer.actions.plan import Plan
from oneformer.errors import SpecError, UserError
from oneformer.runs.away import address_of, is_away, is_in_store, kept, standing_for
from oneformer.runs.encrypt import check_installed
from oneformer.runs.key import using, writing_key
from oneformer.spec.tree import get, with_value

if TYPE_CHECKING:
    from oneformer.spec import ExperimentSpec
    from oneformer.spec.sources import SourcesSpec

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
Run = Callable[Concatenate["ExperimentSpec", P], R]
# Keys of files and folders of this machine, which are not fetched and not uploaded by themselves.
OWN = {"export": ("export.onnx_file",), "gen_trt_engine": ("gen_trt_engine.trt_engine", "gen_trt_engine.timing_cache")}
WEIGHTS = {
    "train": ("train.pretrained_model", "train.pretrained_backbone", "train.resume_training_checkpoint_path"),
    "evaluate": ("evaluate.checkpoint", "evaluate.trt_engine"),
    "inference": ("inference.checkpoint", "inference.trt_engine"),
    "export": ("export.checkpoint",),
    "quantize": ("quantize.model_path",),
    "gen_trt_engine": ("gen_trt_engine.onnx_file",),
}
SHARED = ("train", "evaluate", "inference")
"""Actions that several processes may run together."""


def action(name: str) -> Callable[[Run[P, R]], Run[P, R]]:
    """While it runs, files are encrypted and opened with the spec's key.

    Where its results folder is an address, what lies there is fetched before, and what it makes is uploaded.
    """

    def wrap(run: Run[P, R]) -> Run[P, R]:
        @wraps(run)
        def around(spec: ExperimentSpec, *args: P.args, **options: P.kwargs) -> R:
            address = address_of(spec.results_dir, name, section_dir=getattr(spec, name).results_dir)
            with using(spec.encryption_key):
                if writing_key():  # before anything is computed
                    check_installed()
                dry = bool(options.get("dry_run"))
                files = weights(spec, name, dry=dry)
                with standing_for({file: get(spec, key) for key, file in files.items()}):
                    for key, file in files.items():
                        spec = with_value(spec, key, file)
                    if dry or not address:
                        return cast("R", _with_address(run(spec, *args, **options), address))
                    with uploaded(spec, name, address):
                        return run(spec, *args, **options)

        return around

    return wrap


def weights(spec: ExperimentSpec, name: str, *, dry: bool) -> dict[str, str]:
    """Key -> file of this machine, for the weights and graphs that the spec names by addresses of object stores.

    Raises:
        UserError: one of them cannot be fetched, or nothing may be (`dry`).
    """
    away = {key: get(spec, key) for key in WEIGHTS[name] if is_in_store(get(spec, key))}
    if not away:
        return {}
    if dry:
        hint = "name a file of this machine, or let it run"
        raise SpecError(
            "a dry run fetches nothing, and without the file it cannot tell", where=next(iter(away)), hint=hint
        )
    from oneformer.actions.mirror import model_file
    from oneformer.data.sources.address import Address, parsed

    found = {}
    for key, text in away.items():
        place = parsed(text, key=key)
        assert isinstance(place, Address)
        found[key] = str(model_file(place, _limits(spec.dataset.sources)))
    return found


def _with_address(done: Any, address: str) -> Any:
    """A plan that says where results will be in the end, and not where they are made; anything else as it is."""
    if not address or not isinstance(done, Plan):
        return done
    made = str(kept(address))
    return replace(done, writes=[file.replace(made, address, 1) for file in done.writes])


@contextmanager
def uploaded(spec: ExperimentSpec, name: str, address: str) -> Iterator[None]:
    """While open, the run's folder of this machine is uploaded to the address; a last time when it closes.

    Raises:
        UserError: the address is wrong, or cannot be read or written.
    """
    from oneformer.actions.mirror import Mirror, Watching
    from oneformer.data.sources.address import Address, parsed

    _check_own(spec, name)
    place = parsed(address, key="results_dir")
    assert isinstance(place, Address)
    if place.checksum or "?" in address:
        raise SpecError("a results folder has neither a checksum nor a query", where="results_dir", hint="leave it out")
    if "ONEFORMER_CHILD_RANK" in os.environ:  # the process that has started this one does it
        yield
        return
    mirror = Mirror(place, kept(address), _limits(spec.dataset.sources))
    mirror.bring()
    if not _is_first(spec, name):
        yield
        return
    log.info("results go to %s; on this machine they are kept in %s", place.told, mirror.folder)
    watching = Watching(mirror)
    watching.start()
    try:
        yield
    except BaseException:
        watching.end()
        try:
            mirror.finish()
        except UserError as error:  # the run's own fault is the one to tell
            log.warning("%s", error)
        raise
    watching.end()
    mirror.finish()


def _check_own(spec: ExperimentSpec, name: str) -> None:
    for key in OWN.get(name, ()):
        if is_away(get(spec, key)):
            hint = "leave it empty: the file is uploaded with the results"
            raise SpecError("this file cannot be written to an address", where=key, hint=hint)


def _limits(settings: SourcesSpec) -> Any:
    from oneformer.data.sources.transfer import GIB, Limits

    return Limits(settings.retries, int(settings.max_gib * GIB), settings.max_files, quiet=True)


def _is_first(spec: ExperimentSpec, name: str) -> bool:
    """Whether this process is the one that writes; what is wrong with the devices is told with the rest."""
    if name not in SHARED:
        return True
    from oneformer.train.devices import choose_devices

    try:
        return choose_devices(getattr(spec, name), key=name).world.first
    except UserError:
        return True
