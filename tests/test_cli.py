"""The command line: exit codes, what goes to stdout and stderr, and words that are wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oneformer import __version__
from oneformer.cli import LATER, VERBS, main
from oneformer.errors import DataError, WorkError
from oneformer.spec import ExperimentSpec
from oneformer.spec.load import load

Seen = dict[str, Any]


class Outcome:
    """What an action returns."""

    def to_dict(self) -> dict[str, Any]:
        return {"PQ": 0.5, "bad": float("nan")}

    def table(self) -> str:
        return "PQ 50.0"


@pytest.fixture
def action(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Seen]:
    """Puts an action of our own in the place of `train`; gives what it was called with."""

    def install(result: Any = None, raises: BaseException | None = None) -> Seen:
        seen: Seen = {}

        def run(spec: ExperimentSpec, *, dry_run: bool = False) -> Any:
            seen.update(spec=spec, dry_run=dry_run)
            if raises:
                raise raises
            return Outcome() if result is None else result

        fake = types.ModuleType("oneformer.actions.train")
        fake.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "oneformer.actions.train", fake)
        return seen

    return install


@pytest.fixture
def spec_file(tmp_path: Path) -> str:
    file = tmp_path / "spec.yaml"
    file.write_text("train: {num_epochs: 3}\nmodel_name: mine\nencryption_key: hush\n", encoding="utf-8")
    return str(file)


def test_help_lists_the_verbs_of_this_version_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert [verb for verb in VERBS if f"\n    {verb}" not in text] == []
    assert [verb for verb in LATER if f"\n    {verb}" in text] == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*verb.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert f"example:\n  oneformer {verb}" in text


@pytest.mark.parametrize("verb", [v for v in VERBS if VERBS[v].takes_spec])
def test_the_overrides_of_every_example_are_real_keys(verb: str) -> None:
    words = VERBS[verb].example.removeprefix(f"oneformer {verb} ").split()
    assert words[:2] == ["-e", "spec.yaml"]
    assert load(None, words[2:], action=verb).warnings == []


def test_nothing_said_shows_the_help_and_is_a_wrong_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: oneformer" in capsys.readouterr().out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"oneformer {__version__}"


@pytest.mark.parametrize("verb", LATER)
def test_a_verb_of_a_later_version_says_so(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "-e", "spec.yaml"]) == 2
    assert f"this version has no command {verb}" in capsys.readouterr().err


@pytest.mark.parametrize(("word", "near"), [("trian", "train"), ("eval", "evaluate"), ("infer", "inference")])
def test_an_unknown_verb_names_the_nearest(word: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 2
    assert f"did you mean {near}?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["train", "--jsn", "a=1"], ["doctor", "x"], ["train"], ["completion", "tcsh"]])
def test_wrong_words_are_wrong_requests(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["help"], "see oneformer --help"),
        (["--nope"], "there is no option --nope"),
        (["spec.yaml"], "oneformer train -e spec.yaml"),
        (["-e", "spec.yaml", "train"], "oneformer train -e spec.yaml"),
        (["train", "spec.yaml"], "a spec file is given with -e spec.yaml"),
        (["train", "-e", "nowhere/spec.yaml"], "nowhere/spec.yaml: there is no such file"),
    ],
)
def test_what_a_newcomer_may_type_is_answered_with_what_to_type(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_options_of_an_action_may_stand_before_its_name(
    action: Any, spec_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    action()
    assert main(["--json", "train", "-e", spec_file]) == 0
    assert json.loads(capsys.readouterr().out) == {"PQ": 0.5, "bad": None}


def test_a_result_is_a_table_on_stdout(action: Any, spec_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    seen = action()
    assert main(["train", "-e", spec_file, "train.optim.lr=2e-4"]) == 0
    out, err = capsys.readouterr()
    assert out == "PQ 50.0\n"
    assert (seen["spec"].train.num_epochs, seen["spec"].train.optim.lr, seen["dry_run"]) == (3, 2e-4, False)
    assert err == "warning: model_name has no effect: it is only kept in experiment.yaml\n"


def test_a_result_is_strict_json_on_demand(action: Any, spec_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    action()
    assert main(["train", "--json", "-e", spec_file]) == 0
    assert json.loads(capsys.readouterr().out) == {"PQ": 0.5, "bad": None}


@pytest.mark.parametrize("where", [0, 2, 3])
def test_overrides_may_stand_before_between_and_behind_the_options(action: Any, spec_file: str, where: int) -> None:
    seen = action()
    words = ["-e", spec_file, "--json"]
    words.insert(where, "train.num_epochs=9")
    assert main(["train", "train.seed=4", *words, "train.verbose=true"]) == 0
    assert (seen["spec"].train.num_epochs, seen["spec"].train.seed, seen["spec"].train.verbose) == (9, 4, True)


def test_overrides_alone_are_enough(action: Any) -> None:
    seen = action()
    assert main(["train", "preset=nano"]) == 0
    assert seen["spec"].model.one_former.hidden_dim == 96


def test_a_dry_run_prints_the_resolved_spec_without_secrets_and_the_plan(
    action: Any, spec_file: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    seen = action()
    assert main(["train", "-e", spec_file, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert seen["dry_run"] is True
    assert "hush" not in out
    printed, _, plan = out.rpartition("PQ 50.0")
    assert plan.strip() == ""
    again = tmp_path / "again.yaml"
    again.write_text(printed, encoding="utf-8")
    assert load(again, action="train").spec.train.num_epochs == 3
    assert main(["train", "-e", spec_file, "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["spec"]["train"]["num_epochs"], told["plan"]["PQ"]) == (3, 0.5)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            DataError("the mask is missing", where="a.png", hint="look"),
            2,
            "error: a.png: the mask is missing\n  hint: look",
        ),
        (WorkError("the loss is NaN"), 1, "error: the loss is NaN"),
        (RuntimeError("out of memory"), 1, "error: RuntimeError: out of memory"),
        (MemoryError(), 1, "error: MemoryError"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt("terminated"), 130, "terminated"),
    ],
    ids=repr,
)
def test_each_kind_of_end_has_its_exit_code_and_one_message(
    action: Any, spec_file: str, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str
) -> None:
    action(raises=error)
    assert main(["train", "-e", spec_file]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err


def test_a_traceback_is_shown_on_demand(
    action: Any, spec_file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    action(raises=RuntimeError("deep inside"))
    assert main(["train", "-e", spec_file, "--traceback"]) == 1
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("ONEFORMER_TRACEBACK", "1")
    assert main(["train", "-e", spec_file]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_wrong_spec_is_exit_code_two_and_nothing_runs(
    action: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = action()
    file = tmp_path / "spec.yaml"
    file.write_text("train: {num_epochs: 0, lr: 1}\n", encoding="utf-8")
    assert main(["train", "-e", str(file)]) == 2
    assert seen == {}
    err = capsys.readouterr().err
    assert "[1/2]" in err
    assert "[2/2]" in err
    assert f"{file}:1:" in err


def test_default_specs_prints_a_spec_that_loads_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["default_specs"]) == 0
    file = tmp_path / "all.yaml"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    loaded = load(file, action="train")
    assert (loaded.spec, loaded.warnings) == (ExperimentSpec(), [])


def test_default_specs_writes_the_file_that_tao_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["default_specs", f"results_dir={tmp_path / 'new'}"]) == 0
    assert load(tmp_path / "new" / "experiment.yaml", action="train").spec == ExperimentSpec()
    assert str(tmp_path / "new" / "experiment.yaml") in capsys.readouterr().out


def test_default_specs_of_one_action_holds_its_section_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["default_specs", "evaluate"]) == 0
    out = capsys.readouterr().out
    assert "\nevaluate:" in out
    assert "\ntrain:" not in out


def test_default_specs_refuses_other_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["default_specs", "trian"]) == 2
    assert "neither an action nor results_dir" in capsys.readouterr().err


def test_explain_answers_as_text_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "train.optim.lr"]) == 0
    assert "learning rate" in capsys.readouterr().out
    assert main(["explain", "train.optim.lr", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["default"] == 1e-4
    assert main(["explain", "optim.lr"]) == 2
    assert "train.optim.lr" in capsys.readouterr().err


def test_doctor_tells_versions_devices_and_optional_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["versions"]["oneformer"] == __version__
    assert facts["processor"]["cores"] >= 1
    assert "cuda" in facts["devices"]
    assert "exported graphs: grid" in facts["network"]["deformable attention"]
    assert main(["doctor"]) == 0
    assert "optional packages" in capsys.readouterr().out


def test_a_reader_that_leaves_early_is_no_fault() -> None:
    code = f"{sys.executable} -m oneformer default_specs | head -1"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("# yaml-language-server")
    assert done.stderr == ""


def test_a_termination_signal_ends_a_run_like_an_interrupt(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, time, types\n"
        "from oneformer.cli import main\n"
        "from oneformer.runs import StatusLog\n"
        "def run(spec, *, dry_run):\n"
        f"    with StatusLog({str(tmp_path / 'status.json')!r}, 'train'):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(30)\n"
        "fake = types.ModuleType('fake'); fake.run = run\n"
        "sys.modules['oneformer.actions.train'] = fake\n"
        "sys.exit(main(['train', 'train.num_epochs=1']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 130
    assert "terminated" in done.stderr
    last = json.loads((tmp_path / "status.json").read_text().splitlines()[-1])
    assert (last["status"], last["message"]) == ("FAILURE", "OneFormer train failed: terminated")


def test_main_leaves_the_handler_of_the_signal_as_it_was() -> None:
    before = signal.getsignal(signal.SIGTERM)
    main(["--version"])
    assert signal.getsignal(signal.SIGTERM) is before


def test_no_colour_and_no_escape_codes_outside_of_a_terminal() -> None:
    env = dict(os.environ, FORCE_COLOR="")
    done = subprocess.run([sys.executable, "-m", "oneformer", "trian"], capture_output=True, env=env, check=False)
    assert b"\x1b" not in done.stdout + done.stderr


LARGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ASKED_FOR = """
from oneformer.cli import main
main(["--version"])
import torch
held = torch.ones(16 * 2**20)  # 64 MiB
inside = False
for line in open("/proc/self/smaps"):
    first, _, rest = line.partition(" ")
    if not first.endswith(":"):
        low, high = (int(end, 16) for end in first.split("-"))
        inside = low <= held.data_ptr() < high
    elif inside and first == "VmFlags:":
        print("large" if "hg" in rest.split() else "small")
"""


@pytest.mark.skipif(not LARGE.exists(), reason="this system knows no large pages")
@pytest.mark.parametrize(("wanted", "pages"), [(None, "large"), ("0", "small")])
def test_tensors_ask_for_large_pages_unless_the_user_says_otherwise(wanted: str | None, pages: str) -> None:
    env = {k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE"}
    env |= {"THP_MEM_ALLOC_ENABLE": wanted} if wanted else {}
    done = subprocess.run([sys.executable, "-c", ASKED_FOR], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == pages
