"""A Keras model as TensorFlow.js keeps it -> its outputs, computed in numpy layer by layer as the description says.

An oracle that shares no code with the loader: neither its reading of the shards nor any convolution of PyTorch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Array = np.ndarray


def weights(folder: Path) -> dict[str, Array]:
    """Tensors by Keras's names."""
    out = {}
    for group in json.loads((folder / "model.json").read_text())["weightsManifest"]:
        stream = b"".join((folder / path).read_bytes() for path in group["paths"])
        at = 0
        for entry in group["weights"]:
            count = int(np.prod(entry["shape"]))
            out[entry["name"]] = np.frombuffer(stream, "<f4", count, at).reshape(entry["shape"])
            at += 4 * count
    return out


def layers(folder: Path) -> list[dict[str, Any]]:
    """The layers in order."""
    return json.loads((folder / "model.json").read_text())["modelTopology"]["model_config"]["config"]["layers"]


def outputs(folder: Path, image: Array) -> dict[str, Array]:
    """The output (h, w, C) of each layer for one image (H, W, 3) that is prepared as the model wants it."""
    held = weights(folder)
    out: dict[str, Array] = {}
    for layer in layers(folder):
        config = layer["config"]
        name = config["name"]
        inputs = [out[node[0]] for node in layer["inbound_nodes"][0]] if layer["inbound_nodes"] else [image]
        out[name] = apply(layer["class_name"], config, inputs, {k: held.get(f"{name}/{k}") for k in KINDS})
    return out


KINDS = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")


def apply(kind: str, config: dict[str, Any], inputs: list[Array], w: dict[str, Any]) -> Array:
    x = inputs[0]
    if kind == "Conv2D":
        if config["padding"] == "same":
            x = same(x, w["kernel"].shape[:2], config["strides"])
        windows = sliding_window_view(x, w["kernel"].shape[:2], axis=(0, 1))  # (h, w, C, kh, kw)
        windows = windows[:: config["strides"][0], :: config["strides"][1]]
        return np.einsum("hwcij,ijco->hwo", windows, w["kernel"], optimize=True) + w["bias"]
    if kind == "BatchNormalization":
        return w["gamma"] * (x - w["moving_mean"]) / np.sqrt(w["moving_variance"] + config["epsilon"]) + w["beta"]
    if kind == "ZeroPadding2D":
        return np.pad(x, (*config["padding"], (0, 0)))
    if kind == "MaxPooling2D":
        return sliding_window_view(x, config["pool_size"], axis=(0, 1))[
            :: config["strides"][0], :: config["strides"][1]
        ].max((3, 4))
    if kind == "Activation" and config["activation"] == "relu":
        return np.maximum(x, 0)
    if kind == "Add":
        return sum(inputs)
    if kind == "GlobalAveragePooling2D":
        return x.mean((0, 1))
    if kind == "Dense":
        return softmax(x @ w["kernel"] + w["bias"])
    assert kind == "InputLayer", kind
    return x


def same(x: Array, kernel: tuple[int, int], strides: list[int]) -> Array:
    """TensorFlow's padding: as many cells as the stride needs, the odd one at the end."""
    pads = []
    for length, k, s in zip(x.shape, kernel, strides, strict=False):
        total = max((-(-length // s) - 1) * s + k - length, 0)
        pads.append((total // 2, total - total // 2))
    return np.pad(x, (*pads, (0, 0)))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return e / e.sum()


def write(folder: Path, depths: tuple[int, int, int, int], *, shard: int = 1_000_000, seed: int = 0) -> Path:
    """A random ResNet in the names and with the layers of Keras's ResNet-50, cut into shards of `shard` bytes."""
    rng = np.random.default_rng(seed)
    topology: list[dict[str, Any]] = []
    tensors: list[tuple[str, Array]] = []

    def add(kind: str, name: str, *inputs: str, **config: Any) -> str:
        nodes = [[[i, 0, 0, {}] for i in inputs]] if inputs else []
        topology.append({"class_name": kind, "config": {"name": name, **config}, "inbound_nodes": nodes})
        return name

    def conv(name: str, source: str, size: int, channels: tuple[int, int], stride: int) -> str:
        kernel = rng.normal(0, (2 / (size * size * channels[0])) ** 0.5, (size, size, *channels))
        tensors.extend([(f"{name}/kernel", kernel), (f"{name}/bias", rng.normal(0, 0.2, channels[1]))])
        padding = "same" if size == 3 else "valid"
        return add("Conv2D", name, source, strides=[stride, stride], padding=padding, kernel_size=[size, size])

    def norm(name: str, source: str, channels: int) -> str:
        for kind in ("gamma", "beta", "moving_mean", "moving_variance"):
            values = (
                rng.uniform(0.5, 1.5, channels) if kind in ("gamma", "moving_variance") else rng.normal(size=channels)
            )
            tensors.append((f"{name}/{kind}", values * (0.3 if kind in ("beta", "moving_mean") else 1)))
        return add("BatchNormalization", name, source, epsilon=0.001)

    def relu(source: str) -> str:
        return add("Activation", f"activation_{len(topology)}", source, activation="relu")

    x = add("ZeroPadding2D", "conv1_pad", add("InputLayer", "input_1"), padding=[[3, 3], [3, 3]])
    x = relu(norm("bn_conv1", conv("conv1", x, 7, (3, 64), 2), 64))
    x = add("ZeroPadding2D", "pool1_pad", x, padding=[[1, 1], [1, 1]])
    x, dim = add("MaxPooling2D", "pool1", x, pool_size=[3, 3], strides=[2, 2]), 64
    for stage, depth in enumerate(depths):
        width = 64 * 2**stage
        for block in range(depth):
            name, stride = f"{stage + 2}{'abcdef'[block]}_branch", 2 if stage and not block else 1
            y = relu(norm(f"bn{name}2a", conv(f"res{name}2a", x, 1, (dim, width), stride), width))
            y = relu(norm(f"bn{name}2b", conv(f"res{name}2b", y, 3, (width, width), 1), width))
            y = norm(f"bn{name}2c", conv(f"res{name}2c", y, 1, (width, 4 * width), 1), 4 * width)
            if not block:
                x = norm(f"bn{name}1", conv(f"res{name}1", x, 1, (dim, 4 * width), stride), 4 * width)
            x, dim = relu(add("Add", f"add_{stage}_{block}", y, x)), 4 * width
    rng.shuffle(tensors)  # the file's order is its own
    content = b"".join(values.astype("<f4").tobytes() for _, values in tensors)
    paths = [f"group1-shard{i + 1}.bin" for i in range(-(-len(content) // shard))]
    folder.mkdir(parents=True, exist_ok=True)
    for i, path in enumerate(paths):
        (folder / path).write_bytes(content[i * shard : (i + 1) * shard])
    entries = [{"name": n, "shape": list(v.shape), "dtype": "float32"} for n, v in tensors]
    model = {
        "format": "layers-model",
        "modelTopology": {"model_config": {"class_name": "Model", "config": {"layers": topology}}},
        "weightsManifest": [{"paths": paths, "weights": entries}],
    }
    (folder / "model.json").write_text(json.dumps(model))
    return folder
