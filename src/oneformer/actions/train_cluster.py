"""A spec and a Ray cluster -> the training that `oneformer train` is, its processes started by Ray Train's workers.

Ray Train reserves the workers, starts them together and ends all of them when one is lost. Each worker starts one
process of the training and tells it its number, as torchrun would. These processes find each other by themselves: what
is computed is what any other launcher gives. Every machine sees the data and the results at the same paths.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneformer.actions.cluster import connected, share
from oneformer.actions.train_worker import work
from oneformer.errors import MissingExtra, UserError, UserErrors, WorkError
from oneformer.runs.key import reading_key
from oneformer.spec.tree import to_dict

if TYPE_CHECKING:
    from oneformer.spec import ExperimentSpec

log = logging.getLogger(__name__)

LOOK_S = 0.5
_GO_ON = "train.resume_training_checkpoint_path=auto goes on from the last checkpoint"


@dataclass(frozen=True)
class OnCluster:
    """What the first process of the training has to tell."""

    told: Mapping[str, Any]
    text: str

    def to_dict(self) -> dict[str, Any]:
        """As `Trained.to_dict`."""
        return dict(self.told)

    def table(self) -> str:
        """As `Trained.table`."""
        return self.text


class Notes:
    """What the workers tell each other and whoever started them; an actor of the cluster."""

    def __init__(self) -> None:
        self.stopping = False
        self.lines: list[str] = []
        self.answers: dict[int, dict[str, Any]] = {}

    def look(self, lines: list[str]) -> bool:
        """Hand over what the first process has said; whether all are to end."""
        self.lines += lines
        return self.stopping

    def take(self) -> list[str]:
        """What was said since the last call."""
        lines, self.lines = self.lines, []
        return lines

    def stop(self) -> None:
        """Let every process save its last step and end."""
        self.stopping = True

    def answer(self, rank: int, answer: dict[str, Any]) -> None:
        """What became of a process."""
        self.answers[rank] = answer

    def all(self) -> dict[int, dict[str, Any]]:
        """What became of those that have ended."""
        return self.answers


def train_on(cluster: str, spec: ExperimentSpec) -> OnCluster:
    """Train on a Ray cluster, with `num_gpus` x `num_nodes` workers wherever there is room for them.

    Args:
        cluster: `auto`, or the address of a cluster.
        spec: what is asked for; its files are read and written by the workers.

    Raises:
        UserError: there is no Ray or no such cluster, it has not what is asked for, or what `train.run` raises.
        WorkError: a worker was lost, or its process failed.
        KeyboardInterrupt: the user stopped it; a checkpoint of the last finished step is kept.
    """
    ray = connected(cluster)
    each, count, _ = share(spec.train, ray.cluster_resources(), threads=spec.train.num_threads, key="train")
    notes = ray.remote(num_cpus=0)(Notes).remote()
    gpu = "num_gpus" in each
    told = {"spec": to_dict(_for_worker(spec, count, gpu=gpu)), "cwd": str(Path.cwd()), "notes": notes}
    resources = {"CPU": each["num_cpus"], **({"GPU": each["num_gpus"]} if gpu else {})}
    log.info("%d workers of the cluster train, each with %s", count, resources)
    try:
        fitting = _Fitting(told, count, resources)
        fitting.start()
        stopped = _follow(ray, notes, fitting)
        answers = ray.get(notes.all.remote())
    finally:
        ray.kill(notes)  # who still runs ends for want of it
    if stopped:
        said = answers.get(0, {}).get("interrupted") or f"stopped; {_GO_ON}"
        _end_status(spec, WorkError(said))
        raise KeyboardInterrupt(said)
    if fitting.fault is not None:
        _end_status(spec, fault := cause(answers, fitting.fault, count))
        raise fault
    return OnCluster(**answers[0]["done"])


def _for_worker(spec: ExperimentSpec, count: int, *, gpu: bool) -> ExperimentSpec:
    """Each worker counts as a machine with one device, wherever Ray has put it."""
    section = replace(
        spec.train, num_nodes=count, num_gpus=1, gpu_ids=[0], accelerator="gpu" if gpu else "cpu"
    )  # what the launcher says and the spec have to agree
    return replace(spec, train=section, encryption_key=reading_key())


class _Fitting(threading.Thread):
    """Ray Train at work. In a thread, so that Ctrl-C reaches the training and not Ray, which would end it at once."""

    def __init__(self, told: dict[str, Any], count: int, resources: dict[str, float]) -> None:
        super().__init__(daemon=True)
        self.told, self.count, self.resources = told, count, resources
        self.over = threading.Event()
        """All workers have ended. A `join` that Ctrl-C interrupts takes the thread for ended (Python 3.11)."""
        self.fault: BaseException | None = None
        """Why it has failed."""

    def run(self) -> None:
        """Until all workers have ended."""
        try:
            with tempfile.TemporaryDirectory() as folder:
                self._trainer(folder).fit()
        except BaseException as error:
            self.fault = error
        finally:
            self.over.set()

    def _trainer(self, folder: str) -> Any:
        try:
            from ray.train import FailureConfig, RunConfig, ScalingConfig
            from ray.train.torch import TorchTrainer
        except ImportError as error:
            raise MissingExtra("ray[train]", extra="ray", needed_for="train --cluster") from error
        told = self.told
        never = {"max_failures": 0, "max_preemption_failures": 0}  # it goes on when the user says so
        known = {field.name for field in fields(FailureConfig)}
        return TorchTrainer(
            lambda: work(told),  # no configuration of Ray's, which it might write down: there may be a key in it
            torch_config=own_groups(),
            scaling_config=ScalingConfig(
                num_workers=self.count, use_gpu="GPU" in self.resources, resources_per_worker=self.resources
            ),
            run_config=RunConfig(
                name="train",
                storage_path=folder,  # nothing but Ray's own marks: checkpoints lie in the results folder
                failure_config=FailureConfig(**{name: value for name, value in never.items() if name in known}),
            ),
        )


def own_groups() -> Any:
    """Ray Train's setting of torch that makes no process group in its workers: their children make one."""
    from ray.train.backend import Backend
    from ray.train.torch import TorchConfig

    class OwnGroups(TorchConfig):
        """Nothing is set up."""

        backend_cls = Backend
        train_func_context = nullcontext

    return OwnGroups(backend="gloo")


