"""The sample nuclei -> a network trained from nothing, scored on three tasks, and pictures of what it sees.

    python examples/demo.py          # at most eight minutes on two CPU cores
    python examples/demo.py --full   # an hour of training

The same as typing the three commands that it prints.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from oneformer import cli

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path("results/demo")


def commands(full: bool) -> list[list[str]]:
    """The demo as the arguments of three `oneformer` commands."""
    spec = ["-e", "specs/nuclei.yaml"]
    best = f"{RESULTS}/train/oneformer_model_best.pth"
    length = ["train.max_minutes=60"] if full else []
    return [
        ["train", *spec, "train.overwrite=true", *length],
        ["evaluate", *spec, f"evaluate.checkpoint={best}"],
        ["inference", *spec, f"inference.checkpoint={best}"],
    ]


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
    print(f"\nDone in {minutes:.1f} minutes. Look at {RESULTS}/evaluate/report.html and {RESULTS}/inference/overlays/")
    return 0


if __name__ == "__main__":
    import os

    os.chdir(ROOT)  # the spec names the sample data relative to the project's root
    sys.exit(main())
