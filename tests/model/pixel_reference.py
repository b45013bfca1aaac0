"""The pyramid pixel decoders once more, in NumPy and float64 from their definitions: slow, and unlike what it checks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
State = dict[str, Array]


def conv(x: Array, weight: Array, bias: Array | None) -> Array:
    """x (C, H, W), weight (O, C, k, k) with zeros around the map -> (O, H, W)."""
    side = weight.shape[2] // 2
    padded = np.pad(x, ((0, 0), (side, side), (side, side)))
    out = np.zeros((weight.shape[0], *x.shape[1:]))
    for dy in range(weight.shape[2]):
        for dx in range(weight.shape[3]):
            window = padded[:, dy : dy + x.shape[1], dx : dx + x.shape[2]]
            out += np.tensordot(weight[:, :, dy, dx], window, axes=1)
    return out if bias is None else out + bias[:, None, None]


def group_norm(x: Array, weight: Array, bias: Array, groups: int) -> Array:
    parts = x.reshape(groups, -1)
    mean, variance = parts.mean(1, keepdims=True), parts.var(1, keepdims=True)
    normed = ((parts - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
    return normed * weight[:, None, None] + bias[:, None, None]


def layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * weight + bias


def repeat_to(x: Array, height: int, width: int) -> Array:
    """Each new pixel takes the old pixel under its corner."""
    rows = [y * x.shape[1] // height for y in range(height)]
    columns = [c * x.shape[2] // width for c in range(width)]
    return x[:, rows][:, :, columns]


def sine(height: int, width: int, dim: int) -> Array:
    """oneformer-model.md 1.5: positions from 1, divided by the last, times 2 pi; sine and cosine in turn; y, then x."""
    out = np.zeros((height * width, dim))
    for y in range(height):
        for x in range(width):
            for axis, (at, last) in enumerate(((y + 1, height), (x + 1, width))):
                angle = at / (last + 1e-6) * 2 * math.pi
                for c in range(dim // 2):
                    wave = angle / 10000 ** (2 * (c // 2) / (dim // 2))
                    out[y * width + x, axis * dim // 2 + c] = math.cos(wave) if c % 2 else math.sin(wave)
    return out


def attention(at: Array, value: Array, state: State, name: str, heads: int) -> Array:
    """Tokens (N, C) as queries and keys, tokens (N, C) as values -> (N, C)."""
    weights, biases = np.split(state[f"{name}.qkv.weight"], 3), np.split(state[f"{name}.qkv.bias"], 3)
    q, k, v = (x @ w.T + b for x, w, b in zip((at, at, value), weights, biases, strict=True))
    parts = []
    for one_q, one_k, one_v in zip(*(np.split(x, heads, axis=1) for x in (q, k, v)), strict=True):
        score = np.exp(one_q @ one_k.T / math.sqrt(one_q.shape[1]))
        parts.append(score / score.sum(1, keepdims=True) @ one_v)
    return np.concatenate(parts, 1) @ state[f"{name}.out.weight"].T + state[f"{name}.out.bias"]


def encode(x: Array, state: State, *, layers: int, heads: int, pre_norm: bool) -> Array:
    """The attention on the coarsest map, (C', h, w) -> (C, h, w)."""
    projected = conv(x, state["encoder.input_proj.weight"], state["encoder.input_proj.bias"])
    tokens, place = projected.reshape(len(projected), -1).T, sine(*x.shape[1:], len(projected))

    def norm(y: Array, name: str) -> Array:
        return layer_norm(y, state[f"{name}.weight"], state[f"{name}.bias"])

    for i in range(layers):
        name = f"encoder.layers.{i}"

        def look(y: Array, name: str = name) -> Array:
            return attention(y + place, y, state, f"{name}.attn", heads)

        def think(y: Array, name: str = name) -> Array:
            hidden = np.maximum(y @ state[f"{name}.ffn.linear1.weight"].T + state[f"{name}.ffn.linear1.bias"], 0)
            return hidden @ state[f"{name}.ffn.linear2.weight"].T + state[f"{name}.ffn.linear2.bias"]

        if pre_norm:
            tokens = tokens + look(norm(tokens, f"{name}.norm1"))
            tokens = tokens + think(norm(tokens, f"{name}.norm2"))
        else:
            tokens = norm(tokens + look(tokens), f"{name}.norm1")
            tokens = norm(tokens + think(tokens), f"{name}.norm2")
    if pre_norm:
        tokens = norm(tokens, "encoder.norm")
    return tokens.T.reshape(projected.shape)


def block(x: Array, state: State, name: str, groups: int) -> Array:
    """A convolution and its group normalisation; without the latter's weights, the convolution with its bias."""
    out = conv(x, state[f"{name}.0.weight"], state.get(f"{name}.0.bias"))
    if f"{name}.1.weight" not in state:
        return out
    return group_norm(out, state[f"{name}.1.weight"], state[f"{name}.1.bias"], groups)


def pyramid(maps: list[Array], state: State, *, groups: int) -> tuple[Array, list[Array]]:
    """Maps (C, h, w) of one image, coarsest first and refined -> mask features and every level."""
    x = np.maximum(block(maps[0], state, "smooth.0", groups), 0)
    levels = [x]
    for i, finer in enumerate(maps[1:]):
        total = block(finer, state, f"lateral.{i}", groups) + repeat_to(x, *finer.shape[1:])
        x = np.maximum(block(total, state, f"smooth.{i + 1}", groups), 0)
        levels.append(x)
    return conv(x, state["mask_features.weight"], state["mask_features.bias"]), levels
