"""This process and machine -> how much memory may be used."""

from __future__ import annotations

import re
from pathlib import Path


def address_limit() -> int:
    """The limit on addresses of this process (`ulimit -v`), bytes; 0 without one."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return 0 if soft == resource.RLIM_INFINITY else soft


def container_limit() -> int:
    """What a container may use (cgroup v2, then v1), bytes; 0 when nothing limits it."""
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            said = Path(file).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        # An unlimited v1 group says a number near 2**63.
        return int(said) if said.isdigit() and int(said) < 2**60 else 0
    return 0


def physical() -> int:
    """The memory of this machine, bytes; 0 if unknown."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return 0
    found = re.search(r"^MemTotal:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 2**10 if found else 0
