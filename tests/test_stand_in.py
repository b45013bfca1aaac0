"""Stand-ins for packages leave no trace in the process, whatever is imported while they stand in."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

from stand_in import stand_in

TESTS = Path(__file__).parent


def test_modules_that_were_imported_meanwhile_stay() -> None:
    """Or torch would import its compiler twice, and could trace nothing any more."""
    sys.modules.pop("colorsys", None)
    fake = ModuleType("wandb")
    with stand_in("wandb", fake):
        import colorsys

        import wandb

        assert wandb is fake
    assert sys.modules.get("colorsys") is colorsys and sys.modules.get("wandb") is not fake


def test_no_test_puts_the_whole_table_of_modules_back() -> None:
    wrong = [
        str(path.relative_to(TESTS))
        for path in TESTS.rglob("*.py")
        if re.search(r"""patch\.dict\(\s*["']?sys\.modules""", path.read_text(encoding="utf-8"))
        and path.name not in ("stand_in.py", Path(__file__).name)
    ]
    assert not wrong, "use stand_in"
