"""Every benchmark in turn -> tables, docs/benchmarks.md, and a failure where a ratio got worse than it was.

    python benchmarks/run.py [NAME ...] [--rounds N] [--one-thread] [--update]

Ours and the peer are measured in the same run; only their ratio is kept. benchmarks/results.json holds the ratios by
hardware and threads; a ratio more than 15 % above the one stored is measured a second time, and fails the run when it
stays. `--update` stores this run's ratios instead of comparing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from _measure import hardware, today, versions
from _report import Row, Stored, better, load, table, write_section

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parent / "docs" / "benchmarks.md"
RESULTS = HERE / "results.json"
NAMES = ("forward", "train_step", "losses", "deform", "postprocess", "startup")  # those that need no data


def main() -> int:
    """Run, write, compare; 1 when a benchmark broke or a ratio got worse."""
    options = arguments()
    machine, stored = hardware() + (", one thread" if options.one_thread else ""), Stored(RESULTS)
    load_average = os.getloadavg()[0]
    if load_average > 0.5 and not options.one_thread:
        print(f"other programs use this machine (load {load_average:.1f}); --one-thread measures processor time")
    common = [*(["--rounds", str(options.rounds)] if options.rounds else [])]
    common += ["--one-thread"] if options.one_thread else []
    found: dict[str, list[Row]] = {}
    complaints = []
    for name in options.names or NAMES:
        rows = measure(name, common)
        if rows is None:
            complaints.append(f"{name} did not finish")
            continue
        if not options.update and stored.regressions(machine, name, rows):
            print("slower than stored: once more, to be sure", flush=True)
            rows = better(rows, measure(name, common) or rows)
            complaints += stored.regressions(machine, name, rows)
        if options.update:  # at once: what follows may be interrupted
            stored.update(machine, {name: rows}, {"date": today(), "versions": versions()})
        found[name] = rows
        command = " ".join(["python", f"benchmarks/{name}.py", *common])
        about = f"`{command}` on {machine}; {versions()}; {today()}; load {load_average:.1f} at the start."
        write_section(DOCUMENT, name, [about, "", *table(rows)])
    if not any(stored.ratios(machine, name) for name in found):
        print(f"\nno ratios are stored for {machine}: nothing was compared; --update stores these")
    for line in complaints:
        print(f"FAILED: {line}")
    return 1 if complaints else 0


def arguments() -> argparse.Namespace:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(NAMES)}; all when none is named")
    made.add_argument("--rounds", type=int, help="turns of each side, instead of what each benchmark finds enough")
    made.add_argument("--one-thread", action="store_true", help="one thread and processor time, on a shared machine")
    made.add_argument("--update", action="store_true", help="store the ratios")
    options = made.parse_args()
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        made.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    return options


def measure(name: str, common: Sequence[str]) -> list[Row] | None:
    """Rows of one benchmark, run in a process of its own; None when it broke."""
    print(f"\n== {name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        command = [sys.executable, str(HERE / f"{name}.py"), *common, "--json", str(path)]
        done = subprocess.run(command, check=False)
        return load(path) if done.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
