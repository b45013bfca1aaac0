"""Hand-made graphs with the ports and names of an export: everything quick, nothing traced."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from oneformer.data.labels import LabelMap
from oneformer.data.tokens import task_tokenizer
from oneformer.engines.about import KEY, About
from oneformer.engines.base import EngineInfo
from oneformer.segments.types import TASKS
from oneformer.spec.load import load_spec
from predict.fake import LABELS
from story.tiny_model import TINY

QUERIES, WIDTH = 12, 8


@cache
def about() -> About:
    """A description as `oneformer export` writes it."""
    spec = load_spec(None, TINY, action="train")
    sizes = spec.dataset.augmentation
    mean, std = spec.dataset.pixel_mean, spec.dataset.pixel_std
    info = EngineInfo(tuple(mean), tuple(std), sizes.test_min_size, sizes.test_max_size, spec.model)
    tokenizer = task_tokenizer(spec.model.text_encoder)
    return About(LABELS, info, {task: tokenizer.task_tokens(task).tolist() for task in TASKS})


class Net:
    """Nodes one after the other; each call returns the name's value."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def constant(self, name: str, numbers: Any) -> Any:
        if name not in self.constants:
            tensor = ir.tensor(np.asarray(numbers), name=name)
            self.constants[name] = ir.Value(
                name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor
            )
        return self.constants[name]

    def add(self, operator: str, inputs: list[Any], shape: list[Any], name: str, **attributes: Any) -> Any:
        node = ir.node(operator, inputs, attributes, name=name)
        out = node.outputs[0]
        out.name, out.shape, out.type = f"{name}/out", ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
        self.nodes.append(node)
        return out


def small_model(
    *, batch: int | str = "batch", size: tuple[int, int] | None = (64, 96), said: About | None = None
) -> Any:
    """An `onnx_ir.Model`: a convolution of stride 4, an attention over its map, queries times pixels, a task MLP.

    Args:
        batch: a number where it is fixed.
        size: height and width, None where they are open.
        said: what it says of itself.
    """
    said = said or about()
    rng, classes = np.random.default_rng(0), said.labels.num_classes
    height, width = size or ("height", "width")
    low = [height // 4, width // 4] if size else ["mask_height", "mask_width"]
    net = Net()
    images, tokens = (
        ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
        for name, shape in (("images", [batch, 3, height, width]), ("task_tokens", [batch, 77]))
    )

    def weight(name: str, *shape: int) -> Any:
        return net.constant(name, rng.normal(0, 0.2, shape).astype(np.float32))

    features = net.add(
        "Conv", [images, weight("stem.weight", WIDTH, 3, 4, 4)], [batch, WIDTH, *low], "stem/Conv",
        strides=[4, 4], kernel_shape=[4, 4],
    )  # fmt: skip
    flat = net.add(
        "Reshape", [features, net.constant("flat", np.array([0, WIDTH, -1]))], [batch, WIDTH, "pixels"], "flat/Reshape"
    )
    task = net.add("MatMul", [tokens, weight("task.mlp.0.weight", 77, WIDTH)], [batch, WIDTH], "task.mlp.0/MatMul")
    task = net.add("Unsqueeze", [task, net.constant("one", np.array([1]))], [batch, 1, WIDTH], "task/Unsqueeze")
    query = net.add("Add", [task, weight("queries.weight", QUERIES, WIDTH)], [batch, QUERIES, WIDTH], "queries/Add")
    query = net.add(
        "LayerNormalization", [query, net.constant("norm.weight", np.ones(WIDTH, np.float32))],
        [batch, QUERIES, WIDTH], "norm/LayerNormalization", axis=-1,
    )  # fmt: skip
    scores = net.add("MatMul", [query, flat], [batch, QUERIES, "pixels"], "decoder.layers.0.attn/MatMul")
    shares = net.add("Softmax", [scores], [batch, QUERIES, "pixels"], "decoder.layers.0.attn/Softmax", axis=-1)
    turned = net.add("Transpose", [flat], [batch, "pixels", WIDTH], "flat/Transpose", perm=[0, 2, 1])
    query = net.add("MatMul", [shares, turned], [batch, QUERIES, WIDTH], "decoder.layers.0.attn/MatMul_2")
    query = net.add(
        "MatMul", [query, weight("decoder.layers.0.out.weight", WIDTH, WIDTH)], [batch, QUERIES, WIDTH],
        "decoder.layers.0.out/MatMul",
    )  # fmt: skip
    logits = net.add(
        "MatMul", [query, weight("class_embed.weight", WIDTH, classes + 1)], [batch, QUERIES, classes + 1],
        "class_embed/MatMul",
    )  # fmt: skip
    logits.name = "pred_logits"
    masks = net.add("MatMul", [query, flat], [batch, QUERIES, "pixels"], "masks/MatMul")
    spread = [net.add("Shape", [features], [2], "size/Shape", start=2), net.constant("head", np.array([0, QUERIES]))]
    spread[0].type = ir.TensorType(ir.DataType.INT64)
    shape = net.add("Concat", [spread[1], spread[0]], [4], "size/Concat", axis=0)
    shape.type = ir.TensorType(ir.DataType.INT64)
    masks = net.add("Reshape", [masks, shape], [batch, QUERIES, *low], "masks/Reshape")
    masks.name = "pred_masks"
    graph = ir.Graph(
        [images, tokens], [logits, masks], nodes=net.nodes, initializers=list(net.constants.values()),
        opset_imports={"": 18}, name="oneformer",
    )  # fmt: skip
    model = ir.Model(graph, ir_version=10)
    model.metadata_props[KEY] = said.to_json()
    return model


def small_onnx(path: Path, **options: Any) -> Path:
    """The file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ir.save(small_model(**options), path)
    return path


def described(**changes: Any) -> About:
    """The description with some of it changed."""
    return replace(about(), **changes)


def described_with(labels: LabelMap) -> About:
    """The description of a network with other classes."""
    model = about().info.model
    head = replace(model.sem_seg_head, num_classes=labels.num_classes)
    return described(labels=labels, info=replace(about().info, model=replace(model, sem_seg_head=head)))
