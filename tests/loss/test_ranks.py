"""Two processes share the images of a batch: together they must be what one process with all of them is."""

from __future__ import annotations

import pytest
import torch
import torch.multiprocessing
from torch import Tensor

from loss import rank_worker
from loss.rank_worker import CASES


@pytest.fixture(scope="module")
def over_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    folder = str(tmp_path_factory.mktemp("ranks"))
    second = torch.multiprocessing.spawn(rank_worker.run_second, (folder,), nprocs=1, join=False)
    found = rank_worker.run(0, folder)
    while not second.join():
        pass
    return found


@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients_over_ranks_equal_those_of_one_big_batch(
    name: str, over_two_ranks: dict[str, dict[str, Tensor]]
) -> None:
    case, found = CASES[name], over_two_ranks[name]
    expected = rank_worker.share_of_batch(case, 0, len(case.objects))
    assert found.keys() == expected.keys()
    for part in expected:
        torch.testing.assert_close(found[part], expected[part], rtol=1e-4, atol=1e-6, msg=lambda m, n=part: f"{n}: {m}")
    assert expected["loss_contrastive"] > 0, "two images of two ranks are told apart"
    assert (expected["loss_mask"] > 0) == (sum(case.objects) > 0)


def test_one_image_alone_would_have_no_contrastive_loss() -> None:
    """What makes the comparison above show that the ranks see one another."""
    case = CASES["one image each"]
    assert all(rank_worker.share_of_batch(case, *share)["loss_contrastive"] == 0 for share in case.shares())
