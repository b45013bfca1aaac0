"""What workers do with their memory, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from oneformer.data.parallel import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for turn in range(12):
    if turn == 2:
        before = faults()
    blocks = [np.empty(40 << 20, np.uint8) for _ in range(2)]  # larger than what is kept by itself
    for block in blocks:
        block[::4096] = 1
    del block, blocks
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc's")
def test_a_worker_takes_its_own_memory_again() -> None:
    told = [
        int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "leave")
    ]
    assert told[0] < told[1] / 4, told
