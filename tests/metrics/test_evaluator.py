"""The evaluator scores each task at the photo's size; any split of the images gives the same scores to the last bit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from metrics.scenes import IS_THING, NAMES, random_scene
from oneformer.data.batch import Batch
from oneformer.data.labels import LabelMap
from oneformer.data.record import SegmentInfo
from oneformer.data.sample import Truth
from oneformer.metrics import Evaluator
from oneformer.metrics.evaluator import truth_classes, unique_names
from oneformer.metrics.miou import IGNORED
from oneformer.segments import TASKS, Outputs
from oneformer.spec.model import TestSpec

LABELS = LabelMap(NAMES, IS_THING, colors=((0, 0, 0),) * len(NAMES), category_ids=tuple(range(1, len(NAMES) + 1)))
PHOTO, SIZE, PADDED = (60, 80), (48, 64), (64, 64)
Q, K = 12, len(NAMES)


def batch_of(truths: list[Truth], names: list[str], *, padded: tuple[int, int], size: tuple[int, int]) -> Batch:
    count = len(truths)
    return Batch(
        images=torch.zeros(count, 3, *padded), sizes=[size] * count, original_sizes=[t.id_map.shape for t in truths],
        tasks=["panoptic"] * count, task_tokens=torch.zeros(count, 77), text_tokens=None, text_index=None, targets=None,
        truths=truths, names=names, image_ids=list(names),
    )  # fmt: skip


def truth_of(id_map: np.ndarray, *segments: tuple[int, int, bool]) -> Truth:
    return Truth(id_map, tuple(SegmentInfo(i, c, crowd, int((id_map == i).sum())) for i, c, crowd in segments))


def images(count: int, *, seed: int = 0) -> list[tuple[Outputs, Batch]]:
    """Outputs that draw a random scene's prediction on quarter-size masks, with noise, and the scene's truth."""
    made = []
    for i in range(count):
        rng = torch.Generator().manual_seed(seed + i)
        scene = random_scene(seed + i)
        masks = torch.randn(Q, PADDED[0] // 4, PADDED[1] // 4, generator=rng) - 4
        classes = torch.randn(Q, K + 1, generator=rng)
        classes[:, K] += 3
        small = torch.from_numpy(scene.predicted[::5, ::5].copy())  # 12 x 16 of the mask's 16 x 16
        for q, info in enumerate(scene.predicted_segments[:Q]):
            masks[q, :12][small == info.segment_id] += 8
            classes[q, info.class_id] += 8
        truth = truth_of(scene.truth, *((t.segment_id, t.class_id, t.iscrowd) for t in scene.truth_segments))
        batch = batch_of([truth], [f"{i}.jpg"], padded=PADDED, size=SIZE)
        made.append((Outputs(classes[None], masks[None]), batch))
    return made


def joined(parts: list[tuple[Outputs, Batch]]) -> tuple[Outputs, Batch]:
    batches = [batch for _, batch in parts]
    truths, names = [t for b in batches for t in b.truths or ()], [n for b in batches for n in b.names]
    return Outputs.cat([o for o, _ in parts]), batch_of(truths, names, padded=PADDED, size=SIZE)


def evaluator(tasks: tuple[str, ...] = TASKS) -> Evaluator:
    return Evaluator(LABELS, tasks=tasks, test=TestSpec(object_mask_threshold=0.3, overlap_threshold=0.3))


def scored(parts: list[tuple[Outputs, Batch]]) -> Evaluator:
    made = evaluator()
    for outputs, batch in parts:
        for task in TASKS:
            made.update(task, outputs, batch)
    return made


def test_any_split_over_batches_and_ranks_gives_the_same_scores() -> None:
    parts = images(12)
    whole = scored(parts).compute()
    assert whole.panoptic["all"]["PQ"] > 5
    assert whole.instance["AP"] > 1
    assert whole.semantic["mIoU"] > 5
    for seed in range(3):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(parts))
        cuts = np.sort(rng.choice(np.arange(1, len(parts)), size=2, replace=False))
        ranks = [scored([joined([parts[i] for i in group])]) for group in np.split(order, cuts)]
        again = json.loads(json.dumps([{k: v for k, v in r.state().items() if k.startswith("image")} for r in ranks]))
        states = [{**rank.state(), **plain} for rank, plain in zip(ranks, again, strict=True)]
        ranks[0].merge(states)
        merged = ranks[0].compute()
        assert merged == whole


def test_merge_replaces_what_was_counted_here() -> None:
    one = scored(images(2))
    before = one.compute()
    one.merge([one.state()])
    assert one.compute() == before


def test_the_state_is_tensors_lists_and_plain_values() -> None:
    def plain(value: object) -> bool:
        if isinstance(value, dict):
            return all(type(k) is str and plain(v) for k, v in value.items())
        if isinstance(value, list):
            return all(plain(v) for v in value)
        return type(value) in (int, float, str) or (isinstance(value, torch.Tensor) and value.dtype == torch.int64)

    assert plain(scored(images(2)).state())


def test_scores_are_json_without_nan_and_tasks_that_were_not_asked_for_are_absent() -> None:
    one = evaluator(("panoptic",))
    outputs, batch = images(1)[0]
    one.update("panoptic", outputs, batch)
    scores = one.compute()
    assert list(scores.to_dict()) == ["panoptic"]
    json.dumps(scored(images(2)).compute().to_dict(), allow_nan=False)
    assert set(scores.kpi()) <= {"PQ", "PQ_things", "PQ_stuff"}


def test_kpi_names() -> None:
    kpi = scored(images(6)).compute().kpi("test_")
    wanted = {
        "test_mIoU",
        "test_ACC_all",
        "test_PQ",
        "test_PQ_things",
        "test_PQ_stuff",
        "test_AP",
        "test_IoU_back_ground",
    }
    assert wanted <= set(kpi)
    assert "test_IoU_never_seen" not in kpi
    assert all(isinstance(value, float) and 0 <= value <= 100 for value in kpi.values())


def test_nothing_scored_gives_nones() -> None:
    scores = evaluator().compute()
    assert scores.semantic["mIoU"] is scores.panoptic["all"]["PQ"] is scores.instance["AP"] is None
    assert scores.kpi() == {}
    json.dumps(scores.to_dict(), allow_nan=False)


def test_image_scores_name_the_worst_image_first() -> None:
    parts = images(5)
    parts[3][0].class_logits[..., :K] -= 50  # finds nothing
    scores = scored(parts).compute()
    name, value = scores.worst_first("panoptic")[0]
    assert (name, value) == ("3.jpg", 0.0)
    assert len(scores.image_scores["semantic"]) == 5
    assert "instance" not in scores.image_scores


def test_a_perfect_prediction_scores_100_in_every_task() -> None:
    id_map = np.zeros((32, 32), dtype=np.int32)
    id_map[:16] = 1
    id_map[16:, :16] = 2
    truth = truth_of(id_map, (1, 1, False), (2, 0, False))
    masks = torch.stack([torch.from_numpy((id_map == i) * 40.0 - 20.0) for i in (1, 2)])
    logits = torch.full((2, K + 1), -20.0)
    logits[0, 1] = logits[1, 0] = 20.0
    batch = batch_of([truth], ["x"], padded=(32, 32), size=(32, 32))
    one = evaluator()
    for task in TASKS:
        one.update(task, Outputs(logits[None], masks[None]), batch)
    kpi = one.compute().kpi()
    # The lower right quarter is void: whatever is predicted there costs nothing.
    for name in ("mIoU", "ACC_all", "PQ", "PQ_things", "PQ_stuff", "AP"):
        assert kpi[name] == pytest.approx(100.0), name


def test_void_and_crowd_are_no_class_in_the_semantic_truth() -> None:
    truth = truth_of(np.array([[0, 5, 9, 7]], dtype=np.int32), (5, 2, False), (9, 1, True))
    assert truth_classes(truth).tolist() == [[IGNORED, 2, IGNORED, IGNORED]]
    assert truth_classes(truth_of(np.zeros((1, 2), np.int32))).tolist() == [[IGNORED] * 2]


def test_classes_of_equal_name_are_kept_apart() -> None:
    assert unique_names(["a", "b", "a"]) == ("a (0)", "b", "a (2)")


def test_a_batch_without_truth_is_our_own_fault() -> None:
    outputs, batch = images(1)[0]
    batch.truths = None
    with pytest.raises(AssertionError, match="without truth"):
        evaluator().update("semantic", outputs, batch)
