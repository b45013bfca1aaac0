"""Whose names a weight file has -> the table that turns them into ours: one file and one dictionary for each family."""

from __future__ import annotations

from oneformer.model.weights.families.convnext import CONVNEXT
from oneformer.model.weights.families.dinat import DINAT
from oneformer.model.weights.families.resnet import RESNET
from oneformer.model.weights.families.swin import SWIN
from oneformer.model.weights.families.vit import VIT
from oneformer.model.weights.rename import Pieces

LAYOUTS: dict[str, Pieces] = {"ours": {}, **SWIN, **RESNET, **CONVNEXT, **DINAT, **VIT}
"""Every layout that backbone weights may come in; "ours" is that of the first release of each family."""
