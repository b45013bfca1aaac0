"""Every benchmark in turn: ours and Hugging Face transformers with the same inputs in one run -> their figures.

python benchmarks/run.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Run the files beside this one, each in a process of its own; the number of those that failed."""
    failed = 0
    for path in sorted(HERE.glob("*.py")):
        if path.name != Path(__file__).name and not path.name.startswith("_"):
            print(f"\n== {path.stem}", flush=True)
            failed += subprocess.run([sys.executable, str(path)], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
