"""Random outputs, and the published post-processing written down plainly on whole arrays, one query at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from oneformer.segments import Rules


@dataclass
class Case:
    """Logits of one image and its sizes."""

    class_logits: Tensor
    mask_logits: Tensor
    sizes: dict[str, tuple[int, int]]

    def __iter__(self):
        return iter((self.class_logits, self.mask_logits))


SIZES = {
    "equal": ((64, 96), (64, 96), (64, 96)),
    "padded": ((64, 96), (51, 77), (51, 77)),
    "larger photo": ((64, 96), (60, 90), (131, 197)),
    "smaller photo": ((64, 96), (57, 96), (23, 41)),
    "thin photo": ((32, 128), (17, 128), (3, 211)),
    "one pixel": ((32, 32), (32, 32), (1, 1)),
}


def random_case(seed: int, *, sizes: str = "larger photo", queries: int = 30, classes: int = 7) -> Case:
    """Smooth blobs as masks and mostly decided classes, about a third of them "no object"."""
    rng = torch.Generator().manual_seed(seed)
    padded, size, original = SIZES[sizes]
    coarse = torch.randn(1, queries, 4, 5, generator=rng) * 8
    masks = interpolate(coarse, (padded[0] // 4, padded[1] // 4), mode="bicubic")[0]
    masks += torch.randn(masks.shape, generator=rng)
    logits = torch.randn(queries, classes + 1, generator=rng)
    winner = torch.randint(0, classes + 4, (queries,), generator=rng).clamp(max=classes)
    logits[torch.arange(queries), winner] += 4
    return Case(logits, masks, {"input_size": padded, "size": size, "original_size": original})


def rules_for(classes: int, **values: float) -> Rules:
    """Every other class a thing."""
    return Rules(tuple(i % 2 == 0 for i in range(classes)), **values)


def plain_masks(case: Case) -> Tensor:
    """All mask logits at the photo's size, by the two resizes of whole arrays."""
    big = interpolate(case.mask_logits[None], case.sizes["input_size"], mode="bilinear", align_corners=False)
    height, width = case.sizes["size"]
    return interpolate(big[:, :, :height, :width], case.sizes["original_size"], mode="bilinear", align_corners=False)[0]


def plain_semantic(case: Case) -> Tensor:
    probs = case.class_logits.softmax(-1)[:, :-1]
    return torch.einsum("qk,qhw->khw", probs, plain_masks(case).sigmoid())


def plain_panoptic(case: Case, rules: Rules) -> tuple[Tensor, list[dict[str, object]]]:
    scores, labels = case.class_logits.softmax(-1).max(-1)
    keep = labels.ne(case.class_logits.shape[1] - 1) & (scores > rules.object_mask_threshold)
    scores, labels = scores[keep], labels[keep]
    masks = plain_masks(case).sigmoid()[keep]
    ids = torch.zeros(case.sizes["original_size"], dtype=torch.int32)
    segments: list[dict[str, object]] = []
    if len(masks) == 0:
        return ids, segments
    owner = (scores.view(-1, 1, 1) * masks).argmax(0)
    merged: dict[int, int] = {}
    for k in range(len(masks)):
        won, whole = (owner == k).sum().item(), (masks[k] >= 0.5).sum().item()
        final = (owner == k) & (masks[k] >= 0.5)
        if won == 0 or whole == 0 or final.sum().item() == 0 or won / whole < rules.overlap_threshold:
            continue
        class_id = int(labels[k])
        isthing = rules.is_thing[class_id]
        if not isthing and class_id in merged:
            ids[final] = merged[class_id]
            continue
        new = len(segments) + 1
        if not isthing:
            merged[class_id] = new
        ids[final] = new
        segments.append({"id": new, "class_id": class_id, "isthing": isthing})
    return ids, segments


def plain_instances(case: Case, rules: Rules) -> list[tuple[int, float, Tensor]]:
    """(class, score, mask) by falling score."""
    probs = case.class_logits.softmax(-1)[:, :-1]
    masks = plain_masks(case)
    pairs = [(float(probs[q, c]), q, c) for q in range(len(probs)) for c in range(probs.shape[1]) if rules.is_thing[c]]
    found = []
    for prob, q, c in sorted(pairs, reverse=True)[: rules.topk]:
        inside = masks[q] > 0
        mean = (masks[q].sigmoid() * inside).sum() / (inside.sum() + 1e-6)
        if inside.any():
            found.append((c, prob * float(mean), inside))
    return sorted(found, key=lambda item: -item[1])
