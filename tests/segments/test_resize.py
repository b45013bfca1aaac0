"""Resizing masks band by band equals the two resizes of whole arrays."""

from __future__ import annotations

import pytest
import torch

from oneformer.segments import panoptic, resize, semantic_map
from oneformer.segments.resize import Frame, Upsampler, axis_matrix
from segments.plain import SIZES, plain_masks, random_case, rules_for


def upsampled(case, *, budget: int, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    monkeypatch.setitem(resize.BAND_VALUES, "cpu", budget)
    upsampler = Upsampler(tuple(case.mask_logits.shape[1:]), Frame(**case.sizes), device=torch.device("cpu"))
    masks = case.mask_logits
    return torch.cat([upsampler.rows(masks, band).clone() for band in upsampler.bands(len(masks))], dim=1)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("budget", [1, 20_000, 10**9])
def test_bands_equal_the_two_resizes_of_the_whole_array(
    sizes: str, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = random_case(0, sizes=sizes)
    torch.testing.assert_close(
        upsampled(case, budget=budget, monkeypatch=monkeypatch), plain_masks(case), rtol=0, atol=2e-5
    )


def test_masks_that_need_no_resize_come_through_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(1, sizes="equal")
    case.sizes = dict.fromkeys(case.sizes, tuple(case.mask_logits.shape[1:]))
    assert torch.equal(upsampled(case, budget=500, monkeypatch=monkeypatch), case.mask_logits)


def test_every_row_of_an_axis_matrix_is_a_mean() -> None:
    for lengths in ((16, 64, 51, 131), (16, 64, 64, 5), (3, 32, 1, 7)):
        matrix = axis_matrix(*lengths)
        assert matrix.shape == (lengths[3], lengths[0])
        assert (matrix >= 0).all()
        torch.testing.assert_close(matrix.sum(1), torch.ones(lengths[3]))


def test_padding_beyond_the_image_does_not_reach_the_photo() -> None:
    case = random_case(2, sizes="padded")
    before = plain_masks(case)
    upsampler = Upsampler(tuple(case.mask_logits.shape[1:]), Frame(**case.sizes), device=torch.device("cpu"))
    masks = case.mask_logits.clone()
    masks[:, 14:] = 1e4  # rows whose centres lie two mask pixels below the image's last row (51 / 4)
    band = next(iter(upsampler.bands(1)))
    rows = upsampler.rows(masks, band)
    torch.testing.assert_close(rows, before[:, band.start : band.stop], rtol=0, atol=2e-5)


def test_half_precision_masks_are_resized_in_float32() -> None:
    case = random_case(3)
    half = case.mask_logits.to(torch.bfloat16)
    upsampler = Upsampler(tuple(half.shape[1:]), Frame(**case.sizes), device=torch.device("cpu"))
    band = next(iter(upsampler.bands(len(half))))
    assert torch.equal(upsampler.rows(half, band).clone(), upsampler.rows(half.float(), band))


@pytest.mark.parametrize("sizes", SIZES)
def test_single_pixels_equal_those_of_the_bands(sizes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(6, sizes=sizes)
    whole = upsampled(case, budget=10**9, monkeypatch=monkeypatch)  # (N, H, W)
    upsampler = Upsampler(tuple(case.mask_logits.shape[1:]), Frame(**case.sizes), device=torch.device("cpu"))
    height, width = case.sizes["original_size"]
    ys, xs = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
    found = upsampler.pixels(case.mask_logits.flatten(1).T.contiguous(), ys, xs)
    torch.testing.assert_close(found, whole.flatten(1).T, rtol=0, atol=2e-5)


def test_counting_equals_a_sum() -> None:
    chosen = torch.rand(5, 7, 11) > 0.3
    assert torch.equal(resize.count(chosen), chosen.sum(dim=(1, 2)))


def test_a_band_never_exceeds_the_memory_it_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(4, sizes="larger photo")
    monkeypatch.setitem(resize.BAND_VALUES, "cpu", 30 * 197 * 7)
    upsampler = Upsampler(tuple(case.mask_logits.shape[1:]), Frame(**case.sizes), device=torch.device("cpu"))
    bands = list(upsampler.bands(30))
    assert [b.stop - b.start for b in bands] == [7] * 18 + [5]
    assert [b.start for b in bands[1:]] == [b.stop for b in bands[:-1]]


def test_a_gpu_that_may_round_to_tf32_resizes_in_float64() -> None:
    cuda, before = torch.device("cuda"), torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert resize._exact_dtype(cuda) == torch.float64
        torch.set_float32_matmul_precision("highest")
        assert resize._exact_dtype(cuda) == torch.float32
    finally:
        torch.set_float32_matmul_precision(before)


def test_results_do_not_depend_on_autocast() -> None:
    case, rules = random_case(5), rules_for(7, object_mask_threshold=0.3, overlap_threshold=0.3)
    plain = semantic_map(*case, **case.sizes), panoptic(*case, **case.sizes, rules=rules)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = semantic_map(*case, **case.sizes), panoptic(*case, **case.sizes, rules=rules)
    assert (low[0] == plain[0]).all()
    assert (low[1].map == plain[1].map).all()


def test_an_image_larger_than_its_padded_input_is_our_own_fault() -> None:
    with pytest.raises(AssertionError, match="does not fit"):
        Frame((32, 32), (33, 32), (10, 10))
