"""What a user may say: YAML and key=value overrides -> one tree of checked dataclasses."""

from oneformer.spec.automl import AutomlSpec
from oneformer.spec.backbone import (
    BackboneSpec,
    ConvNextSpec,
    DinatSpec,
    EfficientNetLiteSpec,
    RadioSpec,
    ResNetSpec,
    SwinSpec,
    TimmSpec,
    VitSpec,
)
from oneformer.spec.data import AugmentationSpec, DatasetSpec, QuantCalibrationDatasetSpec, SplitSpec
from oneformer.spec.engine import GenTrtEngineSpec, TensorrtSpec
from oneformer.spec.evaluate import EvaluateSpec
from oneformer.spec.experiment import ExperimentSpec
from oneformer.spec.export import ExportSpec
from oneformer.spec.inference import InferenceSpec
from oneformer.spec.model import (
    ModelSpec,
    OneFormerHeadSpec,
    SemSegHeadSpec,
    TaskTogglingSpec,
    TestSpec,
    TextEncoderSpec,
)
from oneformer.spec.quantize import QuantizeSpec
from oneformer.spec.run import WandbSpec
from oneformer.spec.train import ClipGradientsSpec, CudnnSpec, EmaSpec, OptimSpec, TrainSpec

__all__ = [
    "AugmentationSpec",
    "AutomlSpec",
    "BackboneSpec",
    "ClipGradientsSpec",
    "ConvNextSpec",
    "CudnnSpec",
    "DatasetSpec",
    "DinatSpec",
    "EfficientNetLiteSpec",
    "EmaSpec",
    "EvaluateSpec",
    "ExperimentSpec",
    "ExportSpec",
    "GenTrtEngineSpec",
    "InferenceSpec",
    "ModelSpec",
    "OneFormerHeadSpec",
    "OptimSpec",
    "QuantCalibrationDatasetSpec",
    "QuantizeSpec",
    "RadioSpec",
    "ResNetSpec",
    "SemSegHeadSpec",
    "SplitSpec",
    "SwinSpec",
    "TaskTogglingSpec",
    "TensorrtSpec",
    "TestSpec",
    "TextEncoderSpec",
    "TimmSpec",
    "TrainSpec",
    "VitSpec",
    "WandbSpec",
]
