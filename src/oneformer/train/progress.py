"""A fit under way -> the progress line, rows for the records, and status lines with the scores of each epoch."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from typing_extensions import override

from oneformer.runs.log import colour_wanted
from oneformer.train.pace import Clock
from oneformer.train.records import Sink

if TYPE_CHECKING:
    from oneformer.runs.status import StatusLog

log = logging.getLogger(__name__)

WAITING = 0.5
"""Share of the time that waiting for batches may take before it is told."""
STEPS_TO_JUDGE = 20
LOSSES = ("loss", "loss_ce", "loss_mask", "loss_dice", "loss_contrastive")


class Progress(pl.Callback):
    """Tells how the training goes: on a terminal in one line that is written over, elsewhere every `interval` steps.

    Only rank 0 tells; the mean loss of an epoch is over all ranks.
    """

    def __init__(
        self, sinks: Sequence[Sink], status: StatusLog, *, interval: int, total_steps: int, clock: Clock
    ) -> None:
        self.sinks = list(sinks)
        self.status = status
        self.interval = interval
        self.total_steps = total_steps
        self.clock = clock
        self.resumed_losses: dict[str, float] | None = None
        self._line = Line()
        self._step = self._first_step = 0
        self._images = 0
        self._window = self._began = self._epoch_began = self._validation_began = 0.0
        self._waiting = Waiting()

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Start counting."""
        self._step = self._first_step = trainer.global_step
        self._began = self._window = self._epoch_began = time.monotonic()
        self._line.open(terminal=trainer.is_global_zero and colour_wanted())
        pl_module.take_losses(self.resumed_losses)

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """A new epoch's time."""
        self._epoch_began = time.monotonic()
        self._waiting.pause()

    @override
    def on_train_batch_start(self, *_: Any) -> None:
        """A batch has come."""
        self._waiting.begin(time.monotonic())

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Tell every `interval` optimiser steps."""
        if self._waiting.end(time.monotonic()) and trainer.is_global_zero:
            workers = getattr(trainer.train_dataloader, "num_workers", 0)
            log.warning("%s", self._waiting.advice(workers))
        self._images += len(batch) * trainer.world_size
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if self._step % self.interval == 0 or self._step == self._first_step + 1:
            self._tell(trainer, pl_module)

    def _tell(self, trainer: pl.Trainer, pl_module: Any) -> None:
        now = time.monotonic()
        groups = {group["name"]: group for group in trainer.optimizers[0].param_groups}
        used = pl_module.step_lrs
        row: dict[str, Any] = {
            **self._place("train", trainer),
            **{name: float(pl_module.losses[name]) for name in LOSSES if name in pl_module.losses},
            "lr": next((used[n] for n in groups if not n.startswith("backbone")), None),
            "lr_backbone": next((used[n] for n in groups if n.startswith("backbone")), None),
            "grad_norm": None if pl_module.grad_norm is None else float(pl_module.grad_norm),
            "images_per_s": self._images / max(now - self._window, 1e-9),
            "memory_mib": memory_mib(pl_module.device),
        }
        self._images, self._window = 0, now
        self._keep(trainer, row)
        if trainer.is_global_zero:
            self._line.show(progress_text(row, trainer.max_epochs, self.total_steps, eta_s=self._eta_s()))

    @override
    def on_validation_start(self, *_: Any) -> None:
        """Validation is not part of the images per second."""
        self._waiting.pause()
        self._validation_began = time.monotonic()

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Keep and tell the scores."""
        now = time.monotonic()
        self._window += now - self._validation_began
        values = dict(pl_module.values)
        losses = pl_module.epoch_losses()
        mean = {"train_loss": losses["sum"] / losses["count"]} if losses["count"] else {}
        self._keep(trainer, {**self._place("val", trainer), **values, **mean})
        if trainer.is_global_zero:
            scores = "  ".join(f"{n} {values[n]:.2f}" for n in ("mIoU", "PQ", "PQ_things", "AP") if n in values)
            epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            self._line.keep(f"{epoch}  validation: {scores} ({now - self._validation_began:.1f} s)")

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """The epoch's mean loss, and its status line."""
        total, count = pl_module.take_losses()
        if trainer.world_size > 1:
            both = torch.tensor([total, count], dtype=torch.float64, device=pl_module.device)
            torch.distributed.all_reduce(both)
            total, count = float(both[0]), int(both[1])
        if count:
            pl_module.values["train_loss"] = total / count
        took = time.monotonic() - self._epoch_began
        epoch = trainer.current_epoch + 1
        self._line.keep(
            f"epoch {epoch}/{trainer.max_epochs} done in {took:.1f} s, mean loss {total / max(count, 1):.4f}"
        )
        progress = {"epoch": epoch, "max_epoch": trainer.max_epochs, "time_per_epoch": took, "eta": self._eta_s()}
        self.status.running(f"Epoch {epoch} of {trainer.max_epochs} finished.", kpi=pl_module.values, progress=progress)

    @override
    def on_train_end(self, *_: Any) -> None:
        """Close the records."""
        self._close()

    @override
    def on_exception(self, *_: Any) -> None:
        """Close the records."""
        self._close()

    def _close(self) -> None:
        self._line.close()
        for sink in self.sinks:
            sink.close()
        self.sinks = []

    def _place(self, split: str, trainer: pl.Trainer) -> dict[str, Any]:
        return {"split": split, "epoch": trainer.current_epoch, "step": self._step, "elapsed_s": self.clock.elapsed_s}

    def _keep(self, trainer: pl.Trainer, row: dict[str, Any]) -> None:
        if trainer.is_global_zero:
            for sink in self.sinks:
                sink.write(row)

    def _eta_s(self) -> float:
        """Seconds left by the pace so far, at most to the end of the time limit."""
        done = self._step - self._first_step
        left = (time.monotonic() - self._began) / max(done, 1) * max(self.total_steps - self._step, 0)
        limit = self.clock.limit_s
        return min(left, max(limit - self.clock.elapsed_s, 0.0)) if limit else left


