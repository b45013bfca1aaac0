"""What `make demo` left in results/demo -> the result table of README.md, each number with its source.

python examples/results_table.py            # print it
python examples/results_table.py --write    # put it between the marks in README.md
"""

from __future__ import annotations

import argparse
import json
import re
from datetime import datetime
from pathlib import Path

from oneformer.actions.doctor import run as doctor

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / "results/demo"
MARKS = ("<!-- results: written by examples/results_table.py -->", "<!-- end of results -->")


def rows(metrics: dict[str, dict[str, dict[str, float]]]) -> list[tuple[str, str, str]]:
    """(score, value, place in metrics.json) of the numbers worth a row."""
    places = {
        "mIoU": ("semantic", "mIoU"),
        "PQ of the nuclei": ("panoptic", "things", "PQ"),
        "PQ": ("panoptic", "all", "PQ"),
        "mask AP of the nuclei": ("instance", "AP"),
    }
    found = []
    for name, place in places.items():
        value: object = metrics
        for key in place:
            assert isinstance(value, dict)
            value = value[key]
        found.append((name, f"{value:.1f}", ".".join(place)))
    return found


def facts(experiment: str) -> dict[str, str]:
    """The first lines of experiment.yaml: when the run started and what it ran on."""
    return dict(re.findall(r"^# (\w[\w-]*): (.+)$", experiment, re.MULTILINE))


def minutes(status: str) -> int:
    """From the first to the last line of a status.json, in whole minutes."""
    lines = [json.loads(line) for line in status.splitlines()]
    starts = [i for i, line in enumerate(lines) if line["status"] == "STARTED"]
    ends = (lines[starts[-1]], lines[-1])
    first, last = (datetime.strptime(f"{x['date']} {x['time']}", "%m/%d/%Y %H:%M:%S") for x in ends)
    return round((last - first).total_seconds() / 60)


def table() -> str:
    """The table as Markdown, with the command, the machine and the day below it."""
    metrics = json.loads((RUN / "evaluate/metrics.json").read_text(encoding="utf-8"))
    about = facts((RUN / "train/experiment.yaml").read_text(encoding="utf-8"))
    took = minutes((RUN / "train/status.json").read_text(encoding="utf-8"))
    processor = doctor().facts["processor"]
    lines = ["| on the 40 validation images | percent | in `metrics.json` |", "|---|---|---|"]
    lines += [f"| {name} | {value} | `{place}` |" for name, value, place in rows(metrics)]
    machine = f"{processor['cores']} cores of an {processor['model']}, torch {about['torch']}"
    day = about["started"][:10]
    lines += ["", f"Source: `make demo` ({took} minutes of training), {machine}, {day}, commit `{about['git'][:7]}`."]
    return "\n".join(lines)


def main() -> None:
    """Print the table, or write it into README.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="replace what stands between the marks in README.md")
    if not parser.parse_args().write:
        print(table())
        return
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    readme.write_text(f"{before}{MARKS[0]}\n{table()}\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
