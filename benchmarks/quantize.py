"""The demo's model through every backend of `oneformer quantize` -> size, time and scores before and after.

    python benchmarks/quantize.py [results/demo/train/oneformer_model_best.pth] [--images 40] [--only NAME ...]

Needs what `make demo` leaves, and `pip install "oneformer[quantize]"`; backends that are not installed are left out and
said so. Prints the table and writes it into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from _measure import hardware, today, versions
from _report import write_section
from oneformer.actions import export, quantize
from oneformer.errors import MissingExtra
from oneformer.spec.load import load_spec

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "benchmarks.md"
OUT = ROOT / "results" / "quantize"
EVERYTHING = "quantize.layers=[{module_name: Linear}, {module_name: Conv2d}]"
# Name -> what is quantized how; graphs from the exported file, the others from the checkpoint.
RUNS: dict[str, list[str]] = {
    "torchao, int8 weights": [],
    "torchao, int4 weights": ["quantize.layers=[{weights: int4}]"],
    "torchao, fp8 weights": ["quantize.layers=[{weights: fp8_e4m3fn}]"],
    "torchao, int8 dynamic": ["quantize.mode=dynamic_ptq"],
    "modelopt.pytorch, int8 static": ["quantize.backend=modelopt.pytorch", "quantize.mode=static_ptq"],
    "modelopt.onnx, int8 static": ["quantize.backend=modelopt.onnx", "quantize.mode=static_ptq"],
    "onnxruntime, int8 dynamic": ["quantize.backend=onnxruntime", "quantize.mode=dynamic_ptq"],
    "onnxruntime, int8 static": ["quantize.backend=onnxruntime", "quantize.mode=static_ptq"],
    "openvino, int8 weights": ["quantize.backend=openvino"],
    "openvino, int8 static": ["quantize.backend=openvino", "quantize.mode=static_ptq"],
    "openvino, int8 static, all layers": ["quantize.backend=openvino", "quantize.mode=static_ptq", EVERYTHING],
}  # fmt: skip
HEAD = ("quantized with", "MiB", "time", "mIoU", "PQ", "AP", "pixels alike", "segments found again")
FLOAT = "in float32, percent"
CALIBRATION = "quantize.calibration_images=16"


def main() -> None:
    """Export, quantize in every way, tell."""
    options = arguments()
    if options.one_thread:
        torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    graph = exported(options.checkpoint)
    for name in options.only or RUNS:
        words = RUNS[name]
        takes_graph = any(
            f"backend={b}" in word for b in ("onnxruntime", "openvino", "modelopt.onnx") for word in words
        )
        report = quantized(graph if takes_graph else options.checkpoint, words, name, images=options.images)
        if report:
            (OUT / f"{slug(name)}.json").write_text(json.dumps(report), encoding="utf-8")
    found = {name: json.loads(path.read_text()) for name in RUNS if (path := OUT / f"{slug(name)}.json").is_file()}
    lines = told(found, options)
    print("\n".join(lines))
    write_section(DOCUMENT, "quantize", lines, by="quantize.py")


def exported(checkpoint: Path) -> Path:
    """The checkpoint as an ONNX file of the samples' size."""
    target = OUT / "export" / "model.onnx"
    if not target.is_file():
        words = [f"export.checkpoint={checkpoint}", f"results_dir={OUT}", "export.input_height=256",
                 "export.input_width=256"]  # fmt: skip
        export.run(load_spec(ROOT / "specs" / "nuclei.yaml", words, action="export"))
    return target


def quantized(model: Path, words: list[str], name: str, *, images: int) -> dict[str, Any] | None:
    """The report of one quantization, or None where its package is not installed."""
    print(f"== {name}", flush=True)
    more = [f"quantize.model_path={model}", f"quantize.compare_images={images}", "quantize.overwrite=true", CALIBRATION,
            f"quantize.results_dir={OUT / slug(name)}"]  # fmt: skip
    try:
        done = quantize.run(load_spec(ROOT / "specs" / "nuclei.yaml", [*more, *words], action="quantize"))
    except MissingExtra as error:
        print(f"left out: {error.message}")
        return None
    assert isinstance(done, quantize.Quantized)
    return done.report.to_dict()


def slug(name: str) -> str:
    """A name for files."""
    return name.replace(",", "").replace(" ", "_")


def told(found: dict[str, dict[str, Any]], options: argparse.Namespace) -> list[str]:
    """Lines of Markdown."""
    words = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    threads = ", one thread" if options.one_thread else ""
    command = f"python benchmarks/quantize.py --images {options.images}{' --one-thread' if options.one_thread else ''}"
    about = f"`{command}` on {hardware()}{threads}; {versions()}; {today()}; commit `{commit.strip()}`."
    first = next(iter(found.values()))
    scores = ", ".join(f"{name} {score['before']:.2f}" for name, score in first["scores"].items())
    body = [HEAD, *(cells(name, report) for name, report in found.items())]
    widths = [max(len(row[i]) for row in body) for i in range(len(HEAD))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in body]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return [about, "", f"On {first['images']}; {FLOAT}: {scores}. The columns show what changed.", "",
            lines[0], rule, *lines[1:]]  # fmt: skip


def cells(name: str, report: dict[str, Any]) -> tuple[str, ...]:
    """One row."""
    size, seconds, agreement = report["size_bytes"], report["seconds_per_image"], report["agreement"]
    changes = [f"{report['scores'][n]['difference']:+.2f}" for n in ("mIoU", "PQ", "AP")]
    return (
        name,
        f"{size['before'] / 2**20:.1f} -> {size['after'] / 2**20:.1f}",
        f"x {seconds['after'] / seconds['before']:.2f}",
        *changes,
        f"{agreement['pixels']:.2%}",
        f"{agreement['segments']:.1%}",
    )


def arguments() -> argparse.Namespace:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("checkpoint", nargs="?", type=Path, default=ROOT / "results/demo/train/oneformer_model_best.pth")
    made.add_argument("--images", type=int, default=40, help="validation images to compare on; 40 is all of them")
    made.add_argument(
        "--only", nargs="*", choices=list(RUNS), help="only these; the table keeps the last of the others"
    )
    made.add_argument("--one-thread", action="store_true", help="one thread, where other programs use the machine")
    return made.parse_args()


if __name__ == "__main__":
    sys.exit(main())
