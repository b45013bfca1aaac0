"""Images (B, 3, H, W) and task tokens (B, 77) -> class logits (B, Q, K+1) and mask logits (B, Q, h, w).

The whole network in reading order. Legend of all shape comments: B images, Q queries, C channels, K classes, L levels,
S tokens of all levels, T text tokens, H W input pixels, h w pixels of the mask features (a quarter of the input).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from oneformer.model.backbones import build_backbone
from oneformer.model.decoder import Decoded, Decoder, Memory
from oneformer.model.pixel import Features, build_pixel_decoder
from oneformer.model.query import TaskEmbedding
from oneformer.model.text import TextBranch

if TYPE_CHECKING:
    from oneformer.spec.model import ModelSpec

__all__ = ["Decoded", "Features", "Memory", "OneFormer", "build_model"]


def build_model(spec: ModelSpec, *, text_branch: bool = True) -> OneFormer:
    """The network of the `model` section, initialised as published.

    Args:
        spec: sizes and counts; nothing is fixed here.
        text_branch: whether the part that only training needs is built (17.5 million parameters as published).

    Raises:
        SpecError: a backbone that does not exist yet, or sizes that do not fit together; the key is named.
    """
    return OneFormer(spec, text_branch=text_branch)


class OneFormer(nn.Module):
    """One set of weights for semantic, instance and panoptic segmentation (arXiv:2211.06220).

    Images may have any size: the backbone pads its own windows, and every map keeps its natural size.
    """

    def __init__(self, spec: ModelSpec, *, text_branch: bool = True) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = build_backbone(spec.backbone)
        self.pixel_decoder = build_pixel_decoder(spec, self.backbone)
        self.task = TaskEmbedding(spec)
        self.decoder = Decoder(spec)
        self.text = TextBranch(spec) if text_branch else None

    def forward(self, images: Tensor, task_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The exported graph: normalised images (B, 3, H, W), token ids as numbers (B, 77) -> class and mask logits."""
        decoded = self.decode(self.features(images), task_tokens, auxiliary=False)
        return decoded.class_logits, decoded.mask_logits

    def features(self, images: Tensor) -> Features:
        """What depends on the image alone; several tasks share it."""
        features: Features = self.pixel_decoder(self.backbone(images))
        return features

    def memory(self, features: Features) -> Memory:
        """What `decode` makes of the features whatever the task: worth making once where there are several tasks."""
        return self.decoder.memory(features)

    def decode(
        self, features: Features, task_tokens: Tensor, *, auxiliary: bool | None = None, memory: Memory | None = None
    ) -> Decoded:
        """One task's predictions from shared features.

        Args:
            features: from `features`.
            task_tokens: (B, 77) token ids of the task sentence, as float32.
            auxiliary: whether to predict after every layer; by default in training with `deep_supervision`.
            memory: from `memory`, of the same features.
        """
        if auxiliary is None:
            auxiliary = self.training and self.spec.one_former.deep_supervision
        decoded: Decoded = self.decoder(features, self.task(task_tokens), auxiliary=auxiliary, memory=memory)
        return decoded

    def encode_texts(self, text_tokens: Tensor, text_index: Tensor) -> Tensor:
        """Distinct texts (U, T) and which of them each query has (B, Q-n_ctx) -> text vectors (B, Q, C)."""
        assert self.text is not None, "this network was built without its text branch"
        vectors: Tensor = self.text(text_tokens, text_index)
        return vectors

    def set_activation_checkpointing(self, on: bool) -> None:
        """Recompute the layers of pixel decoder and decoder in the backward pass: less memory, more time."""
        self.pixel_decoder.activation_checkpointing = on
        self.decoder.activation_checkpointing = on
