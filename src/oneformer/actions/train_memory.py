"""A training that ran out of memory -> what it needs, the largest batch or crop that fits, and the words that set it.

What fits is tried, not computed: each trial is a process of its own that trains on a few batches of the same data and
keeps nothing.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from oneformer.errors import OutOfMemory, UserError, no_memory
from oneformer.spec.tree import from_dict, to_dict

if TYPE_CHECKING:
    from oneformer.spec import ExperimentSpec

log = logging.getLogger(__name__)

LIMIT_S = 300.0
"""For all trials together; what has been found by then is told."""
BATCH = {"training": "dataset.train.batch_size", "validation": "dataset.val.batch_size"}
CROP = "dataset.augmentation.train_crop_size"
CHECKPOINTING = "train.activation_checkpointing"
STEP = 32
"""Sides of crops are tried in multiples of this, pixels: the stride of the coarsest feature map."""
# What a launcher tells a process of several; a trial is alone.
_OF_LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_ADDR",
                 "MASTER_PORT", "TORCHELASTIC_RUN_ID")  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """What became of one."""

    fits: bool
    peak: float
    """The most it held, bytes; 0 when it was killed before it could say."""


@dataclass
class Trials:
    """Tries settings of one training; `found` is what became of them."""

    spec: ExperimentSpec
    stage: str
    until: float
    found: dict[str, Trial] = field(default_factory=dict)
    limit: float = 0.0
    """The memory there is, bytes."""

    def fit(self, values: dict[str, Any]) -> bool:
        """Whether the training fits with these values. Raises TimeoutError, or UserError when a trial fails by itself.

        Validation is only part of it where that ran out.
        """
        name = words(values)
        if name not in self.found:
            told = _run(self._message(values), timeout_s=self.until - time.monotonic())
            self.limit = self.limit or float(told.get("limit", 0.0))
            self.found[name] = Trial(bool(told.get("fits")), float(told.get("peak", 0.0)))
            log.info("tried %s: %s", name, "it fits" if self.found[name].fits else "out of memory")
        return self.found[name].fits

    def _message(self, values: dict[str, Any]) -> str:
        told = to_dict(self.spec)
        train = told["train"]
        train["gpu_ids"], train["num_gpus"], train["num_nodes"] = train["gpu_ids"][:1], 1, 1
        for key in ("pretrained_model", "pretrained_backbone", "resume_training_checkpoint_path"):
            train[key] = ""
        train["optim"]["max_iter"], train["max_minutes"], train["stop_at_epoch"] = None, 0.0, 0
        told["dataset"]["train"]["num_workers"] = told["dataset"]["val"]["num_workers"] = 0
        if self.stage == "training":
            told["dataset"]["val"]["annotations"] = ""
        for key, value in values.items():
            *sections, last = key.split(".")
            section = told
            for part in sections:
                section = section[part]
            section[last] = value
        return json.dumps(told)


def words(values: dict[str, Any]) -> str:
    """Values as they are typed."""
    from oneformer.spec.write import value_text

    return " ".join(f"{key}={value_text(value).replace(' ', '')}" for key, value in values.items())


def advised(fault: OutOfMemory, spec: ExperimentSpec) -> OutOfMemory:
    """The fault with the need that was measured, and what fits."""
    _give_back()
    stage = "validation" if "validation ran out" in fault.what else "training"
    log.warning("%s ran out of memory: trying what fits (up to %.0f minutes)", stage, LIMIT_S / 60)
    trials = Trials(spec, stage, time.monotonic() + LIMIT_S)
    try:
        hint = _search(trials)
    except (TimeoutError, UserError) as error:
        log.warning("the trials ended early: %s", getattr(error, "what", str(error)))
        hint = _best(trials)
    return OutOfMemory(f"{fault.what}{_need(trials)}", where=fault.where, hint=hint)


def _search(trials: Trials) -> str:
    """Try, in this order: a smaller batch, then a smaller crop of single images; then the same by computing twice."""
    spec, key = trials.spec, BATCH[trials.stage]
    asked = _asked(spec, trials.stage)
    batch = _largest(asked, lambda n: trials.fit({key: n}))
    if trials.stage == "training":
        if not batch:
            height, width = spec.dataset.augmentation.train_crop_size
            steps = min(height, width) // STEP
            _largest(steps, lambda n: trials.fit(_smaller(spec, n / steps, batch=asked > 1)))
        if not spec.train.activation_checkpointing:
            trials.fit({CHECKPOINTING: True})
    return _best(trials)


def _largest(asked: int, fits: Any) -> int:
    """The largest number below `asked`, which does not fit, that does; 0 when none does."""
    low, high = 0, asked
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _smaller(spec: ExperimentSpec, share: float, *, batch: bool) -> dict[str, Any]:
    """A crop with this share of each side, of single images."""
    sides = [max(STEP, int(side * share) // STEP * STEP) for side in spec.dataset.augmentation.train_crop_size]
    return {**({BATCH["training"]: 1} if batch else {}), CROP: sides}


def _asked(spec: ExperimentSpec, stage: str) -> int:
    return (spec.dataset.train if stage == "training" else spec.dataset.val).batch_size


def _best(trials: Trials) -> str:
    """The words that set what fits, with what it took; of batches and crops the largest."""
    fitting = [(name, trial) for name, trial in trials.found.items() if trial.fits]
    again = [told for told in fitting if told[0].startswith(CHECKPOINTING)]
    sizes = [told for told in fitting if told not in again]
    chosen = [*([max(sizes, key=lambda told: told[1].peak)] if sizes else []), *again]
    if chosen:
        from oneformer.train.memory import gib

        return ", or ".join(f"{name} fits: it took {gib(trial.peak)} in a trial" for name, trial in chosen)
    if trials.stage == "validation":
        return "a smaller dataset.augmentation.test_min_size and test_max_size takes less"
    tried = f"nothing of {len(trials.found)} smaller settings fits: " if trials.found else ""
    return f"{tried}a smaller preset, {BATCH['training']} or {CROP} takes less"


def _need(trials: Trials) -> str:
    """What the settings that were asked for take, from what smaller batches took; empty when too little is known."""
    from oneformer.train.memory import gib

    key = f"{BATCH[trials.stage]}="
    batches = {name[len(key) :]: trial for name, trial in trials.found.items() if name.startswith(key)}
    took = {int(n): trial.peak for n, trial in batches.items() if trial.fits and n.isdigit()}
    limit = f" of {gib(trials.limit)}" if trials.limit else ""
    asked = _asked(trials.spec, trials.stage)
    if len(took) > 1:
        low, high = min(took), max(took)
        each = (took[high] - took[low]) / (high - low)
        need = took[high] + each * (asked - high)
        return f"; a batch of {asked} takes about {gib(need)}{limit}, {gib(each)} for each image"
    failed = [trial.peak for trial in trials.found.values() if not trial.fits and trial.peak]
    return f"; it takes more than {gib(max(failed))}{limit}" if failed else f"; there are{limit[3:]}" if limit else ""


def _give_back() -> None:
    """Let go of what the failed training held, so that the trials find the device as it did."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _run(message: str, *, timeout_s: float) -> dict[str, Any]:
    """One trial in a process of its own: what it printed last."""
    if timeout_s <= 0:
        raise TimeoutError("no time is left")
    environment = {name: value for name, value in os.environ.items() if name not in _OF_LAUNCHERS}
    command = [sys.executable, "-P", "-m", "oneformer.actions.train_memory"]
    try:
        done = subprocess.run(
            command, input=message, capture_output=True, text=True, env=environment, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError("no time is left") from None
    if done.returncode == -signal.SIGKILL:  # by the system, which ran out of memory
        return {"fits": False}
    if done.returncode or not done.stdout.strip():
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise UserError(f"a trial failed: {said[-1]}")
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def _as_trial() -> None:
    """Train a little with the spec on standard input, and print whether it fitted and what it took."""
    from oneformer.actions.train import rehearse
    from oneformer.spec import ExperimentSpec
    from oneformer.train.devices import choose_devices
    from oneformer.train.memory import peak_bytes, there_is

    spec = from_dict(ExperimentSpec, json.load(sys.stdin))
    device = choose_devices(spec.train).device
    told: dict[str, Any] = {"fits": True, "limit": there_is(device)}
    try:
        # One batch more than a step takes: from the second step on the optimiser's state lies in memory too.
        rehearse(spec, spec.train.accumulate_grad_batches + 1)
    except Exception as error:
        if not no_memory(error):
            raise
        told["fits"] = False
    told["peak"] = peak_bytes(device)
    sys.stdout.write(f"{json.dumps(told)}\n")


if __name__ == "__main__":
    _as_trial()
