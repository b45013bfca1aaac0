"""Our random points -> the answers that Hugging Face's criterion gets when it asks `torch.rand` for its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from oneformer.loss.points import Points


class SamePoints:
    """Stands for the module `torch` in theirs: `rand` answers with our points in their order of asking."""

    def __init__(self, points: Sequence[Points], pairs: Sequence[int]) -> None:
        candidates = torch.cat([p.candidates.expand(n, -1, -1) for p, n in zip(points, pairs, strict=True)])
        uniform = torch.cat([p.uniform.expand(n, -1, -1) for p, n in zip(points, pairs, strict=True)])
        one_layer = [*(p.match[None] for p in points), candidates, uniform]
        self.answers: Iterator[Tensor] = (answer for _ in range(99) for answer in one_layer)

    def rand(self, *shape: int, device: torch.device) -> Tensor:
        answer = next(self.answers)
        assert answer.shape == shape, f"asked for {shape}, next is {tuple(answer.shape)}"
        return answer

    def __getattr__(self, name: str) -> object:
        return getattr(torch, name)
