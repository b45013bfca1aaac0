"""The name of a package and a module -> the module in the package's place, for a while."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest


@contextmanager
def stand_in(name: str, module: ModuleType) -> Iterator[None]:
    """While open, `import name` gives `module`.

    `mock.patch.dict(sys.modules, ...)` would put the whole table back at the end: what was imported meanwhile would be
    imported again, and parts of torch register themselves a second time then, which torch refuses.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, name, module)
        yield
