"""A Ray cluster of this machine, for tests where Ray is installed."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

TOKEN = secrets.token_hex(32)
"""Ray keeps the first one that a process has given it; without one it writes one into the home folder."""


@contextmanager
def ray_cluster(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Iterator[Any]:
    """Ray with a cluster of two processors, or what else `ray.init` is told; skips the test where there is no Ray."""
    module = pytest.importorskip("ray", reason="ray is not installed (the extra [ray])")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    module.init("local", **{"num_cpus": 2, "include_dashboard": False, "log_to_driver": False, **settings})
    try:
        yield module
    finally:
        module.shutdown()
