"""Every benchmark in turn -> tables, docs/benchmarks.md, and a failure where a ratio got worse than it was.

    python benchmarks/run.py [NAME ...] [--full] [--rounds N] [--one-thread | --all-threads] [--update]

Ours and the peer are measured in the same run; only their ratio is kept. Where other programs use the machine, wall
times of several threads mean nothing: then one thread is taken and its processor time measured.

benchmarks/results.json holds the ratios by hardware and threads; a ratio more than 15 % above the one stored is
measured a second time, and fails the run when it stays. `--update` stores this run's ratios instead of comparing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from _measure import busy, hardware, today, versions
from _report import Row, Stored, better, load, table, write_section

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parent / "docs" / "benchmarks.md"
RESULTS = HERE / "results.json"
BUSY = 0.2  # of the machine
# Name -> script and its arguments: those that are measured when none is named, and those that take long.
SCRIPTS = ("forward", "train_step", "losses", "deform", "postprocess", "evaluation", "loader", "startup")
QUICK = {name: [name] for name in SCRIPTS}
LONG = {
    "forward_large": ["forward", "--network", "swin_l", "--size", "640"],
    "forward_growth": ["forward", "--growth"],
    "losses_growth": ["losses", "--growth"],
    "exported": ["exported"],
}
ALL = QUICK | LONG


def main() -> int:
    """Run, write, compare; 1 when a benchmark broke or a ratio got worse."""
    options = arguments()
    in_use = busy()
    one_thread = options.one_thread or (in_use > BUSY and not options.all_threads)
    if in_use > BUSY:
        way = "one thread and processor times" if one_thread else "all threads as asked, though times will scatter"
        print(f"other programs use {in_use:.0%} of this machine: {way}")
    machine, stored = hardware() + (", one thread" if one_thread else ""), Stored(RESULTS)
    common = [*(["--rounds", str(options.rounds)] if options.rounds else [])]
    common += ["--one-thread"] if one_thread else []
    found: dict[str, list[Row]] = {}
    complaints = []
    for name in options.names or (ALL if options.full else QUICK):
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
        script, *more = ALL[name]
        command = " ".join(["python", f"benchmarks/{script}.py", *more, *common])
        about = f"`{command}` on {machine}; {versions()}; {today()}; {in_use:.0%} of it used by other programs."
        write_section(DOCUMENT, name, [about, "", *table(rows)])
    if not any(stored.ratios(machine, name) for name in found):
        print(f"\nno ratios are stored for {machine}: nothing was compared; --update stores these")
    for line in complaints:
        print(f"FAILED: {line}")
    return 1 if complaints else 0


def arguments() -> argparse.Namespace:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(ALL)}")
    made.add_argument("--full", action="store_true", help=f"when none is named, also {', '.join(LONG)}")
    made.add_argument("--rounds", type=int, help="turns of each side, instead of what each benchmark finds enough")
    threads = made.add_mutually_exclusive_group()
    threads.add_argument("--one-thread", action="store_true", help="one thread and processor time")
    threads.add_argument("--all-threads", action="store_true", help="all threads and wall time, on a busy machine too")
    made.add_argument("--update", action="store_true", help="store the ratios")
    options = made.parse_args()
    unknown = [name for name in options.names if name not in ALL]
    if unknown:
        made.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(ALL)}")
    return options


def measure(name: str, common: Sequence[str]) -> list[Row] | None:
    """Rows of one benchmark, run in a process of its own; None when it broke."""
    print(f"\n== {name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        script, *more = ALL[name]
        command = [sys.executable, str(HERE / f"{script}.py"), *more, *common, "--json", str(path)]
        done = subprocess.run(command, check=False)
        return load(path) if done.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
