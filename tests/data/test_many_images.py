"""Sixty thousand images: the full check and the loader's index take a bounded amount of memory for each of them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tiny import BOX, CATEGORIES, DISK, GROUND, SKY, ids_to_rgb

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc (Linux)"),
]
IMAGES, SEGMENTS, SIDE = 60_000, 11, 22
# Measured: 63 MiB of the check, 44 of its worker, 570 bytes of the index, 23 MiB of a forked worker of the loader.
# The annotations parsed as a whole, or the records as Python objects, are several hundred MiB.
CHECK_MIB, WORKER_MIB, INDEX_BYTES, INDEX_MIB = 150, 100, 800, 100

COMMON = """
import json, resource, sys
from pathlib import Path
from oneformer.data.check import check
from oneformer.data.findings import Findings
from oneformer.data.formats import read_records
from oneformer.data.labels import read_labels
from oneformer.data.loader import train_loader
from oneformer.spec.data import DatasetSpec
from oneformer.spec.model import ModelSpec

root = Path(sys.argv[1])

def mib(name, process="self"):
    rows = dict(row.split(":", 1) for row in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(rows[name].split()[0]) / 1024

def own(process):
    rows = [row.split() for row in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]]
    return sum(int(row[1]) for row in rows if row[0] in ("Private_Clean:", "Private_Dirty:")) / 1024

dataset = DatasetSpec(label_map=str(root / "label_map.json"))
dataset.train.images, dataset.train.panoptic = str(root / "images"), str(root / "panoptic")
dataset.train.annotations = str(root / "annotations.json")
before = mib("VmRSS")
"""
CHECK = """
if __name__ == "__main__":
    findings = Findings()
    tally = check(dataset, findings=findings, workers=2)["train"]
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    kinds = [kind for _, kind, _, _ in findings.rows()]
    print(json.dumps([tally.images, tally.broken, kinds, mib("VmHWM") - before, worker - before]))
"""
INDEX = """
if __name__ == "__main__":
    import pickle
    dataset.train.num_workers = 1
    dataset.augmentation.train_crop_size = [64, 64]
    labels = read_labels(dataset)
    loader = train_loader(dataset, labels, read_records(dataset, "train", labels), model=ModelSpec(), seed=0)
    index = len(pickle.dumps(loader.dataset))
    loader.multiprocessing_context = sys.argv[2]
    names = []
    for batch in loader:
        names += batch.names
        if len(names) >= 2000:
            break
    worker = loader._iterator._workers[0].pid
    print(json.dumps([len(loader.dataset), len(set(names)), index, own(worker), before]))
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Photos of a few bytes, no two alike, with the annotations of eleven segments each: a JSON of 60 MiB and more."""
    root = tmp_path_factory.mktemp("many")
    (root / "images").mkdir()
    (root / "panoptic").mkdir()
    (root / "label_map.json").write_text(json.dumps(CATEGORIES))
    ids = 70_001 * (1 + np.arange(SIDE) // (SIDE // SEGMENTS))[:, None] + np.zeros((SIDE, SIDE), int)
    Image.fromarray(ids_to_rgb(ids)).save(root / "panoptic" / "mask.png")
    photo = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), "navy").save(photo, "PNG")
    for place in range(IMAGES):  # what follows a PNG's end belongs to nobody, but makes its hash another one
        (root / "images" / f"{place:012d}.png").write_bytes(photo.getvalue() + place.to_bytes(4, "little"))
    categories = [SKY, GROUND, *[DISK, BOX] * SEGMENTS]  # stuff once, and things
    area = SIDE * SIDE // SEGMENTS
    segments = [
        {"id": 70_001 * (i + 1), "category_id": categories[i], "iscrowd": 0, "area": area, "bbox": [0, 2 * i, SIDE, 2]}
        for i in range(SEGMENTS)
    ]
    names = [f"{place:012d}.png" for place in range(IMAGES)]
    images = [{"id": i, "file_name": n, "height": SIDE, "width": SIDE} for i, n in enumerate(names)]
    told = [{"image_id": i, "file_name": "mask.png", "segments_info": segments} for i in range(IMAGES)]
    content = {"images": images, "annotations": told, "categories": CATEGORIES}
    (root / "annotations.json").write_text(json.dumps(content))
    yield root


def measured(folder: Path, root: Path, code: str, *words: str) -> list:
    script = folder / "measure.py"
    script.write_text(COMMON + code)
    done = subprocess.run([sys.executable, str(script), str(root), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_full_check_holds_no_more_than_a_few_kilobytes_for_each_image(many: Path, tmp_path: Path) -> None:
    size = (many / "annotations.json").stat().st_size / 2**20
    assert size > 50, "parsed as a whole, this much becomes four to eight times as much"
    images, broken, kinds, grown, worker = measured(tmp_path, many, CHECK)
    print(
        f"annotations {size:.0f} MiB; the check took {grown:.0f} MiB, a worker {worker:.0f} MiB more than the imports"
    )
    assert (images, broken, kinds) == (IMAGES, 0, [])
    assert grown < CHECK_MIB and worker < WORKER_MIB


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_a_loaders_index_is_small_and_its_worker_holds_little_else(many: Path, tmp_path: Path, way: str) -> None:
    images, seen, index, worker, imports = measured(tmp_path, many, INDEX, way)
    print(f"index {index / IMAGES:.0f} bytes for each image; the worker's own memory {worker:.0f} MiB, {way}")
    assert (images, seen) == (IMAGES, 2000)
    assert index < INDEX_BYTES * IMAGES
    assert worker < (0 if way == "fork" else imports) + INDEX_MIB
