"""Start of a process -> seconds until it can work: the command, the package and the network beside transformers'.

python benchmarks/startup.py [--rounds 3] [--one-thread]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable

from _command import parser, run
from _measure import in_turn
from _report import Row

CODE = {
    "python itself": "pass",
    "import oneformer": "import oneformer",
    "import torch": "import torch",
    "import our network": "from oneformer.model.oneformer import build_model",
    "import their network": "from transformers import OneFormerForUniversalSegmentation",
}


def start(*arguments: str) -> Callable[[], object]:
    """A new Python process with these arguments."""
    return lambda: subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def measure(options: argparse.Namespace) -> list[Row]:
    """Commands and imports, each in a new process."""
    sides = {"oneformer --help": start("-m", "oneformer", "--help")}
    sides |= {name: start("-c", code) for name, code in CODE.items()}
    times = in_turn(sides, rounds=options.rounds)
    rows = [
        Row(name, times[name], times["python itself"], "python itself")
        for name in ("oneformer --help", "import oneformer")
    ]
    rows.append(
        Row("import of the network, torch included", times["import our network"], times["import their network"])
    )
    rows.append(Row("import of the network", times["import our network"], times["import torch"], "torch alone"))
    return rows


if __name__ == "__main__":
    run(measure, parser(__doc__, rounds=3).parse_args())
