"""The sample nuclei -> a network trained from nothing, its scores on three tasks, pictures, and an ONNX file of it.

    python examples/demo.py          # about ten minutes on two CPU cores
    python examples/demo.py --full   # an hour of training

The same as typing the commands that it prints. At the end a table compares the scores of the exported file with those
of the checkpoint.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from oneformer import cli

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path("results/demo")


def commands(full: bool) -> list[list[str]]:
    """The demo as the arguments of `oneformer` commands."""
    spec = ["-e", "specs/nuclei.yaml"]
    best = f"{RESULTS}/train/oneformer_model_best.pth"
    length = ["train.max_minutes=60", "train.num_epochs=1000"] if full else []  # the clock ends it, not the epochs
    return [
        ["train", *spec, "train.overwrite=true", *length],
        ["evaluate", *spec, f"evaluate.checkpoint={best}"],
        ["inference", *spec, f"inference.checkpoint={best}"],
        ["export", *spec, f"export.checkpoint={best}", "export.overwrite=true"],
        [
            "evaluate", *spec, f"evaluate.checkpoint={RESULTS}/export/model.onnx",
            f"evaluate.results_dir={RESULTS}/export/evaluate",
        ],
    ]  # fmt: skip


def table(folder: Path) -> str:
    """The scores of the checkpoint and of the exported file beside one another, in percent."""
    checkpoint, exported = (
        json.loads((folder / name / "metrics.json").read_text(encoding="utf-8"))
        for name in ("evaluate", "export/evaluate")
    )
    lines = [f"{'score':<8}{'checkpoint':>12}{'model.onnx':>12}{'difference':>12}"]
    for name, value in (
        ("mIoU", lambda m: m["semantic"]["mIoU"]),
        ("PQ", lambda m: m["panoptic"]["all"]["PQ"]),
        ("AP", lambda m: m["instance"]["AP"]),
    ):
        mine, yours = value(checkpoint), value(exported)
        lines.append(f"{name:<8}{mine:>12.2f}{yours:>12.2f}{yours - mine:>12.2f}")
    return "\n".join(lines)


def main() -> int:
    """Run the commands one after the other; the exit code of the first that fails, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="train for an hour instead of minutes")
    started = time.monotonic()
    for command in commands(parser.parse_args().full):
        print(f"\n$ oneformer {' '.join(command)}", flush=True)
        code = cli.main(command)
        if code:
            return code
    minutes = (time.monotonic() - started) / 60
    print(f"\n{table(RESULTS)}")
    print(f"\nDone in {minutes:.1f} minutes. Look at {RESULTS}/evaluate/report.html and {RESULTS}/inference/overlays/")
    return 0


if __name__ == "__main__":
    import os

    os.chdir(ROOT)  # the spec names the sample data relative to the project's root
    sys.exit(main())
