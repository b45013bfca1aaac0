"""A trial's folder and an epoch -> an ordinary training up to there, and `outcome.json`, which says how it went.

Runs in a process of its own. It ends, in good order, when the process that started it is gone: its standard input
closes then, whatever has killed the other.
"""

from __future__ import annotations

import csv
import errno
import re
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from oneformer.automl.ledger import held
from oneformer.errors import UserError, WorkError, no_memory
from oneformer.runs.parent import end_with_parent

if TYPE_CHECKING:
    from oneformer.spec import ExperimentSpec

SPEC, OUTCOME, LOG = "spec.yaml", "outcome.json", "log.txt"
GRACE_S = 60.0  # for a training to save its last step, and for an older one in the same folder to be gone
_FULL = re.compile(r"No space left on device|Disk quota exceeded|PytorchStreamWriter failed writing", re.IGNORECASE)
_SHAPE = re.compile(
    r"shapes? .*(match|cannot be multiplied|invalid)|size mismatch|size of tensor|divisible|must match", re.IGNORECASE
)


def main(folder: Path, epoch: int) -> int:
    """Train and write down what happened. 0 when there is an outcome, whatever it is; 1 when the folder is not free."""
    from oneformer.runs.atomic import write_json

    signal.signal(signal.SIGTERM, _ended)
    end_with_parent(GRACE_S)
    with ExitStack() as stack:
        try:
            _wait_until_free(folder, stack)
        except (UserError, KeyboardInterrupt) as error:
            sys.stderr.write(f"{_told(error)}\n")  # what lies in the folder is another's, so nothing is said there
            return 1
        # Up to here an older process could write its own outcome, from here on nobody else can.
        (folder / OUTCOME).unlink(missing_ok=True)
        for path in (*folder.glob("*.part"), *folder.glob("train/*.part")):
            path.unlink(missing_ok=True)  # what a process that was killed had half written
        try:
            outcome = trained(folder, epoch)
        except BaseException as error:
            import traceback

            traceback.print_exc()  # into the trial's log
            outcome = {"kind": kind_of(error), "reason": _told(error)}
        write_json(folder / OUTCOME, {**outcome, "epoch": epoch})
    return 0


def trained(folder: Path, epoch: int) -> dict[str, Any]:
    """What `oneformer train` gives for the spec in `folder`, paused at `epoch` (0: at the end)."""
    from oneformer.actions.train import run
    from oneformer.runs.log import set_up_logging
    from oneformer.spec.load import load_spec

    words = [f"train.stop_at_epoch={epoch}", "train.resume_training_checkpoint_path=auto"]
    spec = load_spec(folder / SPEC, words, action="train")
    set_up_logging(verbose=spec.train.verbose)
    began = time.monotonic()
    result = run(spec, advise=False)  # other trials may share the device, and this one is given up anyway
    assert not hasattr(result, "reads"), "a training, not the plan of one"
    told = result.to_dict()
    if spec.automl.objectives:
        told["metrics"] = _measured(spec, folder)
    curve = _curve(folder / "train" / "metrics.csv", told["best"]["metric"])
    return {"kind": "done", "result": told, "curve": curve, "seconds": time.monotonic() - began}


def _measured(spec: ExperimentSpec, folder: Path) -> dict[str, float]:
    """What the best checkpoint scores and costs: the objectives have to be those of one network."""
    from oneformer.automl.measure import measured
    from oneformer.train.checkpoint import BEST

    best = folder / "train" / BEST
    device = {"gpu": "cuda"}.get(spec.train.accelerator, spec.train.accelerator)
    return measured(best, spec.automl.objectives, device=device) if best.is_file() else {}


def kind_of(error: BaseException) -> str:
    """A fault in one word: memory, disk, shape, request, diverged, interrupted, or fault (of the machine, unknown)."""
    text = str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if no_memory(error) or _no_space(error):
        return "memory" if no_memory(error) else "disk"
    if isinstance(error, WorkError):
        return "diverged" if "not a finite number" in text or "not finite" in text else "fault"
    if isinstance(error, UserError):
        return "request"
    if isinstance(error, RuntimeError | ValueError | AssertionError) and _SHAPE.search(text):
        return "shape"
    return "fault"


def _no_space(error: BaseException | None) -> bool:
    """Whether a full disk is behind it; torch's writer of files tells no number of the fault."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or _FULL.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _told(error: BaseException) -> str:
    if isinstance(error, UserError):
        return error.message
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def _curve(path: Path, metric: str) -> dict[int, float]:
    """Epoch, from 1 -> the metric at its last validation."""
    found: dict[int, float] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["split"] == "val" and row.get(metric):
                found[int(row["epoch"]) + 1] = float(row[metric])
    return found


def _wait_until_free(folder: Path, stack: ExitStack) -> None:
    """Hold the folder until the stack is closed: an older process may still be saving its last step there."""
    until = time.monotonic() + GRACE_S
    while True:
        try:
            stack.enter_context(held(folder))
            return
        except WorkError:
            raise
        except UserError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def _ended(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt("the search has ended")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
