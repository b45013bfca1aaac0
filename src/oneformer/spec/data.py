"""The `dataset` section: where images and labels lie, how they are read, augmented and drawn."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Len, Lt

from oneformer.spec.field import Search, Spellings, Tao, Unit
from oneformer.spec.sources import SourcesSpec

Byte = Annotated[float, Ge(0), Le(255)]
Spread = Annotated[float, Gt(0)]
Probability = Annotated[float, Ge(0), Le(1)]
Side = Annotated[int, Ge(1)]

# Each task as likely as the others: what the published recipe does (SHI-Labs/OneFormer, task thresholds 0.33 / 0.66).
EVEN = {"semantic": 1 / 3, "instance": 1 / 3, "panoptic": 1 / 3}

DataFormat = Literal[
    "auto",
    "coco_panoptic",
    "coco_instances",
    "semantic_png",
    "ade20k",
    "cityscapes",
    "mapillary",
    "object_masks",
    "labelme",
    "yolo_seg",
    "parquet",
]
FORMAT_SPELLINGS = (("coco", "coco_instances"), ("yolo", "yolo_seg"), ("vistas", "mapillary"), ("", "auto"))


@dataclass
class SplitSpec:
    """One split: its files and its loader."""

    batch_size: Annotated[int, Ge(1), Tao("batch size", math_cond=">0")] = 1
    """Images per step, on each device."""
    num_workers: Annotated[int, Ge(0), Tao("Number of workers")] = 1
    """Processes that read and augment; 0 works in the main process. Results do not depend on it."""
    format: Annotated[DataFormat, Spellings(FORMAT_SPELLINGS)] = "auto"
    """Format of the annotations; `auto` tells it from the files. docs/guides/data.md shows each one's layout."""
    images: Annotated[str | list[str], Tao("image root")] = ""
    """Folder of the images, or a list of folders, one for each annotation path. Formats with a published layout find
    it by themselves."""
    annotations: Annotated[str | list[str], Tao("annotation root")] = ""
    """Annotation file (COCO JSON, Parquet) or folder of annotation files (all other formats), or a list of them."""
    panoptic: Annotated[str | list[str], Tao("panoptic root")] = ""
    """Folder of the PNG masks of COCO panoptic, or a list of folders, one for each annotation file."""
    names: Annotated[str | list[str], Tao("dataset names")] = ""
    """Name of the data set in tables and metric names, or a list of names, one for each annotation file."""


@dataclass
class AugmentationSpec:
    """Sizes and random changes of the images."""

    train_min_size: Annotated[list[Side], Len(1), Unit("pixels"), Tao("Train min size", automl=False)] = field(
        default_factory=lambda: [800]
    )
    """Lengths of the shorter side to draw from when `train_resize` is `shortest_edge`."""
    train_max_size: Annotated[int, Ge(32), Unit("pixels"), Tao("Train max size", automl=True)] = 1333
    """Longest the longer side may become when `train_resize` is `shortest_edge`."""
    train_crop_size: Annotated[list[Side], Len(2, 2), Unit("pixels"), Tao("Train crop size", automl=False)] = field(
        default_factory=lambda: [1024, 1024]
    )
    """Height and width of the training crop."""
    test_min_size: Annotated[int, Ge(32), Unit("pixels"), Tao("Test min size", automl=True)] = 800
    """Length of the shorter side in validation, evaluation and inference."""
    test_max_size: Annotated[int, Ge(32), Unit("pixels"), Tao("Test max size", automl=True)] = 1333
    """Longest the longer side may become in validation, evaluation and inference."""
    train_resize: Literal["lsj", "shortest_edge"] = "lsj"
    """How training images are scaled: `lsj` (large-scale jitter: a random factor between `dataset.min_scale` and
    `dataset.max_scale` times `dataset.image_size`) or `shortest_edge` (a side drawn from `train_min_size`)."""
    flip_prob: Probability = 0.5
    """Probability of mirroring left and right."""
    vertical_flip_prob: Probability = 0.0
    """Probability of mirroring top and bottom; for images without an upright direction."""
    rotate90_prob: Probability = 0.0
    """Probability of turning by a quarter, half or three quarters; for images without an upright direction."""
    color_jitter_prob: Probability = 0.5
    """Probability of each of brightness, contrast, saturation and hue change."""
    crop_max_class_frac: Annotated[float, Gt(0), Le(1)] = 1.0
    """Redraw a crop in which one class covers more than this share; 1 takes every crop."""
    rotation_prob: Probability = 0.0
    """Probability of turning the image by up to `rotation_degrees`; corners that show nothing have no label."""
    rotation_degrees: Annotated[float, Gt(0), Le(180), Unit("degrees")] = 15.0
    """Farthest that the image is turned to either side."""
    blur_prob: Probability = 0.0
    """Probability of blurring the crop."""
    blur_sigma: Annotated[float, Gt(0), Le(20), Unit("pixels")] = 2.0
    """Strongest blur, as the standard deviation of a Gaussian; drawn from 0.1 up."""
    erase_prob: Probability = 0.0
    """Probability of covering a rectangle of the crop, which has no label then."""
    erase_max_frac: Annotated[float, Gt(0), Lt(1)] = 0.2
    """Largest share of the crop that the rectangle covers."""


