"""The look at pixels before a run, and the whole check: every fault found, memory bounded, processes alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from oneformer.data.check import check, check_pixels, walk
from oneformer.data.decode import read_panoptic
from oneformer.data.findings import CASES, KEPT, KINDS, Finding, Findings
from oneformer.data.formats import read_records
from oneformer.data.inspect import Inspector
from oneformer.data.labels import read_labels
from oneformer.data.parallel import FEW, ordered
from oneformer.data.record import Record
from oneformer.data.tally import Tally
from oneformer.spec.data import DatasetSpec
from tiny import TinyDataset, ids_to_rgb, write_tiny_dataset


def test_a_sound_data_set_has_no_faults(dataset: DatasetSpec) -> None:
    assert check_pixels(read_records(dataset, "train", read_labels(dataset))) == []


def test_each_broken_photo_gives_one_message_that_names_it(
    broken: TinyDataset, section: Callable[[TinyDataset], DatasetSpec]
) -> None:
    dataset = section(broken)
    records = read_records(dataset, "train", read_labels(dataset))
    Image.new("RGB", (10, 10)).save(records[0].image_path)
    ids = read_panoptic(records[1].label_path)
    ids[0, :5] = 999
    Image.fromarray(ids_to_rgb(ids)).save(records[1].label_path)
    ids = read_panoptic(records[2].label_path)
    gone = records[2].segments[0].segment_id
    Image.fromarray(ids_to_rgb(np.where(ids == gone, 0, ids))).save(records[2].label_path)
    Path(records[3].label_path).write_bytes(b"\x89PNG\r\n\x1a\n")
    messages = [fault.message for fault in check_pixels(records)]
    assert len(messages) == 4 and all(f"scene_00{i}.png" in message for i, message in enumerate(messages))
    assert "the photo is 10 x 10" in messages[0] and "does not list: 999" in messages[1]
    assert f"without a pixel in the mask: {gone}" in messages[2] and "mask file is broken" in messages[3]
    assert len(check_pixels(records, limit=2)) == 2


def test_a_walk_over_many_records_holds_only_a_few(dataset: DatasetSpec) -> None:
    """Records come from a generator; memory does not grow with their number, and findings are counted, not kept."""
    labels = read_labels(dataset)
    record = replace(read_records(dataset, "train", labels)[0], image_path="/nowhere/photo.png")
    alive = peak = 0

    class Counted(str):
        """A path that knows whether anyone still holds it."""

        def __new__(cls, text: str) -> Counted:
            nonlocal alive, peak
            alive += 1
            peak = max(peak, alive)
            return super().__new__(cls, text)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def many(count: int) -> Iterator[Record]:
        for number in range(count):
            yield replace(record, image_id=number, image_path=Counted(f"/nowhere/{number}.png"))

    findings, tally, told = Findings(), Tally(labels, "train"), []
    walk(many(3000), Inspector(labels.thing_ids), tally, findings=findings, workers=0, done=told.append)
    assert (tally.images, tally.broken, len(told)) == (3000, 3000, 3000)
    assert findings.counts["error", "missing_file"] == 3000
    assert len(findings.kept["error", "missing_file"]) == KEPT and len(findings.cases["missing_file"]) == CASES
    assert peak < 2 * FEW


def test_processes_see_what_one_process_sees(dataset: DatasetSpec) -> None:
    labels = read_labels(dataset)
    records = read_records(dataset, "train", labels)
    inspect = Inspector(labels.thing_ids, hashed=True)
    alone = list(ordered(inspect, iter(records), workers=0))
    assert list(ordered(inspect, iter(records), workers=2)) == alone
    assert [record for record, _ in alone] == records and all(seen.digest for _, seen in alone)


def test_numbers_of_a_split(dataset: DatasetSpec) -> None:
    labels = read_labels(dataset)
    tally = Tally(labels, "train")
    records = read_records(dataset, "train", labels)
    walk(iter(records), Inspector(labels.thing_ids), tally, findings=Findings(), workers=0)
    numbers = tally.to_dict()
    assert (numbers["images"], numbers["broken"], numbers["tasks"]) == (12, 0, ["semantic", "instance", "panoptic"])
    assert numbers["width"] == [96, 96, 96] and numbers["height"] == [64, 64, 64]
    ids = [read_panoptic(r.label_path) for r in records]
    assert numbers["unlabelled"] == round(sum((i == 0).sum() for i in ids) / (12 * 64 * 96), 6)
    for name, own in numbers["classes"].items():
        mine = [s for r in records for s in r.segments if labels.names[s.class_id] == name and not s.iscrowd]
        assert own["pixels"] == sum(s.area for s in mine)
        if own["isthing"]:
            assert own["objects"] == len(mine) == own["small"] + own["medium"] + own["large"]
        else:
            assert own["images"] == own["objects"] == 12


def test_a_leak_is_named_in_both_splits_whatever_the_files_are_called(
    broken: TinyDataset, section: Callable[[TinyDataset], DatasetSpec], tmp_path: Path
) -> None:
    other = write_tiny_dataset(tmp_path / "other", images=3, seed=9)
    (other.images / "scene_001.png").write_bytes((broken.images / "scene_002.png").read_bytes())
    dataset = section(broken)
    dataset.test.annotations = ""
    dataset.val.images, dataset.val.panoptic = str(other.images), str(other.panoptic)
    dataset.val.annotations = str(other.annotations)
    found: list[Finding] = []
    check(dataset, findings=Findings(found.append), workers=0)
    leaks = [f for f in found if f.kind == "leak"]
    assert [(f.file, f.id, f.split) for f in leaks] == [(str(other.images / "scene_001.png"), "101", "val")]
    assert leaks[0].what == "the photo is in dataset.train and in dataset.val"


def test_the_guide_lists_every_kind_of_finding() -> None:
    guide = Path(__file__).resolve().parents[2] / "docs" / "guides" / "data.md"
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|$", guide.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(rows) == KINDS
