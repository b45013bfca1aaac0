"""The `precision` of a spec and the device -> the arithmetic that the trainer uses."""

from __future__ import annotations

import torch

from oneformer.errors import UserError

FP32, BF16, FP16 = "32-true", "bf16-mixed", "16-mixed"
NAMES = {
    "fp32": FP32, "32": FP32, "32-true": FP32,
    "bf16": BF16, "bf16-mixed": BF16,
    "fp16": FP16, "16": FP16, "16-mixed": FP16,
}  # fmt: skip


def lightning_precision(precision: str | int, device: torch.device) -> str:
    """Lightning's name of the arithmetic: "32-true", "bf16-mixed" or "16-mixed".

    `auto` is bf16 where the device computes it fast, else fp32.

    Raises:
        UserError: fp16 on a CPU, which has no fast half precision and no gradient scaling.
    """
    name = str(precision).lower()
    if name == "auto":
        return BF16 if bf16_is_fast(device) else FP32
    chosen = NAMES[name]
    if chosen == FP16 and device.type == "cpu":
        raise UserError(
            "fp16 needs a GPU", where="train.precision", hint="use fp32, or bf16 on a CPU with AMX or AVX512-BF16"
        )
    return chosen


def bf16_is_fast(device: torch.device) -> bool:
    """Whether the device has instructions for bf16; a CPU without them was 50 times slower in it than in fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    able: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # torch before 2.9 cannot tell
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))
