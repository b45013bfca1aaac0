"""The `dataset.sources` section: roots of data sets, and how files that lie elsewhere come to this machine."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le

from oneformer.spec.field import Unit


@dataclass
class SourcesSpec:
    """Roots of data sets, and how files that lie elsewhere come to this machine."""

    train_datasets: str | list[str] = ""
    """Folder or address that holds the training data under TAO's names (`images.tar.gz`, `annotations.json`,
    `images_panoptic.tar.gz`, `label_map.json`), or a list of them; keys that are set win."""
    eval_dataset: str | list[str] = ""
    """The same for the data that training validates on and `evaluate` scores."""
    inference_dataset: str = ""
    """Folder or address with `images.tar.gz`, the images that `inference` predicts."""
    calibration_dataset: str = ""
    """Folder or address with `images.tar.gz`, the images that quantization measures value ranges on."""
    cache_dir: str = ""
    """Folder that fetched files and unpacked archives are kept in; empty takes the user's cache."""
    retries: Annotated[int, Ge(0), Le(100)] = 5
    """Times that a broken transfer is tried again without getting anywhere, each after a longer pause; 0 never does."""
    max_gib: Annotated[float, Gt(0), Unit("GiB")] = 1000.0
    """Largest file that is fetched, and most that one archive or folder may hold."""
    max_files: Annotated[int, Ge(1)] = 5_000_000
    """Most files that one archive or folder may hold."""
