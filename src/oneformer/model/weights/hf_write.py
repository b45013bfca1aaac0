"""A checked model -> a folder that Hugging Face transformers opens: model, image processor, tokenizer, class list."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oneformer.data.tokens import vocabulary
from oneformer.model.weights.checkpoint import CheckpointInfo
from oneformer.model.weights.hf_config import config_of
from oneformer.model.weights.hf_folder import CLASSES, CONFIG, OURS, PREPROCESSOR, PROCESSOR, TRAINING, WEIGHTS
from oneformer.model.weights.padding import as_published
from oneformer.model.weights.targets import hf_tensors
from oneformer.spec.tree import to_dict

START, END, PAD = "<|startoftext|>", "<|endoftext|>", "!"
BILINEAR = 2  # Pillow's number


def write_hf_folder(info: CheckpointInfo, folder: Path) -> None:
    """Write all files into an empty folder.

    Raises:
        CheckpointError: their network cannot compute the model.
        OSError: a file cannot be written.
    """
    from safetensors.torch import save_file

    tensors, text = hf_tensors(info)
    info = as_published(info)
    dtype = Counter(t.dtype for t in tensors.values() if t.is_floating_point()).most_common(1)[0][0]
    config = config_of(info.model, names=info.labels.names, dtype=str(dtype).removeprefix("torch."))
    length = info.model.text_encoder.context_length
    known = vocabulary()
    files: dict[str, Any] = {
        CONFIG: config,
        PREPROCESSOR: processor_of(info),
        PROCESSOR: {"processor_class": "OneFormerProcessor", "max_seq_length": length, "task_seq_length": length},
        CLASSES: classes_of(info),
        "tokenizer_config.json": tokenizer_of(length),
        "special_tokens_map.json": {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": PAD},
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    vocabulary_file = json.dumps({**known.id_of, START: known.start, END: known.end}, ensure_ascii=False)
    (folder / "vocab.json").write_text(vocabulary_file, encoding="utf-8")
    merges = "\n".join(["#version: 0.2", *(" ".join(merge) for merge in known.rank)])
    (folder / "merges.txt").write_text(merges + "\n", encoding="utf-8")
    for name, part in ((WEIGHTS[0], tensors), (TRAINING, text)):
        if part:
            save_file(apart(part), folder / name, metadata={"format": "pt"})


def processor_of(info: CheckpointInfo) -> dict[str, Any]:
    """preprocessor_config.json.

    Their processor looks for the class file beside the current folder or on their server. The class list stands here
    too, under the name that it is given when it has been read, so that none has to be found.
    """
    labels = info.labels
    metadata: dict[str, Any] = {str(i): name for i, name in enumerate(labels.names)}
    return {
        "image_processor_type": "OneFormerImageProcessor",
        "processor_class": "OneFormerProcessor",
        "do_resize": True,
        "size": {"shortest_edge": info.test_min_size, "longest_edge": info.test_max_size},
        "resample": BILINEAR,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [value / 255 for value in info.pixel_mean],
        "image_std": [value / 255 for value in info.pixel_std],
        "do_reduce_labels": False,
        "ignore_index": info.model.sem_seg_head.ignore_value,
        "num_labels": labels.num_classes,
        "num_text": info.model.one_former.num_object_queries - info.model.text_encoder.n_ctx,
        "class_info_file": "",
        OURS: {"test": to_dict(info.model.test), "task_toggling": to_dict(info.model.task_toggling)},
        "metadata": {**metadata, "thing_ids": list(labels.thing_ids), "class_names": list(labels.names)},
    }


def classes_of(info: CheckpointInfo) -> dict[str, Any]:
    """The class file: what their processor reads, and what is ours beside it."""
    labels = info.labels
    rows = zip(labels.names, labels.is_thing, labels.colors, labels.category_ids, strict=True)
    return {
        str(i): {"isthing": int(thing), "name": name, "color": list(color), "id": category}
        for i, (name, thing, color, category) in enumerate(rows)
    }


def tokenizer_of(length: int) -> dict[str, Any]:
    """CLIP's tokenizer.

    It pads with token 0, as the network was trained: their pipeline hands the ids on as they are, and would otherwise
    pad with the end token.
    """
    return {
        "tokenizer_class": "CLIPTokenizer",
        "processor_class": "OneFormerProcessor",
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": PAD,
        "model_max_length": length,
        "do_lower_case": True,
        "add_prefix_space": False,
    }


def apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors that share no memory, as safetensors asks for: parts of one matrix of ours do."""
    held: set[int] = set()
    out = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        out[name] = (
            tensor
            if whole and tensor.is_contiguous() and place not in held
            else tensor.clone(memory_format=torch.contiguous_format)
        )
        held.add(place)
    return out
