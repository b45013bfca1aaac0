"""Triton's kernels compute what the reference computes, in its interpreter, and compile for the GPUs we know of."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
HERE = Path(__file__).parent


def test_the_interpreted_kernels_equal_the_reference(tmp_path: Path) -> None:
    """The claims are in deform_kernels.py."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path}"]
    done = subprocess.run(
        [*command, str(HERE / "deform_kernels.py")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile anew, and leave nothing behind."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def compiled(kernel: object, dtype: str, capability: int, d: int = 32) -> object:
    """What Triton makes of a kernel for values of a type, as the network calls it, without a GPU."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from oneformer.model import deform_triton as ours

    numbers, warps = ours.FORWARD if kernel is ours.forward_kernel else ours.BACKWARD
    padded = triton.next_power_of_2(d)
    constants = {"HEADS": 8, "D": d, "LEVELS": 3, "POINTS": 4, "BLOCK": numbers // padded, "PADDED": padded}
    constants["SUM"] = triton.language.float32
    types = {"value": f"*{dtype}", "levels": "*i32", "queries": "i32", "tokens": "i32"}
    types |= dict.fromkeys(constants, "constexpr")
    signature = {name: types.get(name, "*fp32") for name in kernel.arg_names}
    aligned = {
        (i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names) if signature[name].startswith("*")
    }
    source = ASTSource(kernel, signature, constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})


def resources(binary: bytes, folder: Path) -> dict[str, int]:
    """Registers of a thread, and the bytes it keeps in memory for want of them, as NVIDIA's own tool reads them."""
    import triton

    path = folder / "kernel.cubin"
    path.write_bytes(binary)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    text = subprocess.run([tool, "--dump-resource-usage", path], capture_output=True, text=True, check=True).stdout
    return {name: int(n) for name, n in re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", text)}


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("name", ["forward_kernel", "backward_kernel"])
def test_the_kernels_compile_for_gpus_of_two_generations(
    name: str, dtype: str, capability: int, tmp_path: Path, cache: None
) -> None:
    """To machine code of A100 and H100, within 128 registers and none spilt; channels are read 16 bytes at a time."""
    from oneformer.model import deform_triton

    made = compiled(getattr(deform_triton, name), dtype, capability)
    used = resources(made.asm["cubin"], tmp_path)
    assert used["REG"] <= 128 and used["STACK"] == used["LOCAL"] == 0, used
    ptx = made.asm["ptx"]
    assert "ld.global.v4.b32" in ptx
    if name == "backward_kernel":
        assert ".v4.f32" in ptx if capability == 90 else "atom.global.gpu.relaxed.add.f32" in ptx
        assert "bar.sync" not in ptx  # one warp does not wait for others


def test_a_kernel_for_channels_that_are_no_power_of_two_compiles(cache: None) -> None:
    from oneformer.model.deform_triton import backward_kernel, forward_kernel

    assert compiled(forward_kernel, "bf16", 90, d=24).asm["cubin"]
    assert compiled(backward_kernel, "bf16", 90, d=24).asm["cubin"]


class NoGpu:
    """What Triton asks of a driver before it compiles."""

    def get_current_target(self) -> object:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0


class Unlaunched:
    """A kernel that is compiled for the arguments it gets, and not launched."""

    def __init__(self, kernel: object) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> object:
        return lambda *args, **options: self.kernel.warmup(*args, grid=grid, **options)

    def versions(self) -> int:
        return sum(len(found[0]) for found in self.kernel.device_caches.values())


def test_images_of_other_sizes_need_no_other_compilation(cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arguments as they are given on a GPU, up to the launch itself."""
    import torch
    from triton.runtime import driver

    from oneformer.model import deform_triton as ours

    monkeypatch.setattr(driver, "_active", NoGpu())
    kernels = Unlaunched(ours.forward_kernel), Unlaunched(ours.backward_kernel)
    monkeypatch.setattr(ours, "forward_kernel", kernels[0])
    monkeypatch.setattr(ours, "backward_kernel", kernels[1])
    for size in (1, 4, 5, 16):
        tokens = size * size + size
        value = torch.randn(2, tokens, 8, 32, requires_grad=True)
        pixels, weights = torch.randn(2, tokens, 8, 2, 4, 2), torch.rand(2, tokens, 8, 2, 4)
        ours.sample_triton(value, pixels, weights, ((size, size), (size, 1))).sum().backward()
    assert [kernel.versions() for kernel in kernels] == [1, 1]
