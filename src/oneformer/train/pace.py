"""Steps and wall time -> when to stop: random numbers per step, time limit, step limit, interrupts at a step's end."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from typing_extensions import override

from oneformer.errors import WorkError
from oneformer.train.datamodule import DataModule


class Interrupted(Exception):  # no fault: the user asked for it
    """The user asked to stop; raised at the end of an optimiser step. Lightning would exit on a KeyboardInterrupt."""


class Clock:
    """Wall time of a training, counted on over resumes. All ranks see rank 0's time, so that they step alike."""

    def __init__(self, limit_minutes: float = 0.0) -> None:
        self.limit_s = limit_minutes * 60
        self.before_s = 0.0
        self._start: float | None = None
        self._shared_s: float | None = None

    def start(self) -> None:
        """Training begins."""
        self._start = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds trained, those before a resume included."""
        return self.before_s + (time.monotonic() - self._start if self._start is not None else 0.0)

    def share(self, elapsed_s: float) -> None:
        """Take over the time that all ranks agreed on for the coming step."""
        self._shared_s = elapsed_s

    def used(self) -> float:
        """Share 0..1 of the time limit that has passed; 0 without a limit."""
        if not self.limit_s:
            return 0.0
        seconds = self.elapsed_s if self._shared_s is None else self._shared_s
        return min(1.0, seconds / self.limit_s)


class StopRequest:
    """Whether the user asked to stop (Ctrl-C or a termination signal)."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.asked = False

    def listen(self) -> None:
        """From now on the first signal is only noted, so that no step is torn apart; the second raises at once.

        Outside the main thread, where signals cannot be caught, nothing changes.
        """
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                signal.signal(number, self._note)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """While open, a wish to stop is noted; afterwards the signals mean what they did before."""
    before = {number: signal.getsignal(number) for number in StopRequest.SIGNALS}
    request = StopRequest()
    request.listen()
    try:
        yield request
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def seed_step(seed: int, rank: int, epoch: int, batch: int, *, device: torch.device) -> None:
    """Set the random numbers of Python, numpy and torch for one training step.

    They follow from the seed and the step's place alone. So a resumed run draws what an unbroken one would have drawn,
    on every rank, whatever validation or the start of a loader drew in between; a saved generator state would be that
    of rank 0 only.
    """
    words = np.random.SeedSequence([seed, rank, epoch, batch]).generate_state(2, np.uint64)
    random.seed(int(words[0]))
    np.random.seed(int(words[0] & np.uint64(0xFFFFFFFF)))  # third-party code may draw from it
    torch.default_generator.manual_seed(int(words[1] >> np.uint64(1)))
    if device.type == "cuda":
        torch.cuda.manual_seed(int(words[1] >> np.uint64(1)))


class Pace(pl.Callback):
    """Seeds each step and ends the training in good order: last step or epoch, end of the time, or the user's wish.

    Comes last among the callbacks: when it raises, the others have noted the finished step.
    """

    def __init__(
        self, clock: Clock, request: StopRequest, *, data: DataModule, seed: int, last_step: int, last_epoch: int
    ) -> None:
        self.data = data
        self.clock = clock
        self.request = request
        self.seed = seed
        self.last_step = last_step
        self.last_epoch = last_epoch  # counted from 1; 0 for none before the end
        self.stopped_by = ""
        self._step = 0

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """The clock runs from here; a resumed epoch goes on at its place."""
        # Lightning has just put a handler of its own before ours. It talks to the other ranks from within the signal,
        # whatever exchange they are in: ranks that got the signal at different steps would wait for ever.
        self.request.listen()
        self._check_place(trainer)
        self.data.go_to_place()
        self.clock.start()
        self._step = trainer.global_step
        self._validate_last(trainer)

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """The last epoch is always validated, whatever the interval."""
        self._validate_last(trainer)

    def _check_place(self, trainer: pl.Trainer) -> None:
        """Raises WorkError when the ranks would go on from different steps, or draw from different seeds."""
        if trainer.world_size == 1:
            return
        own = torch.tensor([trainer.global_step, self.seed], device=trainer.strategy.root_device)
        both = torch.stack((own, -own))
        torch.distributed.all_reduce(both, op=torch.distributed.ReduceOp.MAX)
        (step, seed), (least_step, least_seed) = both[0].tolist(), (-both[1]).tolist()
        if step != least_step:
            raise WorkError(
                f"the processes do not go on from the same step: this one from {trainer.global_step}, "
                f"others from {least_step} to {step}",
                where="train.resume_training_checkpoint_path",
                hint="the results folder has to be one that all machines see",
            )
        if seed != least_seed:  # they would not share the images out, but each draw an order of its own
            raise WorkError(
                f"the processes have different seeds, {least_seed} to {seed}",
                where="train.seed",
                hint="with a launcher give a number: with -1 each process draws its own",
            )

    def _validate_last(self, trainer: pl.Trainer) -> None:
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Random numbers of this step."""
        seed_step(self.seed, trainer.global_rank, trainer.current_epoch, batch_idx, device=pl_module.device)

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """After an optimiser step: is it time to stop?"""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        asked, elapsed_s = self._agree(trainer)
        self.clock.share(elapsed_s)
        if asked:
            raise Interrupted
        if self._step >= self.last_step:
            self.stopped_by = "steps"
        elif self.clock.used() >= 1.0:
            self.stopped_by = "time"
        elif trainer.is_last_batch and trainer.current_epoch + 1 == self.last_epoch != trainer.max_epochs:
            self.stopped_by = "stop_at_epoch"
        if self.stopped_by:
            trainer.should_stop = True
            trainer.check_val_every_n_epoch = 1

    @override
    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """A wish to stop is heard within validation too, unless ranks would have to agree on it."""
        if self.request.asked and trainer.world_size == 1:
            raise Interrupted

    def _agree(self, trainer: pl.Trainer) -> tuple[bool, float]:
        """Whether any rank was asked to stop, and the longest of the ranks' times."""
        asked, elapsed_s = self.request.asked, self.clock.elapsed_s
        if trainer.world_size == 1:
            return asked, elapsed_s
        both = torch.tensor([float(asked), elapsed_s], dtype=torch.float64, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(both, op=torch.distributed.ReduceOp.MAX)
        return bool(both[0]), float(both[1])
