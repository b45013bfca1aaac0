"""This machine -> versions, devices, memory, optional packages: what decides whether and how fast things run."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from oneformer import __version__
from oneformer.runs.limits import container_limit

_BASE = ("torch", "lightning", "numpy", "scipy", "pillow", "faster-coco-eval", "pydantic", "ruamel.yaml")
_NAME = re.compile(r"^[A-Za-z0-9._-]+")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")
_FAST = ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16", "sve", "bf16", "i8mm")


@dataclass(frozen=True)
class Report:
    """Sections of facts, in the order they are shown."""

    facts: dict[str, dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """The facts as they are."""
        return self.facts

    def table(self) -> str:
        """One block for each section."""
        width = max((len(name) for rows in self.facts.values() for name in rows), default=0)
        lines = []
        for title, rows in self.facts.items():
            lines += [title, *(f"  {name:<{width}}  {_words(fact)}" for name, fact in rows.items())]
        return "\n".join(lines)


def _words(fact: Any) -> str:
    if isinstance(fact, bool):
        return "yes" if fact else "no"
    return ", ".join(map(str, fact)) or "none" if isinstance(fact, list | tuple) else str(fact)


def run(_words: Sequence[str] = ()) -> Report:
    """Look at the machine; nothing is changed, nothing is sent, and a missing package is a line, not an error."""
    base, extras = _requirements()
    return Report(
        {
            "versions": _versions(base),
            "processor": _processor(),
            "devices": _devices(),
            "memory and disk": _space(),
            "optional packages": _optional(extras),
            "network": {"deformable attention": _deformable()},
        }
    )


def _requirements() -> tuple[list[str], dict[str, list[str]]]:
    """Names of the packages we need, and of those that each extra adds, as our own installed metadata says.

    A copy that runs without being installed has no metadata; then the packages that results depend on are shown.
    """
    base: list[str] = []
    extras: dict[str, list[str]] = {}
    try:
        asked = metadata.requires("oneformer") or []
    except metadata.PackageNotFoundError:
        asked = []
    for line in asked:
        name, extra = _NAME.match(line), _EXTRA.search(line)
        if name and extra:
            extras.setdefault(extra[1], []).append(name[0])
        elif name:
            base.append(name[0])
    extras.pop("dev", None)
    return base or list(_BASE), extras


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _versions(names: list[str]) -> dict[str, str]:
    own = {"oneformer": __version__, "python": sys.version.split()[0], "platform": platform.platform()}
    return own | {name: _version(name) or "missing" for name in names}


def _optional(extras: dict[str, list[str]]) -> dict[str, str]:
    found = {}
    for extra, names in sorted(extras.items()):
        missing = [name for name in names if not _version(name)]
        have = ", ".join(f"{name} {_version(name)}" for name in names if name not in missing)
        found[extra] = f'missing {", ".join(missing)}: pip install "oneformer[{extra}]"' if missing else have
    return found or {"extras": "this version has none"}


def _processor() -> dict[str, Any]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts: dict[str, Any] = {"model": _cpu_name(), "cores": usable}
    try:
        import torch

        able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        facts["torch threads"] = torch.get_num_threads()
        facts["torch kernels"] = torch.backends.cpu.get_cpu_capability()
        facts["fast instructions"] = [name for name in _FAST if able.get(name)]
        facts["fast bf16"] = bool(able.get("amx_bf16") or able.get("avx512_bf16") or able.get("bf16"))
    except (ImportError, OSError) as error:
        facts["torch"] = f"cannot be imported: {error}"
    return facts


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return named[1] if named else platform.machine()


def _devices() -> dict[str, Any]:
    try:
        import torch
    except (ImportError, OSError) as error:
        return {"torch": f"cannot be imported: {error}"}
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = "no GPU is visible" if built else "this torch is built for the CPU only"
        return {"cuda": f"not available: {why}"}
    found: dict[str, Any] = {"cuda": str(torch.version.cuda)}
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        found[f"gpu {index}"] = (
            f"{about.name}, compute {about.major}.{about.minor}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        )
    return found


def _space() -> dict[str, str]:
    found = {}
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
        sizes = {k: int(v) / 2**20 for k, v in re.findall(r"^(MemAvailable|MemTotal):\s+(\d+) kB", text, re.MULTILINE)}
        found["memory"] = f"{sizes['MemAvailable']:.1f} of {sizes['MemTotal']:.1f} GiB free"
    except (OSError, KeyError):
        found["memory"] = "unknown on this system"
    limit = container_limit()
    if limit:
        found["memory limit"] = f"{limit / 2**30:.1f} GiB for this container"
    disk = shutil.disk_usage(Path.cwd())
    found["disk here"] = f"{disk.free / 2**30:.1f} of {disk.total / 2**30:.1f} GiB free"
    shm = Path("/dev/shm")  # noqa: S108  # only its size is read
    if shm.is_dir():
        found["shared memory"] = f"{shutil.disk_usage(shm).free / 2**30:.1f} GiB free (loader workers need it)"
    return found


def _deformable() -> str:
    """Which computation of deformable attention the network uses on each kind of device."""
    try:
        from oneformer.model.deform_path import summary
    except ImportError as error:
        return f"cannot be imported: {error}"
    return summary()
