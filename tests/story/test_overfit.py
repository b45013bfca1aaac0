"""The full Swin-T network learns four photos by heart: everything from files to scores works together at full size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oneformer import cli

SAMPLES = Path(__file__).resolve().parents[2] / "samples" / "photos"
PHOTOS = ("000000000072.jpg", "000000000073.jpg", "000000000309.jpg", "000000000491.jpg")
# What keeps four photos from being learned within half an hour is switched off: jitter, dropout, a slow backbone. Many
# small steps teach more than few large ones, and positions in the mask features tell alike objects apart sooner.
# Positions are relative to the padded image, so that what was learned by heart is found again only where evaluation pads
# as training does: to the size of the crop (without, PQ 57 instead of 95).
RECIPE = (
    "preset=swin_t", "model.backbone.swin.drop_path_rate=0", "model.one_former.dropout=0",
    "model.one_former.size_divisibility=224", "model.one_former.train_num_points=3136",
    "model.sem_seg_head.mask_position=true",
    "dataset.augmentation.train_resize=shortest_edge", "dataset.augmentation.train_min_size=[160]",
    "dataset.augmentation.train_max_size=224", "dataset.augmentation.train_crop_size=[224,224]",
    "dataset.augmentation.test_min_size=160", "dataset.augmentation.test_max_size=224",
    "dataset.augmentation.flip_prob=0", "dataset.augmentation.color_jitter_prob=0",
    "dataset.train.batch_size=1", "dataset.train.num_workers=0", "dataset.val.num_workers=0",
    "train.accelerator=cpu", "train.precision=auto", "train.num_epochs=240", "train.validation_interval=60",
    "train.checkpoint_interval=60", "train.keep_checkpoints=0",
    "train.optim.lr=2e-4", "train.optim.backbone_multiplier=1.0", "train.optim.warmup_iters=20",
    "train.optim.lr_scheduler=cosine",
)  # fmt: skip


def write_four_photos(folder: Path) -> Path:
    """The annotations of the four photos only."""
    content = json.loads((SAMPLES / "annotations.json").read_text(encoding="utf-8"))
    content["images"] = [image for image in content["images"] if image["file_name"] in PHOTOS]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in kept]
    path = folder / "four.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.slow
def test_the_full_network_learns_four_photos_by_heart(tmp_path: Path) -> None:
    annotations = write_four_photos(tmp_path)
    files = [f"dataset.label_map={SAMPLES / 'label_map.json'}"]
    for split in ("train", "val"):
        files += [f"dataset.{split}.images={SAMPLES / 'images'}", f"dataset.{split}.panoptic={SAMPLES / 'panoptic'}"]
        files += [f"dataset.{split}.annotations={annotations}"]
    assert cli.main(["train", *RECIPE, *files, f"results_dir={tmp_path}"]) == cli.DONE
    best = tmp_path / "train" / "oneformer_model_best.pth"
    assert cli.main(["evaluate", *RECIPE, *files, f"results_dir={tmp_path}", f"evaluate.checkpoint={best}"]) == cli.DONE
    metrics = json.loads((tmp_path / "evaluate" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["panoptic"]["all"]["PQ"] > 60
