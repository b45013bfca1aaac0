"""Run-length encoding is COCO's, byte for byte, both ways."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneformer.segments.rle import Rle, area, box, decode, encode, encode_ids, from_text, to_text

MASKS = st.builds(
    lambda h, w, share, seed: np.random.default_rng(seed).random((h, w)) < share,
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]),
    st.integers(0, 10**6),
)


@settings(max_examples=100, deadline=None)
@given(MASKS)
def test_encoding_equals_pycocotools(mask: np.ndarray) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = encode(mask)
    assert ours == {"size": list(theirs["size"]), "counts": theirs["counts"].decode()}
    assert np.array_equal(decode(ours), mask)
    assert np.array_equal(decode({"size": theirs["size"], "counts": theirs["counts"].decode()}), mask)
    assert area(ours) == mask.sum() == coco.area(theirs)
    x, y, w, h = coco.toBbox(theirs)
    if mask.any():
        assert box(ours) == (x, y, x + w, y + h)
    else:
        assert box(ours) == (0, 0, 0, 0)


def test_a_large_mask_with_long_and_negative_differences_equals_pycocotools() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    mask = np.zeros((3000, 2000), dtype=bool)
    mask[5:2900, 100:1900] = True
    mask[1, :50] = True
    mask[::7, 1000] = False
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encode(mask)["counts"] == theirs["counts"].decode()
    assert np.array_equal(decode(encode(mask)), mask)


def test_all_segments_of_a_map_are_encoded_as_their_masks_are() -> None:
    rng = np.random.default_rng(0)
    ids = rng.choice([0, 1, 7, 2**24 - 1], size=(5, 9)).repeat(4, axis=0).repeat(3, axis=1).astype(np.int32)
    wanted = [7, 1, 2**24 - 1, 12345]
    assert encode_ids(ids, wanted) == [encode(ids == i) for i in wanted]
    assert area(encode_ids(ids, [12345])[0]) == 0


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=30))
def test_the_text_form_gives_the_runs_back(runs: list[int]) -> None:
    assert from_text(to_text(np.array(runs))).tolist() == runs


def test_runs_that_do_not_fill_the_mask_are_refused() -> None:
    rle: Rle = {"size": [4, 4], "counts": to_text(np.array([3, 4]))}
    with pytest.raises(ValueError, match="cover 7 pixels"):
        decode(rle)


def test_text_cut_inside_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="ends inside"):
        from_text(to_text(np.array([10**6]))[:-1])
