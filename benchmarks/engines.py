"""A checkpoint and its exported files -> the scores of each on the same images, and how far they are apart.

    python benchmarks/engines.py results/demo/train/oneformer_model_best.pth -e specs/nuclei.yaml

The files are written to `--folder` unless they are there. They take every size, so that each image has the size it has
with the checkpoint. Exit code 1 when a score differs by more than LIMITS allow.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from _measure import hardware, today, versions
from oneformer.actions import evaluate, export
from oneformer.spec.load import load_spec

NAMES = ("mIoU", "PQ", "AP")
LIMITS = {"fp32": 0.1, "bf16": 0.5}  # points that a score may differ from the checkpoint's in float32


@dataclass(frozen=True)
class Side:
    """One row of the table: a file in a precision."""

    name: str
    file: str
    precision: str


def sides(checkpoint: str, folder: Path) -> list[Side]:
    """The checkpoint first; the others are compared with it."""
    graph, model = str(folder / "export" / "model.onnx"), str(folder / "export" / "model.xml")
    return [
        Side("PyTorch", checkpoint, "fp32"),
        Side("ONNX Runtime", graph, "fp32"),
        Side("OpenVINO", model, "fp32"),
        Side("PyTorch", checkpoint, "bf16"),
        Side("OpenVINO", model, "bf16"),
    ]


def write(checkpoint: str, spec: str, folder: Path) -> None:
    """Export to ONNX and OpenVINO with open sizes, those that are not there."""
    for format, name in (("onnx", "model.onnx"), ("openvino", "model.xml")):
        if not (folder / "export" / name).exists():
            words = [f"export.format={format}", "export.dynamic_size=true", f"export.checkpoint={checkpoint}"]
            words += ["export.input_height=256", "export.input_width=256", f"results_dir={folder}"]
            export.run(load_spec(spec, words, action="export"))


def scores(side: Side, spec: str, folder: Path) -> tuple[dict[str, float], float]:
    """The headline scores in percent, and images per second, reading, preparing and scoring included."""
    words = [f"evaluate.checkpoint={side.file}", f"evaluate.precision={side.precision}", "evaluate.accelerator=cpu"]
    words += [f"results_dir={folder}", "evaluate.report_images=0"]
    done = evaluate.run(load_spec(spec, words, action="evaluate"))
    assert isinstance(done, evaluate.Evaluation)
    found = done.scores.kpi()
    return {name: found[name] for name in NAMES}, float(done.facts["time"].split()[-2])


def main() -> int:
    """Export, score, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("-e", dest="spec", required=True, help="YAML file with the data to score on")
    parser.add_argument("--folder", type=Path, default=Path("results/engines"))
    options = parser.parse_args()
    write(options.checkpoint, options.spec, options.folder)
    print(f"{hardware()}; {versions()}; {today()}")
    print(f"| engine | precision | {' | '.join(NAMES)} | largest difference | images/s |\n|---|---|{'---|' * 5}")
    first: dict[str, float] = {}
    worst: list[str] = []
    for side in sides(options.checkpoint, options.folder):
        found, speed = scores(side, options.spec, options.folder)
        first = first or found
        apart = max(abs(found[name] - first[name]) for name in NAMES)
        cells = [f"{found[name]:.2f}" for name in NAMES]
        print(f"| {side.name} | {side.precision} | {' | '.join(cells)} | {apart:.3f} | {speed:.2f} |", flush=True)
        if apart > LIMITS[side.precision]:
            worst.append(f"{side.name} in {side.precision}: {apart:.3f}, allowed are {LIMITS[side.precision]}")
    print("\n".join(worst))
    return 1 if worst else 0


if __name__ == "__main__":
    sys.exit(main())
