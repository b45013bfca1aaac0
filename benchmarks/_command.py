"""A benchmark's `measure` function -> its command line: rounds, threads, and where the rows go."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from _measure import hardware, today, versions
from _report import Row, save, table


def parser(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """The options that all benchmarks share."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds, help="how often each side takes its turn")
    made.add_argument(
        "--one-thread",
        action="store_true",
        help="one thread, processor time: for a machine that other programs use as well",
    )
    made.add_argument("--json", type=Path, help="also write the rows to this file")
    return made


def run(measure: Callable[[argparse.Namespace], Sequence[Row]], options: argparse.Namespace) -> None:
    """Measure, print the table, write the rows."""
    torch.set_num_threads(1 if options.one_thread else os.cpu_count() or 1)  # whatever the environment says
    rows = measure(options)
    print(f"{hardware()}; {torch.get_num_threads()} threads; {versions()}; {today()}")
    print("\n".join(table(rows)))
    if options.json:
        save(options.json, rows)