@dataclass
class QuantCalibrationDatasetSpec:
    """Images that measure value ranges before quantization."""

    images_dir: Annotated[str, Tao("images directory")] = ""
    """Folder of the images."""


@dataclass
class DatasetSpec:
    """Data: files, labels, augmentation, task draw."""

    train: SplitSpec = field(default_factory=SplitSpec)
    """What the model learns from."""
    val: SplitSpec = field(default_factory=SplitSpec)
    """What is scored during training."""
    test: SplitSpec = field(default_factory=SplitSpec)
    """What `evaluate` scores."""
    workers: Annotated[int, Ge(1), Tao("workers")] = 8
    """TAO's older name of the loader processes; `dataset.<split>.num_workers` is what counts."""
    pin_memory: Annotated[bool, Tao("pin_memory")] = True
    """Read batches into page-locked memory, from which a GPU copies faster; without a GPU nothing changes."""
    pixel_mean: Annotated[list[Byte], Len(3, 3), Tao("input mean per pixel", automl=False)] = field(
        default_factory=lambda: [123.675, 116.28, 103.53]
    )
    """Mean of red, green and blue, subtracted before the network; on the 0-255 scale (ImageNet's)."""
    pixel_std: Annotated[list[Spread], Len(3, 3), Tao("input std per pixel", automl=False)] = field(
        default_factory=lambda: [58.395, 57.12, 57.375]
    )
    """Standard deviation of red, green and blue, divided by before the network; on the 0-255 scale (ImageNet's)."""
    augmentation: AugmentationSpec = field(default_factory=AugmentationSpec)
    """Sizes and random changes of the images."""
    contiguous_id: Annotated[bool, Tao("contiguous id")] = True
    """True: class k is the k-th entry of the label map, whatever its own id. False: the ids in the files are the
    classes, and have to be 0 to K-1 without a gap."""
    label_map: Annotated[str, Tao("label map")] = ""
    """JSON file with id, name, isthing and colour of each class, or a YAML file with `names` as YOLO's; empty takes the
    classes that the annotations list."""
    background: str = ""
    """Name of the stuff class of all pixels that no object covers, for formats with one mask for each object
    (COCO instances, object masks, LabelMe, YOLO); empty learns nothing but the objects there."""
    void_values: list[Annotated[int, Ge(0)]] = field(default_factory=lambda: [255])
    """Numbers in label images that mean no label, unless the label map has a class of that id."""
    task_prob_train: Annotated[dict[str, Probability], Tao("task probabilities", kind="collection", automl=False)] = (
        field(default_factory=lambda: dict(EVEN))
    )
    """Probability of each task for a training image; a task that is left out has probability 0."""
    task_prob_val: Annotated[dict[str, Probability], Tao("task probabilities", kind="collection", automl=False)] = (
        field(default_factory=lambda: dict(EVEN))
    )
    """Tasks that validation scores: those with a probability above 0, each on every image."""
    task_seq_len: Annotated[int, Ge(8), Unit("tokens"), Tao("task sequence length")] = 77
    """Length that the task sentence is padded to."""
    max_seq_len: Annotated[int, Ge(8), Unit("tokens"), Tao("maximum sequence length")] = 77
    """Length that the training texts are padded or cut to."""
    image_size: Annotated[Side | list[Side], Unit("pixels"), Tao("image size")] = field(default_factory=list)
    """Frame that large-scale jitter of factor 1 fits training images into, a side or [width, height]; empty is
    `dataset.augmentation.train_crop_size`. Evaluation images keep their shape and
    `dataset.augmentation.test_min_size` decides."""
    min_scale: Annotated[
        float, Gt(0), Search(0.1, 0.8, when="dataset.augmentation.train_resize=lsj"), Tao("minimum scale")
    ] = 0.1
    """Smallest factor of large-scale jitter, of `image_size`."""
    max_scale: Annotated[
        float, Gt(0), Search(1.2, 2.5, when="dataset.augmentation.train_resize=lsj"), Tao("maximum scale")
    ] = 2.0
    """Largest factor of large-scale jitter, of `image_size`."""
    cutmix_prob: Annotated[float, Ge(0), Le(1), Search(0.0, 0.5, tier=2), Tao("cutmix probability")] = 0.0
    """Probability of pasting a rectangle of another training image, its masks and texts included, into an image."""
    quant_calibration_dataset: QuantCalibrationDatasetSpec = field(default_factory=QuantCalibrationDatasetSpec)
    """Images that measure value ranges before quantization."""
    sources: SourcesSpec = field(default_factory=SourcesSpec)
    """Roots of data sets, and how files that lie elsewhere come to this machine."""
    max_image_mpx: Annotated[float, Gt(0), Unit("million pixels")] = 200.0
    """Images with more pixels are refused before they are decoded."""
