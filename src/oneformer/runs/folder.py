"""Results folder and action -> the run's own folder and its record of what ran.

What one run writes into `<results_dir>/<action>/`:

| file | content | written by |
|---|---|---|
| `experiment.yaml` | the resolved spec, secrets masked; as comments: versions, seed, git state, start | `RunFolder` |
| `status.json` | JSON lines; the first is STARTED, the last SUCCESS or FAILURE | `StatusLog` |
| train: `model_epoch_EEE_step_SSSSS.pth`, `oneformer_model_{latest,best}.pth` | checkpoints | `train/` |
| train: `metrics.csv`, `events.out.tfevents.*` | numbers over time | `train/` |
| evaluate: `metrics.json`, `report.html` | scores | `actions/evaluate` |
| inference: `semantic/ panoptic/ overlays/`, `*.json` | predictions | `actions/inference` |
"""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from oneformer.errors import UserError
from oneformer.runs.atomic import write_text
from oneformer.runs.away import address_of, as_given, kept
from oneformer.runs.editor import schema_line
from oneformer.runs.secrets import masked

_PACKAGES = ("oneformer", "torch", "lightning", "numpy", "pillow", "faster-coco-eval")


def run_path(results_dir: str | Path, action: str, *, section_dir: str | Path = "") -> Path:
    """The folder of one action: `section_dir` when it is given, else `<results_dir or results>/<action>`.

    For an address that is the folder of this machine whose files are uploaded to it.

    Raises:
        SpecError: results cannot be kept at an address of this kind.
    """
    if address := address_of(str(results_dir), action, section_dir=str(section_dir)):
        return kept(address)
    return Path(section_dir) if str(section_dir) else Path(str(results_dir) or "results") / action


class RunFolder:
    """The folder of one run; it is created when the object is.

    Args:
        results_dir: folder that holds one folder for each action; empty means `results`.
        action: the verb.
        section_dir: the action's own `results_dir`, which wins when set.

    Raises:
        UserError: the folder cannot be created or written to.
    """

    def __init__(self, results_dir: str | Path, action: str, *, section_dir: str | Path = "") -> None:
        self.action = action
        self.path = run_path(results_dir, action, section_dir=section_dir)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".write_test"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"the results folder cannot be used: {error.strerror or error}",
                where=str(self.path),
                hint="choose another with results_dir=FOLDER",
            ) from error

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def status(self) -> Path:
        """Where the status lines go."""
        return self.path / "status.json"

    def write_experiment(self, spec: Mapping[str, Any], *, seed: int | None = None) -> Path:
        """Write `experiment.yaml`: a spec that loads again and, in its first lines, its schema and what it ran with."""
        from ruamel.yaml import YAML

        facts = run_facts(seed)
        header = schema_line(self.action) + "".join(f"# {name}: {fact}\n" for name, fact in facts.items())
        yaml = YAML()
        yaml.default_flow_style = None
        yaml.width = 120
        body = io.StringIO()
        yaml.dump(masked(as_given(dict(spec))), body)
        return write_text(self.path / "experiment.yaml", header + body.getvalue())


def run_facts(seed: int | None = None) -> dict[str, str]:
    """What a run stands on: versions, seed, git state of the current folder, start time."""
    facts = {"started": datetime.now().astimezone().isoformat(timespec="seconds")}
    facts["python"] = sys.version.split()[0]
    facts |= versions()
    if seed is not None:
        facts["seed"] = str(seed)
    git = git_state()
    if git:
        facts["git"] = git
    return facts


def versions() -> dict[str, str]:
    """Versions of the packages that results depend on, without importing them."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def git_state(folder: Path | None = None) -> str:
    """`<commit>`, with the number of changed files; empty outside of a repository."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        return done.stdout

    try:
        commit = git("rev-parse", "HEAD").strip()
        changed = len(git("status", "--porcelain", "--untracked-files=no").splitlines())
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{commit} with {changed} changed files" if changed else commit
