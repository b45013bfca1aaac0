"""A folder -> everything that a tiny run needs: two data sets that differ in every file, a checkpoint, a base spec."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image, ImageOps

from oneformer.actions.train import run as train
from oneformer.errors import UserError
from oneformer.spec import ExperimentSpec
from oneformer.spec.load import load_spec
from oneformer.spec.node import Node, parse_yaml
from tiny import TinyDataset, write_tiny_dataset
from tiny_formats import write_coco_instances, write_semantic

# The smallest network that has every part: what costs time here costs it a hundred times.
NETWORK = (
    "model.sem_seg_head.num_classes=4", "model.sem_seg_head.convs_dim=16", "model.sem_seg_head.mask_dim=16",
    "model.sem_seg_head.transformer_enc_layers=1", "model.sem_seg_head.dim_feedforward=16",
    "model.one_former.hidden_dim=16", "model.one_former.nheads=2", "model.one_former.dim_feedforward=16",
    "model.one_former.dec_layers=3", "model.one_former.class_dec_layers=1", "model.one_former.num_object_queries=8",
    "model.one_former.train_num_points=32", "model.one_former.dropout=0.0",
    "model.text_encoder.context_length=16", "model.text_encoder.width=4", "model.text_encoder.num_layers=1",
    "model.text_encoder.n_ctx=2",
    "model.backbone.swin.embed_dim=8", "model.backbone.swin.depths=[1,2,1,1]", "model.backbone.swin.num_heads=[1,1,2,2]",
    "model.backbone.swin.window_size=4", "model.backbone.swin.drop_path_rate=0.0",
    "model.test.object_mask_threshold=0.1", "model.test.overlap_threshold=0.1",
)  # fmt: skip
RUN = (
    "dataset.task_seq_len=16", "dataset.max_seq_len=16", "dataset.augmentation.train_crop_size=[64,64]",
    "dataset.augmentation.test_min_size=64", "dataset.augmentation.test_max_size=96", "dataset.train.num_workers=0",
    "dataset.val.num_workers=0", "dataset.test.num_workers=0", "dataset.train.batch_size=2",
    "dataset.val.batch_size=4", "dataset.test.batch_size=4",
    "train.accelerator=cpu", "train.num_epochs=1", "train.log_interval=1", "train.num_threads=1", "train.optim.lr=1e-3",
    "train.optim.warmup_iters=0", "evaluate.accelerator=cpu", "evaluate.report_images=0", "inference.accelerator=cpu",
)  # fmt: skip

Look = Callable[[ExperimentSpec, "World"], Any]


@dataclass(frozen=True)
class Files:
    """Paths that rows of the table name."""

    root: Path
    data: TinyDataset
    other: TinyDataset

    def words(self, word: str) -> str:
        """A word of the table with `{other.images}`, `{checkpoint}` and the like filled in."""
        named = {"checkpoint": self.checkpoint, "falling": self.falling, "root": self.root}
        named |= {"instances": self.instances, "pictures": self.pictures}
        return word.format(data=self.data, other=self.other, **named)

    @property
    def checkpoint(self) -> Path:
        """What one step of training in the base spec leaves."""
        return self.root / "trained" / "train" / "oneformer_model_latest.pth"

    @property
    def instances(self) -> Path:
        """The things of `data` as COCO instances."""
        return self.root / "formats" / "instances.json"

    @property
    def pictures(self) -> Path:
        """The classes of `data` as one-channel pictures."""
        return self.root / "formats" / "labels"

    @property
    def falling(self) -> Path:
        """A label map whose ids are 1 and 0, in this order."""
        return self.root / "falling.json"


@dataclass
class World:
    """Looks at specs, each look kept: `see(look, words)` is what `look` shows of the base spec with these overrides."""

    root: Path
    seen: dict[tuple[Look, tuple[str, ...]], Any] = field(default_factory=dict)
    runs: int = 0

    @cached_property
    def files(self) -> Files:
        """The data sets and the checkpoint, made when first asked for."""
        data = write_tiny_dataset(self.root / "data", images=4, size=(48, 64))
        files = Files(self.root, data, contradiction_of(data, self.root / "other"))
        files.falling.write_text('[{"id": 1, "name": "sea"}, {"id": 0, "name": "ship"}]', encoding="utf-8")
        write_coco_instances(data, self.root / "formats")
        write_semantic(data, self.root / "formats")
        base = load_spec(None, [*self.base(data), f"results_dir={self.root / 'trained'}"], action="train")
        base.train.optim.max_iter = 1
        train(base)
        return files

    @staticmethod
    def base(data: TinyDataset) -> list[str]:
        """Overrides of a run that takes a moment."""
        return [*NETWORK, *data.overrides(), *RUN]

    def spec(self, words: Sequence[str]) -> ExperimentSpec:
        """The base spec with these overrides over it."""
        more = [self.files.words(word) for word in words]
        with mock.patch("oneformer.spec.override.parse_yaml", parsed_once):  # most words are those of the base
            return load_spec(None, [*self.base(self.files.data), *more], action="train")

    def see(self, look: Look, words: Sequence[str] = ()) -> Any:
        """What `look` shows, or the refusal as text."""
        key = (look, tuple(words))
        if key not in self.seen:
            self.seen[key] = self.look(look, words)
        return self.seen[key]

    def look(self, look: Look, words: Sequence[str]) -> Any:
        """The same without the memory."""
        torch.manual_seed(0)
        try:
            return look(self.spec(words), self)
        except UserError as error:
            return f"refused: {error.message}"

    def fresh(self) -> Path:
        """A folder that no run has used."""
        self.runs += 1
        return self.root / f"run{self.runs}"


@cache
def parsed_once(text: str, source: str) -> Node:
    """The value of an override."""
    return parse_yaml(text, source)


def contradiction_of(data: TinyDataset, folder: Path) -> TinyDataset:
    """A data set that fits `data` file by file but says something else in each of them."""
    other = TinyDataset(
        folder, folder / "images", folder / "panoptic", folder / "annotations.json", folder / "label_map.json"
    )
    shutil.copytree(data.folder, folder)
    for path in other.images.iterdir():
        ImageOps.invert(Image.open(path)).save(path)
    for path in other.panoptic.iterdir():
        ImageOps.mirror(Image.open(path)).save(path)
    content = json.loads(data.annotations.read_text())
    content["annotations"] = content["annotations"][:3]
    other.annotations.write_text(json.dumps(content))
    other.label_map.write_text(json.dumps(json.loads(data.label_map.read_text())[::-1]))
    return other


def digest(value: Any) -> str:
    """A short text that differs when tensors, arrays, bytes or plain values differ anywhere."""
    found = hashlib.sha256()
    _feed(found, value)
    return found.hexdigest()[:16]


def _feed(found: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        found.update(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, dict):
        for key in value:
            _feed(found, (key, value[key]))
    elif isinstance(value, list | tuple):
        found.update(b"[")
        for item in value:
            _feed(found, item)
        found.update(b"]")
    else:
        found.update(repr(value).encode())