def _follow(ray: Any, notes: Any, fitting: _Fitting) -> bool:
    """Print what the first process says until all have ended; whether the user has stopped it. A second time raises."""
    stopped = False
    while True:
        try:
            over = fitting.over.is_set()
            for line in ray.get(notes.take.remote()):
                sys.stderr.write(f"{line}\n")
            if over:
                return stopped
            fitting.over.wait(LOOK_S)
        except KeyboardInterrupt:
            if stopped:
                raise
            stopped = True
            ray.get(notes.stop.remote())


def cause(answers: Mapping[int, Mapping[str, Any]], fault: BaseException, count: int) -> UserError:
    """Why a training has failed.

    Args:
        answers: what its processes have told, by their numbers.
        fault: what Ray Train has raised.
        count: processes.
    """
    from oneformer.train.launch import BROKE

    if isinstance(fault, UserError):
        return fault
    faults = {rank: found for rank, answer in sorted(answers.items()) if (found := _fault(rank, answer, count))}
    own = [found for found in faults.values() if BROKE not in found.message]
    if own:
        return own[0]
    lost: Mapping[int, BaseException] = getattr(fault, "worker_failures", {})
    for rank, error in sorted(lost.items()):
        if rank not in faults:  # it had no time to say anything
            return WorkError(f"worker {rank + 1} of {count} is lost: {_first_line(error)}", hint=_GO_ON)
    return next(iter(faults.values()), None) or WorkError(f"Ray Train has failed: {_first_line(fault)}")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _fault(rank: int, answer: Mapping[str, Any], count: int) -> UserError | None:
    """A process's fault as it would be told here; of the others than the first with who says so."""
    told = answer.get("faults", ())
    whose = f"process {rank + 1} of {count} on {answer.get('host')}: " if rank else ""
    faults = [_raised({**one, "what": f"{whose}{one['what']}"}) for one in told]
    return UserErrors(faults) if len(faults) > 1 else faults[0] if faults else None


def _raised(told: Mapping[str, Any]) -> UserError:
    return UserError(told["what"], where=told["where"], hint=told["hint"], exit_code=told["exit_code"])


def _end_status(spec: ExperimentSpec, fault: UserError) -> None:
    """The last status line says how it ended, also where the process that writes them was ended from outside."""
    from oneformer.runs import StatusLog, run_path
    from oneformer.runs.away import is_away

    path = run_path(spec.results_dir, "train", section_dir=spec.train.results_dir) / "status.json"
    if is_away(str(path)) or not path.is_file():
        return
    with suppress(OSError, ValueError, IndexError):
        last = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
        if last["status"] not in ("SUCCESS", "FAILURE"):
            StatusLog(path, "train").write("FAILURE", f"OneFormer train failed: {fault.message}", verbosity="ERROR")
