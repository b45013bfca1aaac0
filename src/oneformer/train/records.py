"""Numbers of a step or a validation -> `metrics.csv`, TensorBoard events and, where asked for, Weights & Biases."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from oneformer.runs.atomic import write_text

if TYPE_CHECKING:
    from oneformer.spec.run import WandbSpec

log = logging.getLogger(__name__)

CSV_NAME = "metrics.csv"
# The order never changes between runs; a column that a run has no number for stays empty.
COLUMNS = (
    "split", "epoch", "step", "elapsed_s",
    "loss", "loss_ce", "loss_mask", "loss_dice", "loss_contrastive",
    "lr", "lr_backbone", "grad_norm", "images_per_s", "memory_mib",
    "train_loss", "mIoU", "ACC_all", "PQ", "PQ_things", "PQ_stuff", "AP",
)  # fmt: skip
PLACE = ("split", "epoch", "step", "elapsed_s")

Row = Mapping[str, Any]


class Sink(Protocol):
    """Something that keeps rows."""

    def write(self, row: Row) -> None:
        """Keep one row; `split` is "train" or "val"."""

    def close(self) -> None:
        """No more rows."""


class MetricsCsv:
    """`metrics.csv`: a row for every log interval and one for every validation, on disk at once.

    With `after_step` the rows of an earlier run up to that step are kept and later ones, which a killed run had written
    before it was resumed from an older checkpoint, are dropped. With None the file starts anew.
    """

    def __init__(self, path: Path, *, after_step: int | None = None) -> None:
        kept: list[dict[str, str]] = []
        if after_step is not None and path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                kept = [row for row in csv.DictReader(file) if _step(row) <= after_step]
        lines = [",".join(COLUMNS), *(",".join(row.get(c) or "" for c in COLUMNS) for row in kept)]
        write_text(path, "\n".join(lines) + "\n")
        self._file = path.open("a", newline="", encoding="utf-8")
        self._rows = csv.DictWriter(self._file, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")

    def write(self, row: Row) -> None:
        """Append one row."""
        self._rows.writerow({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()})
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _step(row: Mapping[str, str]) -> int:
    step = row.get("step") or ""
    return int(step) if step.isdigit() else 0


class TensorBoard:
    """TensorBoard event files in the run's folder."""

    def __init__(self, folder: Path, *, after_step: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Later events of a killed run are hidden, as its rows are dropped from the table.
        self._writer = SummaryWriter(str(folder), purge_step=None if after_step is None else after_step + 1)

    def write(self, row: Row) -> None:
        """One scalar per number, named `train/loss` or `val/mIoU`."""
        for name, value in numbers(row).items():
            self._writer.add_scalar(f"{row['split']}/{name}", value, row["step"])
        if row["split"] == "val":
            self._writer.flush()

    def close(self) -> None:
        """Write what is still held back."""
        self._writer.close()


class Wandb:
    """Weights & Biases; made only when `wandb.enable` is set."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def write(self, row: Row) -> None:
        """Send one row."""
        values = {f"{row['split']}/{name}": value for name, value in numbers(row).items()}
        self._run.log(values, step=row["step"])

    def close(self) -> None:
        """End the run there."""
        self._run.finish()


def numbers(row: Row) -> dict[str, float]:
    """The measured values of a row, without its place."""
    return {n: float(v) for n, v in row.items() if n not in PLACE and isinstance(v, int | float)}


def open_wandb(spec: WandbSpec, folder: Path) -> Wandb | None:
    """A run at Weights & Biases as `wandb` describes it; None, with one warning, when the package is not installed."""
    if not spec.enable:
        return None
    try:
        import wandb
    except ImportError:
        log.warning('wandb.enable is set but wandb is not installed; nothing is sent (pip install "oneformer[wandb]")')
        return None
    run = wandb.init(
        project=spec.project or None,
        entity=spec.entity or None,
        group=spec.group or None,
        name=spec.name or None,
        tags=spec.tags,
        id=spec.run_id or None,
        resume="allow" if spec.run_id else None,
        reinit=spec.reinit,
        sync_tensorboard=spec.sync_tensorboard,
        save_code=spec.save_code,
        dir=str(folder),
    )
    return Wandb(run)
