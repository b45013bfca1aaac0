"""The completion scripts: bash's by running it, zsh's and fish's where these shells are installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from oneformer.actions.completion import SHELLS, keys, options, run
from oneformer.actions.verbs import VERBS
from oneformer.cli import main
from oneformer.spec.tree import leaves


def shell(name: str) -> str:
    found = shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


def bash(tmp_path: Path, *line: str) -> list[str]:
    """What bash offers for the last word of a line."""
    script = tmp_path / "completion"
    script.write_text(run("bash"), encoding="utf-8")
    words = " ".join(f"'{word}'" for word in line)
    code = f"source {script}; COMP_WORDS=({words}); COMP_CWORD={len(line) - 1}; _oneformer; printf '%s\\n' ${{COMPREPLY[@]}}"
    done = subprocess.run([shell("bash"), "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr == ""
    return sorted(set(done.stdout.split()))


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (["oneformer", "ev"], ["evaluate"]),
        (["oneformer", "--ver"], ["--version"]),
        (["oneformer", "checkpoint", "in"], ["inspect"]),
        (["oneformer", "train", "--dry"], ["--dry-run"]),
        (["oneformer", "train", "-e", "spec.yaml", "train.optim.l"], ["train.optim.lr=", "train.optim.lr_scheduler="]),
        (["oneformer", "train", "train.opt"], ["train.optim."]),
        (["oneformer", "train", "num_ep"], ["num_epochs="]),
        (["oneformer", "explain", "train.optim.lr_"], ["train.optim.lr_scheduler"]),
        (["oneformer", "explain", "dataset.augm"], ["dataset.augmentation", "dataset.augmentation."]),
        (["oneformer", "completion", "f"], ["fish"]),
        (["oneformer", "default_specs", "--min"], ["--minimal"]),
        (["oneformer", "default_specs", "gen"], ["gen_trt_engine", "gen_trt_engine."]),
        (["oneformer", "default_specs", "results_d"], ["results_dir="]),
        (["oneformer", "train", "pho"], ["photos"]),
        (["oneformer", "nothing", "x"], []),
    ],
)
def test_bash_offers_commands_options_keys_and_files(tmp_path: Path, line: list[str], offered: list[str]) -> None:
    (tmp_path / "photos").mkdir()
    assert bash(tmp_path, *line) == offered


def test_bash_offers_every_command(tmp_path: Path) -> None:
    assert {verb.split()[0] for verb in VERBS} <= set(bash(tmp_path, "oneformer", ""))


@pytest.mark.parametrize("name", ["zsh", "fish"])
def test_the_other_scripts_have_the_right_syntax(tmp_path: Path, name: str) -> None:
    file = tmp_path / "script"
    file.write_text(run(name), encoding="utf-8")
    done = subprocess.run([shell(name), "-n", str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("oneformer ev", {"evaluate"}),
        ("oneformer dataset con", {"convert"}),
        ("oneformer train --dry", {"--dry-run"}),
        ("oneformer train train.optim.lr_", {"train.optim.lr_scheduler="}),
        ("oneformer explain train.optim.lr_", {"train.optim.lr_scheduler"}),
        ("oneformer completion z", {"zsh"}),
    ],
)
def test_fish_offers_commands_options_and_keys(tmp_path: Path, line: str, offered: set[str]) -> None:
    file = tmp_path / "script.fish"
    file.write_text(run("fish"), encoding="utf-8")
    code = f"source {file}; complete -C '{line}'"
    done = subprocess.run(
        [shell("fish"), "--no-config", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert {row.split("\t")[0] for row in done.stdout.splitlines()} == offered


ZSH = """
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1=''; autoload -U compinit; compinit -u -d {folder}/dump; source {script}"
zpty -w shell "cd {folder}; bindkey '^I' complete-word; setopt no_beep; print READY"
zpty -r shell seen '*READY*READY*'
zpty -w -n shell $'{line}\\t'
sleep 1
zpty -w shell $'\\C-a# '
zpty -r shell seen '*# *' && print -r -- "$seen"
"""


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("oneformer eva", "oneformer evaluate"),
        ("oneformer checkpoint ins", "oneformer checkpoint inspect"),
        ("oneformer train --dr", "oneformer train --dry-run"),
        ("oneformer train train.optim.lr_", "oneformer train train.optim.lr_scheduler="),
    ],
)
def test_zsh_completes_what_is_unambiguous(tmp_path: Path, line: str, completed: str) -> None:
    script = tmp_path / "script.zsh"
    script.write_text(run("zsh"), encoding="utf-8")
    code = ZSH.format(folder=tmp_path, script=script, line=line)
    done = subprocess.run([shell("zsh"), "-f", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert completed in done.stdout, done


@pytest.mark.parametrize("name", SHELLS)
def test_every_command_option_and_key_is_in_each_script(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", name]) == 0
    script = capsys.readouterr().out
    for verb, row in VERBS.items():
        assert all(word in script for word in verb.split())
        for option in options(row):
            assert (
                option if name != "fish" else f" {'-l ' if option[:2] == '--' else '-s '}{option.lstrip('-')} "
            ) in script
    assert set(leaves()) < set(keys())
    assert all(key in script for key in keys())
