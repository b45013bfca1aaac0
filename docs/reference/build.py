"""The spec tree and the table of commands -> the schemas and pages that are generated from them (`make docs`)."""

from __future__ import annotations

import sys
from pathlib import Path

from oneformer.actions.verbs import COMMON, ON_SPEC, ROOTS, VERBS, Argument, Verb
from oneformer.schema.inputs import ACTIONS
from oneformer.schema.json_schema import as_text, json_schema
from oneformer.schema.reference import page
from oneformer.skill.files import files as skill_files
from oneformer.skill.patterns import table as patterns_table

ROOT = Path(__file__).resolve().parents[2]
HERE = Path("docs/reference")
SKILL = Path("skills/oneformer")
PATTERNS = ("<!-- patterns: written by make docs -->", "<!-- end of patterns -->")
_BAR = "\\|"  # within a table
_HEAD = """# Commands

Written by `make docs`; `oneformer ACTION --help` prints the same. Results stand on stdout, messages on stderr. Exit
codes: 0 done, 1 the work failed, 2 the request was wrong, 130 interrupted.
"""


def files() -> dict[Path, str]:
    """Path below the root of the project -> what it holds."""
    found = {Path("src/oneformer/oneformer.schema.json"): as_text(json_schema())}
    for action in ACTIONS:
        found[Path(f"src/oneformer/assets/schemas/{action}.schema.json")] = as_text(json_schema(action))
    found[HERE / "spec.md"] = page()
    found |= {SKILL / name: text for name, text in skill_files(SKILL.name).items()}
    return found | {HERE / "cli.md": commands_page()}


def marked() -> dict[Path, str]:
    """Path of a written page -> the page with the part that is generated in it."""
    path = Path("docs/guides/troubleshooting.md")
    before, start, rest = (ROOT / path).read_text(encoding="utf-8").partition(PATTERNS[0])
    return {path: f"{before}{start}\n{patterns_table()}{PATTERNS[1]}{rest.partition(PATTERNS[1])[2]}"}


def commands_page() -> str:
    """Every command with its arguments and an example."""
    rows = "\n".join(f"| [`{name}`](#{_anchor(name)}) | {verb.help} |" for name, verb in VERBS.items())
    common = {**COMMON, "--help": "show the help"}
    parts = [_HEAD, f"| command | does |\n|---|---|\n{rows}\n", "## Options of every command\n", _table(common)]
    return "\n".join([*parts, *(_command(name, verb) for name, verb in VERBS.items())])


def _command(name: str, verb: Verb) -> str:
    told: dict[str, str] = {}
    if verb.takes_spec:
        told |= ON_SPEC | {option: text for option, (_, text) in ROOTS.items()}
        told["section.key=value ..."] = "laid over the file; the last wins"
    for argument in verb.arguments:
        told[_shown(argument)] = argument.help
    example = f"```text\n{verb.example}\n```\n"
    return f"## oneformer {name}\n\n{verb.help[:1].upper()}{verb.help[1:]}.\n\n{example}" + (
        f"\n{_table(told)}" if told else ""
    )


def _shown(argument: Argument) -> str:
    value = "|".join(argument.choices) or argument.metavar
    if argument.name.startswith("-"):
        return f"{argument.name} {value}".rstrip()
    return f"{value} ..." if argument.many else value


def _table(told: dict[str, str]) -> str:
    rows = "".join(f"| `{name.replace('|', _BAR)}` | {text} |\n" for name, text in told.items())
    return f"| argument | meaning |\n|---|---|\n{rows}"


def _anchor(name: str) -> str:
    return f"oneformer {name}".replace(" ", "-")


def main(root: Path = ROOT) -> None:
    """Write what has changed, and name it."""
    for path, text in (files() | (marked() if root == ROOT else {})).items():
        target = root / path
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    main()
