"""All three tasks equal plain loops over pixels and queries: ties, empty masks, all void, 1 and 250 queries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from oneformer.segments import EncodedInstances, Instances, Rules, encoded_instances, instances, panoptic, semantic_map
from oneformer.segments.rle import decode
from segments.loops import Candidate, loop_candidates, loop_panoptic, loop_semantic
from segments.plain import Case, plain_masks, random_case, rules_for

# Mask logits whose sigmoid is exactly 0, 1/2 and 1 in float32, so that equal scores are equal to the last bit.
OFF, EDGE, ON = -200.0, 0.0, 200.0


@st.composite
def tied_cases(draw: st.DrawFn) -> tuple[Case, Rules]:
    """A few coarse values only: most pixels are tied, many masks are empty, many queries say "no object"."""
    queries, classes = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    height, width = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    share = draw(st.sampled_from([(1.0, 0.0, 0.0), (0.2, 0.2, 0.6), (0.4, 0.4, 0.2), (0.0, 0.0, 1.0)]))
    masks = rng.choice([OFF, EDGE, ON], p=share, size=(queries, height, width)).astype(np.float32)
    logits = rng.choice([0.0, 2.0, 6.0], size=(queries, classes + 1)).astype(np.float32)
    if draw(st.booleans()):
        logits[:, -1] = 9.0  # nothing is an object
    same = (height, width)
    case = Case(torch.from_numpy(logits), torch.from_numpy(masks), dict.fromkeys(SIZE_NAMES, same))
    rules = Rules(
        tuple(draw(st.lists(st.booleans(), min_size=classes, max_size=classes))),
        object_mask_threshold=draw(st.sampled_from([0.0, 0.4, 0.8])),
        overlap_threshold=draw(st.sampled_from([0.0, 0.5, 0.8, 1.0])),
        topk=draw(st.integers(1, 25)),
        mask_threshold=draw(st.sampled_from([0.3, 0.5, 0.7])),
    )
    return case, rules


SIZE_NAMES = ("input_size", "size", "original_size")
MANY = settings(max_examples=150, deadline=None, derandomize=True)


def probabilities(case: Case) -> np.ndarray:
    return case.class_logits.softmax(-1).numpy()


def assert_panoptic(case: Case, rules: Rules, masks: Tensor) -> int:
    """Equal to the loop in every pixel; gives the number of segments."""
    ids, segments = loop_panoptic(probabilities(case), masks.sigmoid().numpy(), rules)
    found = panoptic(*case, **case.sizes, rules=rules)
    assert np.array_equal(found.map, ids)
    told = [{"id": s.id, "class_id": s.class_id, "isthing": s.isthing, "area": s.area} for s in found.segments]
    assert told == segments
    return len(segments)


def assert_semantic(case: Case, masks: Tensor) -> None:
    """The first of the best classes; where rounding may decide between two, one of them."""
    scores = loop_semantic(probabilities(case), masks.sigmoid().numpy())
    found = semantic_map(*case, **case.sizes)
    chosen = np.take_along_axis(scores, found[None].astype(np.int64), axis=0)[0]
    assert (scores.max(0) - chosen).max() < 1e-5
    ahead = np.sort(scores, axis=0)[-1] - (np.sort(scores, axis=0)[-2] if len(scores) > 1 else -1)
    sure = (ahead > 1e-5) | (ahead == 0)  # equal to the last bit: every query says the same of both classes
    assert np.array_equal(found[sure], scores.argmax(0)[sure])


def assert_instances(case: Case, rules: Rules, masks: Tensor) -> int:
    """The best pairs with their scores and masks; among pairs of equal probability any may take the last places."""
    everyone = loop_candidates(probabilities(case), masks.numpy(), masks.sigmoid().numpy(), rules)
    best = sorted(everyone, key=lambda c: -c.prob)[: rules.topk]
    last = best[-1].prob if best else 0.0
    plain, encoded = (f(*case, **case.sizes, rules=rules) for f in (instances, encoded_instances))
    for found in (plain, encoded):
        assert (np.diff(found.scores) <= 0).all()
        left = [c for c in everyone if c.prob >= last and c.mask.any()]
        for class_id, score, mask in items(found):
            left.remove(match(left, class_id, score, mask))  # each pair is used once
        assert not [c for c in left if c.prob > last], "a better pair was left out"
        ties = sum(c.prob == last for c in best)
        assert len(found) <= len(best)
        assert len(found) >= sum(c.mask.any() for c in best if c.prob > last)
        if ties == sum(c.prob == last for c in everyone):  # no tie across the cut
            assert len(found) == sum(c.mask.any() for c in best)
    return len(plain)


def items(found: Instances | EncodedInstances) -> list[tuple[int, float, np.ndarray]]:
    masks = found.masks if isinstance(found, Instances) else [decode(rle) for rle in found.rles]
    return list(zip(found.class_ids.tolist(), found.scores.tolist(), masks, strict=True))


def match(left: list[Candidate], class_id: int, score: float, mask: np.ndarray) -> Candidate:
    """The pair that an instance is. Masks may differ in a pixel whose logit is zero up to rounding."""
    alike = [
        c for c in left if c.class_id == class_id and abs(c.score - score) < 1e-4 and (c.mask != mask).mean() < 1e-3
    ]
    assert alike, f"no pair has class {class_id}, score {score} and this mask"
    return min(alike, key=lambda c: abs(c.score - score))


@MANY
@given(tied_cases())
def test_panoptic_equals_the_loop_where_everything_is_tied(drawn: tuple[Case, Rules]) -> None:
    case, rules = drawn
    assert_panoptic(case, rules, case.mask_logits)


@MANY
@given(tied_cases())
def test_semantic_equals_the_loop_where_everything_is_tied(drawn: tuple[Case, Rules]) -> None:
    case, _ = drawn
    assert_semantic(case, case.mask_logits)


@MANY
@given(tied_cases())
def test_instances_equal_the_loop_where_everything_is_tied(drawn: tuple[Case, Rules]) -> None:
    case, rules = drawn
    assert_instances(case, rules, case.mask_logits)


def small_case(seed: int, *, queries: int, classes: int) -> Case:
    """Random outputs on a photo with few enough pixels for loops."""
    case = random_case(seed, sizes="smaller photo", queries=queries, classes=classes)
    case.sizes["original_size"] = (9, 14)
    return case


@pytest.mark.parametrize("queries", [1, 250])
@pytest.mark.parametrize("classes", [1, 150])
@pytest.mark.parametrize("sizes", ["equal", "smaller photo"])
def test_all_tasks_equal_the_loops_on_random_outputs(queries: int, classes: int, sizes: str) -> None:
    case = small_case(queries + classes, queries=queries, classes=classes)
    if sizes == "equal":  # no pixel is resized
        case.mask_logits = case.mask_logits[:, :11, :13].contiguous()
        case.sizes = dict.fromkeys(SIZE_NAMES, (11, 13))
    masks = plain_masks(case)
    rules = rules_for(classes, object_mask_threshold=0.3, overlap_threshold=0.5, topk=100)
    some = assert_panoptic(case, rules, masks) + assert_instances(case, rules, masks)
    assert_semantic(case, masks)
    assert some > 0


def all_no_object(queries: int) -> Case:
    case = small_case(3, queries=queries, classes=4)
    case.class_logits[:, -1] = 30.0
    return case


@pytest.mark.parametrize("queries", [1, 250])
def test_where_nothing_is_an_object_the_map_is_void_and_the_other_tasks_still_follow_their_formulas(
    queries: int,
) -> None:
    """The published semantic rule has no void and the published instances have no threshold."""
    case, rules = all_no_object(queries), rules_for(4, topk=20)
    masks = plain_masks(case)
    assert assert_panoptic(case, rules, masks) == 0
    assert not panoptic(*case, **case.sizes, rules=rules).map.any()
    assert_semantic(case, masks)
    assert_instances(case, rules, masks)


@pytest.mark.parametrize("queries", [1, 250])
def test_empty_masks_give_no_segment_and_no_instance(queries: int) -> None:
    case, rules = small_case(4, queries=queries, classes=4), rules_for(4)
    case.mask_logits = case.mask_logits.abs().neg() - 0.1
    masks = plain_masks(case)
    assert assert_panoptic(case, rules, masks) == assert_instances(case, rules, masks) == 0
    assert_semantic(case, masks)


@pytest.mark.parametrize("seed", range(4))
def test_instances_are_the_published_ones_and_more_things(seed: int) -> None:
    """The published code picks the best pairs of all classes and drops stuff afterwards (docs/decisions/0003)."""
    case, rules = small_case(seed, queries=40, classes=6), rules_for(6, topk=30)
    probs, masks = probabilities(case), plain_masks(case)
    everyone = loop_candidates(probs, masks.numpy(), masks.sigmoid().numpy(), Rules((True,) * 6))
    published = sorted(everyone, key=lambda c: -c.prob)[: rules.topk]
    published = [c for c in published if rules.is_thing[c.class_id] and c.mask.any()]
    found = instances(*case, **case.sizes, rules=rules)
    ours = items(found)
    for c in published:
        match([Candidate(class_id, 0.0, score, mask) for class_id, score, mask in ours], c.class_id, c.score, c.mask)
    assert len(ours) > len(published) > 0
    everything = Rules((True,) * 6, topk=rules.topk)
    assert len(instances(*case, **case.sizes, rules=everything)) == sum(
        c.mask.any() for c in sorted(everyone, key=lambda c: -c.prob)[: rules.topk]
    )
