"""The `wandb` section: the optional Weights & Biases tracker."""

from dataclasses import dataclass, field
from typing import Annotated

from oneformer.spec.field import Tao


@dataclass
class WandbSpec:
    """Weights & Biases; nothing is sent unless it is enabled."""

    enable: Annotated[bool, Tao()] = False
    """Send metrics to Weights & Biases."""
    project: Annotated[str, Tao()] = "TAO Toolkit"
    """Project that the run belongs to."""
    entity: Annotated[str, Tao()] = ""
    """User or team that owns the project."""
    group: Annotated[str, Tao()] = ""
    """Group of runs that belong together."""
    tags: Annotated[list[str], Tao(automl=False)] = field(default_factory=lambda: ["tao-toolkit"])
    """Words to find the run by."""
    reinit: Annotated[bool, Tao()] = False
    """Allow a second run in one process."""
    sync_tensorboard: Annotated[bool, Tao()] = False
    """Also send the TensorBoard events."""
    save_code: Annotated[bool, Tao()] = False
    """Also send the main program."""
    name: Annotated[str, Tao()] = "TAO Toolkit Training"
    """Name of the run."""
    run_id: Annotated[str, Tao()] = ""
    """Identity of a run to go on with."""
