"""The root of the spec: one attribute for each section."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from oneformer.spec.automl import AutomlSpec
from oneformer.spec.data import DatasetSpec
from oneformer.spec.engine import GenTrtEngineSpec
from oneformer.spec.evaluate import EvaluateSpec
from oneformer.spec.export import ExportSpec
from oneformer.spec.field import Secret, Tao
from oneformer.spec.inference import InferenceSpec
from oneformer.spec.model import ModelSpec
from oneformer.spec.quantize import QuantizeSpec
from oneformer.spec.run import WandbSpec
from oneformer.spec.train import TrainSpec


@dataclass
class ExperimentSpec:
    """Everything a user may say."""

    preset: str = ""
    """A packaged model size to start from, such as swin_t, r50 or nano (a wrong name lists them all); the spec wins."""
    model_name: Annotated[str, Tao("Model name")] = ""
    """A name of your own for the model."""
    encryption_key: Annotated[str, Tao("Encryption key"), Secret()] = ""
    """Passphrase that checkpoints and exported models are encrypted and opened with; empty takes that of
    ONEFORMER_ENCRYPTION_KEY in the environment, and without one files are plain."""
    results_dir: Annotated[str, Tao("Results directory")] = ""
    """Folder that holds one folder for each action; empty means `results`."""
    wandb: WandbSpec = field(default_factory=WandbSpec)
    """Weights & Biases; nothing is sent unless it is enabled."""
    model: ModelSpec = field(default_factory=ModelSpec)
    """Everything that defines the network."""
    dataset: DatasetSpec = field(default_factory=DatasetSpec)
    """Data: files, labels, augmentation, task draw."""
    train: TrainSpec = field(default_factory=TrainSpec)
    """Training."""
    evaluate: EvaluateSpec = field(default_factory=EvaluateSpec)
    """Evaluation of one weight file on the test split."""
    inference: InferenceSpec = field(default_factory=InferenceSpec)
    """Prediction with one weight file on a folder of images."""
    export: ExportSpec = field(default_factory=ExportSpec)
    """Export to ONNX."""
    quantize: QuantizeSpec = field(default_factory=QuantizeSpec)
    """Quantization after training."""
    gen_trt_engine: GenTrtEngineSpec = field(default_factory=GenTrtEngineSpec)
    """Building a TensorRT engine."""
    automl_policy: Literal["off", "on", "auto"] = "off"
    """Whether `oneformer train` becomes a search (`oneformer automl run`): `off` trains once, `on` searches, `auto`
    searches where NVIDIA TAO would: the model is meant for it and its schema is there."""
    automl: AutomlSpec = field(default_factory=AutomlSpec)
    """Search for better settings by many trainings (`oneformer automl`)."""
