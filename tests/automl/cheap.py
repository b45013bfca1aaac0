"""A trial's folder and an epoch -> what `oneformer.automl.worker` does, with a training that costs milliseconds.

Locks, signals, the closing of standard input, the outcome and the files are the real ones; only what stands for weights
is a hash of everything that the training has gone through, so that a wrong way of going on changes the score.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from oneformer.automl import worker
from oneformer.runs.atomic import write_text

BEST, STATE = "oneformer_model_best.pth", "model_epoch_{:03d}_step_00001.pth"
EPOCH_S = float(os.environ.get("CHEAP_EPOCH_S", "0.004"))
PADDING = int(os.environ.get("CHEAP_BYTES", "0"))
WORKED = "worked.txt"


def train(folder: Path, epoch: int) -> dict[str, Any]:
    """In place of `worker.trained`: epochs from the latest state on, each with a state and perhaps a new best."""
    lines = (folder / worker.SPEC).read_text().splitlines()
    epochs = next(int(line.split(":")[1].strip(" }")) for line in lines if "num_epochs" in line)
    files = folder / "train"
    files.mkdir(exist_ok=True)
    there = sorted(files.glob("model_epoch_*.pth"))
    state = json.loads(there[-1].read_text()) if there else {"weights": "", "curve": {}}
    state.pop("padding", None)
    values = [line for line in lines if "results_dir" not in line]
    for now in range(len(state["curve"]) + 1, (epoch or epochs) + 1):
        time.sleep(EPOCH_S)
        weights = hashlib.sha256(f"{state['weights']} {values} {now}".encode()).hexdigest()
        score = 100 * now / (now + 2) + int(weights[:8], 16) / 2**32 * 30
        state = {"weights": weights, "curve": {**state["curve"], str(now): score}}
        content = json.dumps({**state, "padding": "x" * PADDING})
        if score >= max(state["curve"].values()):
            write_text(files / BEST, content)
        newest = write_text(files / STATE.format(now - 1), content)
        for old in there:
            old.unlink(missing_ok=True)
        there = [newest]
        with (folder / WORKED).open("a") as file:
            file.write(f"{now}\n")
    curve = {int(at): value for at, value in state["curve"].items()}
    best = max(curve.values())
    result = {"best": {"metric": "PQ", "value": best}, "metrics": {"PQ": best}}
    return {"kind": "done", "result": result, "curve": curve, "seconds": 0.0}


if __name__ == "__main__":
    worker.trained = train
    sys.exit(worker.main(Path(sys.argv[1]), int(sys.argv[2])))
