"""Several data sets are scored apart and together: each as if it were alone, all as if they were one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from metrics.test_evaluator import LABELS, Batch, Outputs, images, joined, scored
from oneformer.metrics.apart import ApartEvaluator
from oneformer.segments import TASKS
from oneformer.spec.model import TestSpec

Part = tuple[Outputs, Batch]
SETS = ["city"] * 4 + ["farm"] * 3 + ["city"]  # a list may name a data set's name twice


def apart(sets: list[str]) -> ApartEvaluator:
    return ApartEvaluator(LABELS, test=TestSpec(object_mask_threshold=0.3, overlap_threshold=0.3), sets=sets)


def counted(parts: list[Part], sets: list[str], *, batch: int, ranks: int = 1) -> ApartEvaluator:
    states, made = [], apart(sets)
    for rank in range(ranks):
        made = apart(sets)
        made.start(rank, ranks)
        mine = parts[rank::ranks]
        for start in range(0, len(mine), batch):
            outputs, whole = joined(mine[start : start + batch])
            for task in TASKS:
                made.update(task, outputs, whole)
        states.append(made.state())
    made.merge(states)
    return made


@pytest.mark.parametrize(("batch", "ranks"), [(1, 1), (3, 1), (8, 1), (2, 3)])
def test_each_is_scored_as_alone_and_all_as_one(batch: int, ranks: int) -> None:
    parts = images(8)
    # Photos of two data sets may have one name and id; only the scores of all see both.
    same = [
        (outputs, replace(b, names=["0.jpg"], image_ids=["0.jpg"])) if i in (0, 4) else (outputs, b)
        for i, (outputs, b) in enumerate(parts)
    ]
    found = counted(same, SETS, batch=batch, ranks=ranks).compute()
    whole = scored(parts).compute()
    assert {k: v for k, v in found.to_dict().items() if k != "datasets"} == whole.to_dict()
    assert list(found.apart) == ["city", "farm"]
    for name, own in found.apart.items():
        alone = scored([part for part, of in zip(parts, SETS, strict=True) if of == name]).compute()
        assert own.to_dict() == alone.to_dict()
    assert found.apart["city"].to_dict() != found.apart["farm"].to_dict()


def test_metrics_json_and_kpis_have_both() -> None:
    scores = counted(images(8), SETS, batch=4).compute()
    told = json.loads(json.dumps(scores.to_dict()))
    assert set(told) == {"semantic", "panoptic", "instance", "datasets"}
    assert set(told["datasets"]["farm"]) == {"semantic", "panoptic", "instance"}
    kpi = scores.kpi("test_")
    assert kpi["test_PQ/farm"] == told["datasets"]["farm"]["panoptic"]["all"]["PQ"]
    assert {"test_mIoU", "test_mIoU/city", "test_AP/farm"} <= set(kpi)
    assert not [name for name in kpi if name.startswith("test_IoU_") and "/" in name]


@pytest.mark.parametrize("sets", [[], [""] * 3, ["one"] * 3])
def test_a_single_data_set_is_scored_once(sets: list[str]) -> None:
    scores = counted(images(3), sets, batch=2).compute()
    assert scores.apart == {} and "datasets" not in scores.to_dict()
    assert not [name for name in scores.kpi() if "/" in name]


def test_a_new_start_forgets() -> None:
    parts = images(8)
    made = counted(parts, SETS, batch=8)
    made.start()
    for task in TASKS:
        made.update(task, *joined(parts))
    assert made.compute().to_dict() == counted(parts, SETS, batch=8).compute().to_dict()