class Waiting:
    """How much of the time goes by between one batch and the next; told once, when it is too much."""

    def __init__(self) -> None:
        self.waited = self.worked = 0.0
        self._steps = 0
        self._last: float | None = None
        self._told = self._counts = False

    @property
    def share(self) -> float:
        """Part of the time spent waiting."""
        return self.waited / max(self.waited + self.worked, 1e-9)

    def begin(self, now: float) -> None:
        """A batch is there. The first after a pause does not count: workers have just been started."""
        if self._last is not None:
            self.waited += now - self._last
        self._counts, self._last = self._last is not None, now

    def end(self, now: float) -> bool:
        """A batch is done; whether it has to be told."""
        if self._counts and self._last is not None:
            self.worked += now - self._last
            self._steps += 1
        self._last = now
        if self._told or self._steps < STEPS_TO_JUDGE or self.share < WAITING:
            return False
        self._told = True
        return True

    def pause(self) -> None:
        """Something else comes between."""
        self._last = None

    def advice(self, workers: int) -> str:
        """What is told."""
        return (
            f"training waits for its images {100 * self.share:.0f} % of the time: more than {workers} loader processes "
            'help where processors are idle (dataset.train.num_workers), pip install "oneformer[fast]" where photos '
            "are JPEGs"
        )


def progress_text(row: dict[str, Any], epochs: int | None, steps: int, *, eta_s: float) -> str:
    """One line: place, losses, learning rate, gradient norm, speed, memory, time left."""
    parts = [f"epoch {row['epoch'] + 1}/{epochs}", f"step {row['step']}/{steps}", f"loss {row['loss']:.3f}"]
    inner = (("ce", "loss_ce"), ("mask", "loss_mask"), ("dice", "loss_dice"), ("contrastive", "loss_contrastive"))
    parts[-1] += " (" + " ".join(f"{short} {row[name]:.3f}" for short, name in inner if name in row) + ")"
    if row["lr"] is not None:
        parts.append(f"lr {row['lr']:.3g}")
    if row["grad_norm"] is not None:
        parts.append(f"grad {row['grad_norm']:.3g}")
    parts += [f"{row['images_per_s']:.2f} images/s", f"{row['memory_mib'] / 1024:.2f} GiB"]
    return "  ".join([*parts, f"eta {timedelta(seconds=round(eta_s))}"])


def memory_mib(device: torch.device) -> float:
    """Memory in use, MiB: the largest so far on a GPU, what this process holds now on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows has no such module
        return 0.0
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text().split()[1]) * resource.getpagesize() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


class Line:
    """The progress line: written over on a terminal, a log line elsewhere."""

    def __init__(self) -> None:
        self._live: Any = None

    def open(self, *, terminal: bool) -> None:
        """Begin; on a terminal the line is kept at the bottom."""
        if terminal:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            self._live.start()

    def show(self, text: str) -> None:
        """Replace the line."""
        if self._live is None:
            log.info("%s", text)
        else:
            self._live.update(text, refresh=True)

    def keep(self, text: str) -> None:
        """A line that stays above."""
        if self._live is None:
            log.info("%s", text)
        else:
            self._live.console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None
