"""Panoptic PNGs -> PQ: time of ours and of the usual way, in turn, as a ratio, and how it grows with the images.

    python benchmarks/evaluation.py [FOLDER] [--rounds 5] [--one-thread]

FOLDER holds `annotations.json` and `panoptic/` (default: the photos that ship here). The predictions are the true maps,
moved by four pixels, every seventh segment lost; both sides give the same PQ. The usual way decodes two PNGs for each
photo, for it reads predictions from files. So do we in the first row; in the second they are in memory, as they are
when `oneformer evaluate` scores them, and only the truth is decoded. The usual way is written for this comparison: for
every photo it counts the pairs of ids with one sort over all pixels and goes through segments and pairs one by one in
Python, as the COCO panoptic tool does.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from _command import parser, run
from _measure import in_turn
from _report import Row
from oneformer.data.decode import read_panoptic
from oneformer.metrics.pq import MapSegments, PanopticQuality

PHOTOS = Path(__file__).resolve().parent.parent / "samples" / "photos"
MOVE, LOST, VOID, OFFSET = 4, 7, 0, 256**3
Photo = tuple[Path, Path, list[dict[str, Any]], list[dict[str, Any]]]


def photos(folder: Path, out: Path) -> tuple[list[Photo], dict[int, bool]]:
    """True and predicted PNG with their segments for each photo; and the classes, things or not."""
    content = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    things = {c["id"]: bool(c["isthing"]) for c in content["categories"]}
    made = []
    for row in content["annotations"]:
        true = folder / "panoptic" / row["file_name"]
        ids = np.roll(read_panoptic(true), MOVE, axis=1)
        kept = [
            s for i, s in enumerate(row["segments_info"]) if i % LOST and not s["iscrowd"] and (ids == s["id"]).any()
        ]
        ids = np.where(np.isin(ids, [s["id"] for s in kept]), ids, VOID)
        guess = out / row["file_name"]
        Image.fromarray(np.stack([ids >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)).save(guess)
        made.append((true, guess, row["segments_info"], kept))
    return made, things


def ours(chosen: Sequence[Photo], things: dict[int, bool], maps: dict[Path, np.ndarray] | None = None) -> float:
    """PQ in percent; `maps` are predictions that are there already."""
    place = {category: i for i, category in enumerate(things)}
    quality = PanopticQuality(list(things.values()))

    def listed(segments: list[dict[str, Any]]) -> MapSegments:
        ids, classes = [s["id"] for s in segments], [place[s["category_id"]] for s in segments]
        return MapSegments.of(ids, classes, [bool(s.get("iscrowd", 0)) for s in segments])

    for true, guess, segments, found in chosen:
        predicted = read_panoptic(guess) if maps is None else maps[guess]
        quality.update(predicted, listed(found), truth=read_panoptic(true), truth_segments=listed(segments))
    pq: float = quality.compute([str(category) for category in things])["all"]["PQ"]
    return pq


def usual(chosen: Sequence[Photo], things: dict[int, bool]) -> float:
    """PQ in percent, with a sort of all pixels and loops over segments and pairs."""
    counts = {category: [0.0, 0, 0, 0] for category in things}  # IoU, matches, false alarms, misses
    for true, guess, segments, found in chosen:
        _count(counts, _ids(true), _ids(guess), {s["id"]: s for s in segments}, {s["id"]: dict(s) for s in found})
    scored = [c for c in counts.values() if sum(c[1:])]
    return 100 * sum(iou / (matches + alarms / 2 + misses / 2) for iou, matches, alarms, misses in scored) / len(scored)


def _ids(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        pixels = np.array(image, dtype=np.uint32)
    return pixels[..., 0] + 256 * pixels[..., 1] + 256**2 * pixels[..., 2]


def _count(
    counts: dict[int, list[float]],
    truth: np.ndarray,
    guess: np.ndarray,
    segments: dict[int, dict[str, Any]],
    found: dict[int, dict[str, Any]],
) -> None:
    """Add one photo."""
    for number, area in zip(*np.unique(guess, return_counts=True), strict=True):
        if number != VOID:
            found[int(number)]["area"] = int(area)
    pairs = np.unique(truth.astype(np.uint64) * OFFSET + guess.astype(np.uint64), return_counts=True)
    shared = Counter({divmod(int(pair), OFFSET): int(area) for pair, area in zip(*pairs, strict=True)})
    matched: set[tuple[int, int]] = set()
    for (one, other), area in shared.items():
        true, mine = segments.get(one), found.get(other)
        if true is None or mine is None or true["iscrowd"] or true["category_id"] != mine["category_id"]:
            continue
        iou = area / (true["area"] + mine["area"] - area - shared.get((VOID, other), 0))
        if iou > 0.5:
            counts[true["category_id"]][0] += iou
            counts[true["category_id"]][1] += 1
            matched.add((one, other))
    crowd = {s["category_id"]: number for number, s in segments.items() if s["iscrowd"]}
    for number, s in segments.items():
        counts[s["category_id"]][3] += not s["iscrowd"] and all(one != number for one, _ in matched)
    for number, s in found.items():
        excused = shared.get((VOID, number), 0) + shared.get((crowd.get(s["category_id"], -1), number), 0)
        counts[s["category_id"]][2] += all(other != number for _, other in matched) and excused / s["area"] <= 0.5


def measure(options: argparse.Namespace) -> list[Row]:
    """All photos, and a quarter and four times of them, for the growth."""
    with tempfile.TemporaryDirectory() as folder:
        chosen, things = photos(options.folder, Path(folder))
        assert abs(ours(chosen, things) - usual(chosen, things)) < 1e-3, "both ways must find the same"
        sizes = {"all": chosen, "a quarter": chosen[: max(1, len(chosen) // 4)], "four times": chosen * 4}
        sides = {f"ours, {name}": lambda part=part: ours(part, things) for name, part in sizes.items()}
        maps = {guess: read_panoptic(guess) for _, guess, _, _ in chosen}
        sides["ours, in memory"] = lambda: ours(chosen, things, maps)
        times = in_turn({**sides, "usual": lambda: usual(chosen, things)}, rounds=options.rounds)
    work = f"PQ of {len(chosen)} photos"
    rows = [
        Row(f"{work}, predictions from PNGs", times["ours, all"], times["usual"], "usual way"),
        Row(f"{work}, predictions in memory", times["ours, in memory"], times["usual"], "usual way, from PNGs"),
    ]
    for name in ("a quarter", "four times"):
        spread, count = times[f"ours, {name}"], len(sizes[name])
        rows.append(Row(f"PQ of {count} photos", spread, note=f"{spread.median / count:.2f} ms for a photo"))
    return rows


if __name__ == "__main__":
    made = parser(__doc__, rounds=5)
    made.add_argument("folder", nargs="?", type=Path, default=PHOTOS, help="annotations.json and panoptic/")
    run(measure, made.parse_args())
