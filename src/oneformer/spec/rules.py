"""A spec whose values fit one by one -> the faults between them: combinations that no run could work with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import lcm, prod

from oneformer.spec.backbone import SECTIONS, DinatSpec, VitSpec
from oneformer.spec.data import DatasetSpec
from oneformer.spec.experiment import ExperimentSpec
from oneformer.spec.export import ExportSpec
from oneformer.spec.model import ModelSpec

TASKS = ("semantic", "instance", "panoptic")
# Position encodings hold sine and cosine of two axes side by side.
_AXES = 4
STRIDE = 32  # of the coarsest map that a network sees


@dataclass(frozen=True, slots=True)
class Fault:
    """Keys that do not go together; the first one carries the error."""

    keys: tuple[str, ...]
    what: str
    hint: str = ""


def faults(spec: ExperimentSpec) -> Iterator[Fault]:
    """Every combination of values that cannot work, whatever the action."""
    yield from _heads(spec.model)
    yield from _text(spec.model)
    yield from _backbone(spec.model)
    yield from _tasks(spec)
    yield from _dataset(spec.dataset)
    yield from _lengths(spec)
    yield from _devices(spec)
    yield from _export(spec.export)
    yield from _engine(spec)


def _heads(model: ModelSpec) -> Iterator[Fault]:
    head, former = model.sem_seg_head, model.one_former
    heads, step = "model.one_former.nheads", lcm(former.nheads, _AXES)
    widths = {"model.one_former.hidden_dim": former.hidden_dim}
    if head.pixel_decoder_name != "BasePixelDecoder":  # which has no attention
        widths["model.sem_seg_head.convs_dim"] = head.convs_dim
    for key, width in widths.items():
        if width % step:
            what = f"{key} {width} cannot be divided among {former.nheads} heads ({heads})"
            if not width % former.nheads:
                what = f"{key} {width} is no multiple of {_AXES}, as the sine and cosine of two axes need"
            yield Fault((key, heads), what, f"try {max(step, round(width / step) * step)}")
    if head.mask_position and head.mask_dim % _AXES:
        key = "model.sem_seg_head.mask_dim"
        what = f"{key} {head.mask_dim} is no multiple of {_AXES}, as mask_position needs"
        yield Fault((key, "model.sem_seg_head.mask_position"), what)
    yield from _maps(model)


def _maps(model: ModelSpec) -> Iterator[Fault]:
    """The maps that heads ask for, against those that the backbone gives."""
    head, levels = model.sem_seg_head, model.one_former.num_feature_levels
    wanted, key = head.in_features, "model.sem_seg_head.in_features"
    deformable = head.pixel_decoder_name == "MSDeformAttnPixelDecoder"
    if deformable:
        wanted = head.deformable_transformer_encoder_in_features
        key = "model.sem_seg_head.deformable_transformer_encoder_in_features"
    name = SECTIONS[model.backbone.name]
    maps = getattr(model.backbone, name).out_features
    first = model.backbone.swin.patch_size if name == "swin" else 4
    other = f"model.backbone.{name}.out_features"
    missing = [m for m in wanted if m not in maps]
    strides = {m: first * 2 ** int(m[-1]) // 4 for m in maps}
    # The map at common_stride takes part even if in_features leaves it out, finer ones never do.
    coarser = {m for m, stride in strides.items() if stride > head.common_stride and m in head.in_features}
    taken = [m for m, stride in strides.items() if stride == head.common_stride or m in coarser]
    left_out = [m for m in wanted if m not in taken] if deformable else []
    count = len(wanted if deformable else taken)
    if len(set(wanted)) != len(wanted):
        yield Fault((key,), f"{key} names a map twice")
    elif missing:
        yield Fault((key, other), f"{key} asks for {missing[0]}, which {other} does not give")
    elif head.common_stride not in strides.values():
        key = "model.sem_seg_head.common_stride"
        have = ", ".join(str(s) for s in sorted(strides.values()))
        keys = (key, other, *(["model.backbone.swin.patch_size"] if name == "swin" else []))
        yield Fault(keys, f"{key} is {head.common_stride}, but the backbone's maps have strides {have}")
    elif count < levels:
        levels_key = "model.one_former.num_feature_levels"
        what = f"{key} names {count} maps, but the query decoder visits {levels} ({levels_key})"
        yield Fault((key, levels_key), what)
    elif left_out:
        inside = "model.sem_seg_head.in_features"
        what = f"{key} asks for {left_out[0]}, but the pixel decoder's maps are {', '.join(taken)} ({inside})"
        yield Fault((key, inside, "model.sem_seg_head.common_stride"), what)


def _text(model: ModelSpec) -> Iterator[Fault]:
    text, queries = model.text_encoder, model.one_former.num_object_queries
    if text.n_ctx >= queries:
        key, other = "model.text_encoder.n_ctx", "model.one_former.num_object_queries"
        yield Fault((key, other), f"{key} {text.n_ctx} leaves no query a text of its own: {other} is {queries}")
    heads = max(1, text.width // 64)  # CLIP's head width
    if text.width % heads:
        key = "model.text_encoder.width"
        yield Fault(
            (key,), f"{key} {text.width} cannot be divided among its {heads} heads of about 64", f"try {64 * heads}"
        )
    if text.proj_num_layers == 0 and text.width != model.one_former.hidden_dim:
        key, other = "model.text_encoder.width", "model.one_former.hidden_dim"
        what = f"{key} {text.width} and {other} {model.one_former.hidden_dim} must be equal without a projection"
        yield Fault((key, other, "model.text_encoder.proj_num_layers"), what, "or set proj_num_layers to 2")
    if text.vocab_size < 49408:
        key = "model.text_encoder.vocab_size"
        yield Fault((key,), f"{key} {text.vocab_size} is smaller than the vocabulary, which has 49408 tokens")


def _backbone(model: ModelSpec) -> Iterator[Fault]:
    """Widths that heads do not divide, and what is particular to one backbone."""
    name = SECTIONS[model.backbone.name]
    at = f"model.backbone.{name}"
    if name in ("swin", "dinat"):
        section = getattr(model.backbone, name)
        for stage, heads in enumerate(section.num_heads):
            width = section.embed_dim * 2**stage
            if width % heads:
                yield Fault(
                    (f"{at}.num_heads", f"{at}.embed_dim"),
                    f"stage {stage + 1} has {width} channels ({at}.embed_dim {section.embed_dim} x {2**stage}), which"
                    f" cannot be divided among {heads} heads",
                )
                break
    if name == "dinat":
        yield from _dinat(model.backbone.dinat, at)
    if name == "vit":
        yield from _vit(model.backbone.vit, at)


def _dinat(dinat: DinatSpec, at: str) -> Iterator[Fault]:
    if dinat.embed_dim % 2:
        yield Fault(
            (f"{at}.embed_dim",), f"{at}.embed_dim {dinat.embed_dim} is odd, but the stem begins with half of it"
        )
    if dinat.kernel_size % 2 == 0:
        what = f"{at}.kernel_size {dinat.kernel_size} is even, but the token is in the middle of its neighbourhood"
        yield Fault((f"{at}.kernel_size",), what, f"try {dinat.kernel_size + 1}")
    if dinat.dilations is not None and [len(stage) for stage in dinat.dilations] != dinat.depths:
        counts = ", ".join(str(len(stage)) for stage in dinat.dilations)
        what = f"{at}.dilations has lists of {counts}, but the stages have {', '.join(map(str, dinat.depths))} blocks"
        yield Fault((f"{at}.dilations", f"{at}.depths"), what)


def _vit(vit: VitSpec, at: str) -> Iterator[Fault]:
    width = vit.embed_dim // vit.num_heads
    if vit.embed_dim % vit.num_heads:
        what = f"{at}.embed_dim {vit.embed_dim} cannot be divided among {vit.num_heads} heads"
        yield Fault((f"{at}.num_heads", f"{at}.embed_dim"), what)
    elif vit.embed_dim % 4:
        yield Fault(
            (f"{at}.embed_dim",), f"{at}.embed_dim {vit.embed_dim} is no multiple of 4, as the finest map needs"
        )
    elif vit.position == "rope" and width % 4:
        what = f"heads of {width} channels cannot be turned: {at}.position rope needs a multiple of 4"
        yield Fault((f"{at}.num_heads", f"{at}.embed_dim", f"{at}.position"), what)


def _tasks(spec: ExperimentSpec) -> Iterator[Fault]:
    on = spec.model.task_toggling
    chosen = {"semantic": on.semantic_on, "instance": on.instance_on, "panoptic": on.panoptic_on}
    if not any(chosen.values()):
        yield Fault(("model.task_toggling.semantic_on",), "model.task_toggling switches every task off")
    for key, table in (
        ("dataset.task_prob_train", spec.dataset.task_prob_train),
        ("dataset.task_prob_val", spec.dataset.task_prob_val),
    ):
        wrong = [name for name in table if name not in TASKS]
        if wrong:
            yield Fault((key,), f"{key} has the entry {wrong[0]}, but the tasks are {', '.join(TASKS)}")
        elif abs(sum(table.values()) - 1) > 1e-3:
            yield Fault((key,), f"{key} adds up to {sum(table.values()):.6g}, but probabilities add up to 1")
    learnt = spec.dataset.task_prob_train
    if any(chosen.values()) and any(learnt.values()) and not any(p for task, p in learnt.items() if chosen.get(task)):
        yield Fault(
            ("dataset.task_prob_train", "model.task_toggling.semantic_on"),
            "dataset.task_prob_train gives probability only to tasks that model.task_toggling switches off",
        )


def _dataset(data: DatasetSpec) -> Iterator[Fault]:
    if data.min_scale > data.max_scale:
        yield Fault(
            ("dataset.min_scale", "dataset.max_scale"),
            f"dataset.min_scale {data.min_scale} is above dataset.max_scale {data.max_scale}",
        )
    sizes, at = data.augmentation, "dataset.augmentation"
    if sizes.test_min_size > sizes.test_max_size:
        what = f"{at}.test_min_size {sizes.test_min_size} is above {at}.test_max_size {sizes.test_max_size}"
        yield Fault((f"{at}.test_min_size", f"{at}.test_max_size"), what)
    if sizes.train_resize == "shortest_edge" and max(sizes.train_min_size) > sizes.train_max_size:
        longest = max(sizes.train_min_size)
        what = f"{at}.train_min_size goes up to {longest}, above {at}.train_max_size {sizes.train_max_size}"
        yield Fault((f"{at}.train_min_size", f"{at}.train_max_size"), what)
    if isinstance(data.image_size, list) and len(data.image_size) > 2:
        yield Fault(("dataset.image_size",), "dataset.image_size must be a side, [width, height] or empty")
    if prod(sizes.train_crop_size) > data.max_image_mpx * 1e6:
        what = f"{at}.train_crop_size {sizes.train_crop_size} has more pixels than dataset.max_image_mpx allows"
        yield Fault((f"{at}.train_crop_size", "dataset.max_image_mpx"), what)
    for split in ("train", "val", "test"):
        part = getattr(data, split)
        files = [part.annotations] if isinstance(part.annotations, str) else part.annotations
        for name in ("images", "panoptic", "names") if part.annotations else ():
            values = getattr(part, name)
            if isinstance(values, list) and len(values) not in (1, len(files)):
                key, other = f"dataset.{split}.{name}", f"dataset.{split}.annotations"
                yield Fault((key, other), f"{key} lists {len(values)}, but {other} lists {len(files)}")


def _lengths(spec: ExperimentSpec) -> Iterator[Fault]:
    data, most = spec.dataset, spec.model.text_encoder.context_length
    other = "model.text_encoder.context_length"
    if data.task_seq_len != most:
        key = "dataset.task_seq_len"
        yield Fault(
            (key, other),
            f"{key} {data.task_seq_len} and {other} {most} must be equal: the network reads as many tokens",
        )
    if data.max_seq_len > most:
        key = "dataset.max_seq_len"
        yield Fault(
            (key, other), f"{key} {data.max_seq_len} is above {other} {most}, the longest text the encoder takes"
        )
    if len(spec.inference.image_size) == 1:
        yield Fault(("inference.image_size",), "inference.image_size must be empty or [width, height]")


def _devices(spec: ExperimentSpec) -> Iterator[Fault]:
    for name in ("train", "evaluate", "inference"):
        ids = getattr(spec, name).gpu_ids
        if len(set(ids)) != len(ids):
            yield Fault((f"{name}.gpu_ids",), f"{name}.gpu_ids {ids} names a GPU twice")


def _export(export: ExportSpec) -> Iterator[Fault]:
    if export.batch_size == 0:
        yield Fault(("export.batch_size",), "export.batch_size is 0, but a graph takes images", "-1 leaves it open")
    if export.half and export.format == "torch":
        what = "export.half is on, but export.format torch is written in float32 only"
        yield Fault(("export.half", "export.format"), what, "open the checkpoint itself in bf16 or fp16")
    for key in ("input_height", "input_width"):
        side = getattr(export, key)
        if export.dynamic_size and side % STRIDE:
            what = f"export.{key} is {side}, but open sizes go in steps of {STRIDE} (export.dynamic_size)"
            yield Fault((f"export.{key}", "export.dynamic_size"), what, f"try {-(-side // STRIDE) * STRIDE}")


def _engine(spec: ExperimentSpec) -> Iterator[Fault]:
    limits, at = spec.gen_trt_engine.tensorrt, "gen_trt_engine.tensorrt"
    if not limits.min_batch_size <= limits.opt_batch_size <= limits.max_batch_size:
        numbers = f"{limits.min_batch_size}, {limits.opt_batch_size}, {limits.max_batch_size}"
        keys = (f"{at}.min_batch_size", f"{at}.opt_batch_size", f"{at}.max_batch_size")
        yield Fault(keys, f"{at}: min, opt and max batch size are {numbers}, but must not fall")
    for name in ("min_size", "opt_size", "max_size"):
        if len(getattr(limits, name)) == 1:
            yield Fault((f"{at}.{name}",), f"{at}.{name} must be empty or [width, height]")
