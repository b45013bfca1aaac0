"""Two processes with two images and one: together they must be what one process with three images is."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.multiprocessing

from loss import rank_worker


def test_losses_and_gradients_over_ranks_equal_those_of_one_big_batch(tmp_path: Path) -> None:
    expected = rank_worker.share_of_batch(0, rank_worker.IMAGES)
    second = torch.multiprocessing.spawn(rank_worker.run_second, (str(tmp_path),), nprocs=1, join=False)
    found = rank_worker.run(0, str(tmp_path))
    while not second.join():
        pass
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
