"""The benchmark of the loader runs on the photos that ship here, and its peer finds the same objects as we do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
CODE = """
import json, sys
from pathlib import Path
import torch
from _mapper import WAYS, MaskSamples, finished, stacked
from loader import PHOTOS, libraries
import _mapper
_mapper.SCALES = (1.0, 1.0)
found = {}
for name, library in libraries().items():
    for way in WAYS:
        samples = MaskSamples(PHOTOS, library, way, False, 480)
        one = samples[0]
        batch = finished(stacked([one, one]))
        assert batch["image"].dtype == torch.float32 and abs(float(batch["image"].mean())) < 3
        found[f"{name} {way}"] = [sorted(zip(one["labels"].tolist(), one["masks"].flatten(1).sum(1).tolist())),
                                   list(one["image"].shape), list(one["texts"].shape)]
content = json.loads((PHOTOS / "annotations.json").read_text())
places = {c["id"]: i for i, c in enumerate(content["categories"])}
areas = sorted((places[s["category_id"]], s["area"]) for s in content["annotations"][0]["segments_info"]
               if not s["iscrowd"])
print(json.dumps([found, areas]))
"""


def test_the_peer_finds_every_object_whichever_way_it_goes() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=FOLDER, capture_output=True, text=True, check=True)
    found, areas = json.loads(done.stdout.splitlines()[-1])
    assert len(found) in (3, 6), "with Pillow, and with OpenCV where it is installed"
    for objects, image, texts in found.values():
        assert [tuple(o) for o in objects] == [tuple(a) for a in areas], (
            "photos of 480 pixels at scale 1 are not scaled"
        )
        assert image == [3, 480, 480] and texts == [134, 77]


def test_it_runs_on_the_photos_that_ship_here(tmp_path: Path) -> None:
    words = ["--side", "96", "--workers", "0", "--rounds", "1", "--json", str(tmp_path / "rows.json")]
    command = [sys.executable, "loader.py", *words]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {row["work"].split(",")[0] for row in rows} == {"jitter", "jitter and colours"}
    assert all(row["ours"][0] > 0 and row["peer"][0] > 0 for row in rows)
