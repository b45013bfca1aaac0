"""A dataset section -> a page with some training images changed in each way alone, and in all ways as training does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from oneformer.data.loader import TrainSamples
from oneformer.data.sample import Sample
from oneformer.data.task import TASKS, allowed_tasks
from oneformer.errors import DataError
from oneformer.predict.examples import picture_size
from oneformer.report import draw
from oneformer.report.place import page_font_px
from oneformer.report.sheet import Pictures, Sheet, Table, render

if TYPE_CHECKING:
    from oneformer.data.labels import LabelMap
    from oneformer.data.record import Record
    from oneformer.spec import DatasetSpec, ExperimentSpec

SHOWN = 3  # photos, evenly over the data set
TOGETHER = 3  # draws of each with everything at once
# No change at all: photos fitted into the crop.
CALM: dict[str, Any] = {
    "dataset.min_scale": 1.0, "dataset.max_scale": 1.0, "dataset.image_size": [], "dataset.cutmix_prob": 0.0,
    "train_resize": "lsj", "flip_prob": 0.0, "vertical_flip_prob": 0.0, "rotate90_prob": 0.0, "color_jitter_prob": 0.0,
    "rotation_prob": 0.0, "blur_prob": 0.0, "erase_prob": 0.0,
}  # fmt: skip
RESIZE = ("dataset.min_scale", "dataset.max_scale", "dataset.image_size", "train_resize")
# What is shown one by one: its name and the key of its probability.
CHANGES = {
    "mirrored": "flip_prob",
    "upside down": "vertical_flip_prob",
    "turned by quarters": "rotate90_prob",
    "turned by degrees": "rotation_prob",
    "colours": "color_jitter_prob",
    "blurred": "blur_prob",
    "erased": "erase_prob",
    "another image pasted in": "dataset.cutmix_prob",
}
AT = "dataset.augmentation."
ALPHA = 0.3  # of the masks: what happens to the colours has to show


@dataclass(frozen=True)
class Change:
    """One row of pictures: what is done, by which key, how often in this spec (None: always)."""

    name: str
    key: str
    prob: float | None
    dataset: DatasetSpec

    @property
    def often(self) -> str:
        """The probability in words."""
        if self.prob is None:
            return "always"
        return f"probability {self.prob:g}" if self.prob else "off in this spec"


def changes(dataset: DatasetSpec) -> list[Change]:
    """Nothing, each change alone at probability 1, and scaling and cropping as the spec has them."""
    calm = changed(dataset, CALM)
    scaled = changed(calm, {key: value_of(dataset, key) for key in RESIZE})
    resize = dataset.augmentation.train_resize
    rows = [
        Change("fitted into the crop", f"{AT}train_crop_size", None, calm),
        Change("scaled and cropped", f"{AT}train_resize={resize}", None, scaled),
    ]
    for name, key in CHANGES.items():
        whole = key if key.startswith("dataset.") else AT + key
        rows.append(Change(name, whole, value_of(dataset, key), changed(calm, {key: 1.0})))
    return rows


def changed(dataset: DatasetSpec, values: Mapping[str, Any]) -> DatasetSpec:
    """The section with other values; keys without `dataset.` are those of its augmentation."""
    own = {key.removeprefix("dataset."): value for key, value in values.items() if key.startswith("dataset.")}
    inner = {key: value for key, value in values.items() if not key.startswith("dataset.")}
    return replace(dataset, **own, augmentation=replace(dataset.augmentation, **inner))


def value_of(dataset: DatasetSpec, key: str) -> Any:
    """The value of such a key."""
    own = key.removeprefix("dataset.")
    return getattr(dataset if own != key else dataset.augmentation, own)


def augment_page(spec: ExperimentSpec, labels: LabelMap, records: Sequence[Record]) -> str:
    """The page as HTML. Raises DataError when a photo or its labels are broken."""
    count = min(SHOWN, len(records))
    chosen = [place * len(records) // count for place in range(count)]
    rows = changes(spec.dataset)
    pictures = [
        _row(row, _samples(row.dataset, spec, labels, records), chosen, labels, f"{row.name}: {row.key}")
        for row in rows
    ]
    every = _samples(spec.dataset, spec, labels, records)
    together = Change("all together", "as training draws them", None, spec.dataset)
    for epoch in range(TOGETHER):
        caption = f"all together, as in epoch {epoch} of training with seed {spec.train.seed}"
        pictures.append(_row(together, every, chosen, labels, caption, epoch=epoch))
    height, width = spec.dataset.augmentation.train_crop_size
    return render(
        Sheet(
            over="OneFormer augmentation",
            title="What training does to images",
            facts=[("images", f"{len(records):,}"), ("crop", f"{height} x {width}"), ("seed", str(spec.train.seed))],
            tables=[Table("Changes", ("change", "key", "how often"), [(r.name, r.key, r.often) for r in rows])],
            note="Each change alone, whether this spec uses it or not, then all as they are drawn. Masks are those that"
            " the network learns; what has no colour has no label, or is background. Padding is left out.",
            pictures=pictures,
        )
    )


def _samples(dataset: DatasetSpec, spec: ExperimentSpec, labels: LabelMap, records: Sequence[Record]) -> TrainSamples:
    """Training samples of the task that tells most of the labels there are."""
    tasks = {task for record in records for task in record.source.tasks}
    allowed = [task for task in allowed_tasks(spec.model.task_toggling) if task in tasks] or list(tasks)
    task = max(allowed, key=TASKS.index)
    shown = [record for record in records if task in record.source.tasks]
    dataset = replace(dataset, task_prob_train={task: 1.0})
    return TrainSamples(dataset, labels, shown, model=spec.model, seed=spec.train.seed)


def _row(
    change: Change, samples: TrainSamples, places: Sequence[int], labels: LabelMap, caption: str, *, epoch: int = 0
) -> Pictures:
    shown = []
    for place in places:
        sample = samples[(epoch, place % len(samples))]
        if isinstance(sample, DataError):
            raise sample
        shown.append((_words(sample), drawn(sample, labels)))
    return Pictures(caption, change.often, shown)


def _words(sample: Sample) -> str:
    """Name, size and how many objects are left."""
    assert sample.target is not None
    count = len(sample.target.labels)
    return f"{sample.name}, {sample.size[1]} x {sample.size[0]}, {count} object{'s' * (count != 1)}"


def drawn(sample: Sample, labels: LabelMap) -> Image.Image:
    """A training image with the masks of its target, at the size of a page."""
    assert sample.target is not None
    height, width = picture_size(*sample.size)
    photo = Image.fromarray(np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy()))
    small = np.asarray(photo.resize((width, height), Image.Resampling.BICUBIC))
    rows = ((np.arange(height) + 0.5) * sample.size[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * sample.size[1] / width).astype(int)
    classes = sample.target.labels.tolist()
    look = draw.Look(ALPHA, page_font_px(width))
    numbers = sample.target.object_map
    if numbers is None:
        masks = [mask.numpy()[rows[:, None], columns[None]] for mask in sample.target.masks]
        return draw.instances(small, masks, classes, labels, look=look).image
    ids = numbers.numpy()[rows[:, None], columns[None]].astype(np.int32) + 1  # background 0, void -1
    return draw.panoptic(small, ids, dict(enumerate(classes, start=1)), labels, look=look).image
