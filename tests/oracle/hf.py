"""A spec -> Hugging Face's OneFormer and ours with the same, thoroughly random weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from oneformer.model.oneformer import OneFormer, build_model
from oneformer.model.weights.hf import to_hf
from oneformer.spec.model import ModelSpec

TASK_IDS = {  # oneformer-model.md 1.2
    "panoptic": [49406, 518, 10549, 533, 1072, 24755, 49407],
    "semantic": [49406, 518, 10549, 533, 29119, 1550, 49407],
    "instance": [49406, 518, 10549, 533, 34572, 49407],
}


def task_tokens(task: str, *, batch: int = 1, length: int = 77) -> Tensor:
    tokens = torch.zeros(batch, length)
    tokens[:, : len(TASK_IDS[task])] = torch.tensor(TASK_IDS[task], dtype=torch.float32)
    return tokens


EMBEDDINGS = (
    "embed.weight",
    "embedding.weight",
    "positional_embedding",
    "prompt_ctx.weight",
    "level_embed",
    "bias_table",
)
GAIN = 1.4  # keeps masks of both signs through all layers; test_the_comparison_sees_masked_attention_and_the_task


def randomise(model: nn.Module, seed: int = 0) -> None:
    """New values for every parameter: what starts as zero or one would hide mistakes.

    The offsets of deformable attention keep their rays, so that samples spread, with noise on top.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if name.endswith("sampling_offsets.bias"):
            p.data += 0.5 * noise
        elif name.endswith(EMBEDDINGS):
            p.data = 0.5 * noise
        elif p.ndim > 1:
            p.data = noise * (GAIN / p[0].numel() ** 0.5)
        elif name.endswith("weight"):
            p.data = 1 + 0.2 * noise
        else:
            p.data = 0.1 * noise
        if name == "task.mlp.layers.0.weight":
            p.data *= 1e-4  # ids up to 49407 enter as they are; this keeps what leaves near one


def picture(height: int, width: int, *, batch: int = 1, seed: int = 1) -> Tensor:
    """Random images with structure at several scales: white noise gives masks of one sign."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(batch, 3, height, width)
    for cells, contrast in ((3, 1.5), (7, 1.0), (20, 0.7)):
        noise = torch.randn(batch, 3, cells, cells + 1, generator=generator)
        image += contrast * nn.functional.interpolate(noise, size=(height, width), mode="bicubic")
    return image


def hf_config(spec: ModelSpec, *, is_training: bool = False) -> Any:
    from transformers import OneFormerConfig, SwinConfig

    swin, head, former, text = spec.backbone.swin, spec.sem_seg_head, spec.one_former, spec.text_encoder
    backbone = SwinConfig(
        embed_dim=swin.embed_dim,
        depths=list(swin.depths),
        num_heads=list(swin.num_heads),
        window_size=swin.window_size,
        mlp_ratio=swin.mlp_ratio,
        drop_path_rate=swin.drop_path_rate,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return OneFormerConfig(
        backbone_config=backbone,
        num_queries=former.num_object_queries,
        num_labels=head.num_classes,
        conv_dim=head.convs_dim,
        mask_dim=head.mask_dim,
        hidden_dim=former.hidden_dim,
        encoder_feedforward_dim=head.dim_feedforward,
        encoder_layers=head.transformer_enc_layers,
        decoder_layers=former.dec_layers,
        num_attention_heads=former.nheads,
        dim_feedforward=former.dim_feedforward,
        query_dec_layers=former.class_dec_layers,
        use_task_norm=former.use_task_norm,
        pre_norm=former.pre_norm,
        common_stride=head.common_stride,
        dropout=former.dropout,
        text_encoder_width=text.width,
        text_encoder_context_length=text.context_length,
        text_encoder_num_layers=text.num_layers,
        text_encoder_proj_layers=text.proj_num_layers,
        text_encoder_n_ctx=text.n_ctx,
        text_encoder_vocab_size=text.vocab_size,
        task_seq_len=text.context_length,
        is_training=is_training,
        output_auxiliary_logits=True,
    )


def twins(spec: ModelSpec, *, seed: int = 0, is_training: bool = False) -> tuple[OneFormer, Any]:
    """(ours, theirs) with equal random weights, both in evaluation mode."""
    from transformers import OneFormerForUniversalSegmentation

    ours = build_model(spec, text_branch=is_training)
    randomise(ours, seed)
    theirs = OneFormerForUniversalSegmentation(hf_config(spec, is_training=is_training))
    missing, unexpected = theirs.load_state_dict(to_hf(ours.state_dict()), strict=False)
    assert not unexpected, unexpected
    alone = [name for name in missing if not name.startswith("criterion.") and "swin.layernorm" not in name]
    assert not alone, alone
    return ours.eval(), theirs.eval()


TIE = 1e-5  # of the largest mask logit: a few times the rounding error that both networks have gathered by then


@contextmanager
def same_side_of_zero(ours: OneFormer, theirs: Any) -> Iterator[list[int]]:
    """Run ours, then theirs: where a mask logit is zero to within rounding, theirs takes our side of it.

    Attention is cut where a mask logit is negative, so rounding alone decides on the few logits that are all but zero, and
    one such pixel can change a query by 1e-3. Everywhere else both must decide alike, which is asserted. Gives the number
    of ties that fell apart.
    """
    places: list[Tensor] = []
    apart = [0]
    open_places, heads = ours.decoder.open_places, theirs.model.transformer_module.decoder.forward_prediction_heads

    def record(*args: Any) -> Tensor:
        places.append(open_places(*args))
        return places[-1]

    def decide(output: Tensor, mask_features: Tensor, attention_mask_target_size: Any) -> tuple[Tensor, Tensor, Tensor]:
        classes, masks, closed = heads(output, mask_features, attention_mask_target_size)
        if not places:  # after the last layer nobody looks any more
            return classes, masks, closed
        logits = nn.functional.interpolate(masks, size=attention_mask_target_size, mode="bilinear").flatten(2)
        mine = ~places.pop(0).squeeze(1)  # (B, Q, N)
        heads_of = closed.unflatten(0, (len(masks), -1))[:, 0]
        differ = mine != (heads_of & ~heads_of.all(-1, keepdim=True))
        tie = logits.abs() < TIE * logits.abs().max()
        assert not (differ & ~tie).any(), f"{int((differ & ~tie).sum())} places are open in one network only"
        apart[0] += int(differ.sum())
        return classes, masks, mine[:, None].expand(-1, closed.shape[0] // len(masks), -1, -1).flatten(0, 1).clone()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ours.decoder, "open_places", record)
        patch.setattr(theirs.model.transformer_module.decoder, "forward_prediction_heads", decide)
        yield apart
