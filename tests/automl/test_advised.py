"""Whole searches with a language model: killed and gone on with, told in status and report, the key nowhere."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from automl.language_model import Said, Server, fault, language_model, says
from automl.pretended import Pretended
from oneformer import cli
from oneformer.automl import controller, endpoint
from oneformer.automl.controller import STOP
from oneformer.automl.ledger import Ledger
from train.small import small_data
from train.small import words as small_words

KEY = "sk-very-secret-1234567890"
LR, DECAY = "train.optim.lr", "train.optim.weight_decay"
WORDS = ("preset=swin_t", "train.num_epochs=9", f"automl.parameters=[{LR},{DECAY}]", "automl.llm.model=small")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "POLL_S", 0.0)
    monkeypatch.setattr(endpoint, "PAUSE_S", 0.0)
    monkeypatch.setenv("AUTOML_LLM_API_KEY", KEY)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretended]:
    found = Pretended()
    monkeypatch.setattr("oneformer.automl.executor.Local", lambda share: found)
    yield found


def guesses(body: dict[str, Any]) -> Said:
    """A rate of its own for each trial."""
    if len(body["messages"]) == 1:
        return says("ready")
    number = len(json.loads(body["messages"][1]["content"])["trials"])
    return says(json.dumps({"values": {LR: 1e-4 + number * 1e-5, DECAY: 0.01}, "why": f"guess {number}"}))


def words(server: Server, folder: Path, *more: str) -> list[str]:
    return [*WORDS, f"results_dir={folder}", f"automl.llm.endpoint={server.address}", *more]


def trials(folder: Path) -> list[tuple[Any, ...]]:
    with Ledger(folder / "automl", read_only=True) as ledger:
        return [(t.values, t.source, t.note, t.state, sorted(t.rungs)) for t in ledger.trials.values()]


def events(folder: Path, *names: str) -> list[dict[str, Any]]:
    with Ledger(folder / "automl", read_only=True) as ledger:
        return [json.loads(detail) for _, what, _, detail in ledger.events() if what in names]


def test_a_search_that_is_interrupted_asks_for_no_trial_twice(tmp_path: Path, place: Pretended) -> None:
    with language_model(guesses) as server:
        quiet = words(server, tmp_path / "quiet", "automl.algorithm=autoresearch", "automl.max_trials=7")
        assert cli.main(["automl", "run", *quiet]) == cli.DONE
        questions = len(server.asked)
        loud = [word.replace("quiet", "loud") for word in quiet]
        codes = []
        while not codes or (codes[-1] == cli.INTERRUPTED and len(codes) < 30):
            place.stop_after, place.started, place.now = 3, [], 0
            codes.append(cli.main(["automl", "run", *loud]))
        assert codes[-1] == cli.DONE and len(codes) >= 4
        assert trials(tmp_path / "loud") == trials(tmp_path / "quiet")
        assert len(server.asked) == 2 * questions, "an accepted proposal is in the record"
        assert questions == 1 + sum(source == "llm" for _, source, *_ in trials(tmp_path / "quiet"))
        assert server.asked[0]["messages"][0]["content"] == "Answer with the one word: ready"


def test_a_finished_search_needs_no_address(tmp_path: Path, place: Pretended) -> None:
    with language_model(guesses) as server:
        given = words(server, tmp_path, "automl.algorithm=llm", "automl.max_trials=3")
        assert cli.main(["automl", "run", *given]) == cli.DONE
    assert cli.main(["automl", "run", *given]) == cli.DONE
    elsewhere = [w for w in given if "automl.llm" not in w]
    for verb in ("status", "report"):
        assert cli.main(["automl", verb, *elsewhere]) == cli.DONE


def test_an_address_that_is_silent_ends_the_search_before_it_trains(
    tmp_path: Path, place: Pretended, capsys: pytest.CaptureFixture[str]
) -> None:
    with language_model(guesses) as server:
        given = words(server, tmp_path, "automl.algorithm=hybrid", "automl.llm.retries=1")
    assert cli.main(["automl", "run", *given]) == cli.FAILED
    told = capsys.readouterr().err
    assert place.started == [] and "automl.llm.endpoint: the language model proposes nothing" in told
    assert "(2 tries)" in told and "automl.llm.fallback=tpe" in told
    assert json.loads((tmp_path / "automl" / "status.json").read_text().splitlines()[-1])["status"] == "FAILURE"


def test_one_that_goes_silent_on_the_way_ends_it_and_the_same_command_goes_on(
    tmp_path: Path, place: Pretended, capsys: pytest.CaptureFixture[str]
) -> None:
    broken: list[bool] = []

    def script(body: dict[str, Any]) -> Said:
        asked = json.loads(body["messages"][1]["content"])["trials"] if len(body["messages"]) > 1 else []
        return fault(500, f"no cards for {KEY}") if len(asked) == 3 and not broken else guesses(body)

    with language_model(script) as server:
        given = words(server, tmp_path, "automl.algorithm=llm", "automl.max_trials=5", "automl.llm.retries=2")
        assert cli.main(["automl", "run", *given]) == cli.FAILED
        assert [source for _, source, *_ in trials(tmp_path)] == ["own", "llm", "llm"]
        assert "500: no cards for ******** (3 tries)" in capsys.readouterr().err
        assert [event["tries"] for event in events(tmp_path, "not advised")] == [1, 2, 3]
        broken.append(True)
        assert cli.main(["automl", "run", *given]) == cli.DONE
    assert [source for _, source, *_ in trials(tmp_path)] == ["own", *["llm"] * 4]


def test_who_takes_its_place_is_told_in_status_and_report(
    tmp_path: Path, place: Pretended, capsys: pytest.CaptureFixture[str]
) -> None:
    def script(body: dict[str, Any]) -> Said:
        count = len(json.loads(body["messages"][1]["content"])["trials"]) if len(body["messages"]) > 1 else 0
        return says('{"values": {}, "why": "<script>alert(1)</script>"}') if count > 2 else guesses(body)

    with language_model(script) as server:
        more = ("automl.algorithm=llm", "automl.max_trials=6", "automl.llm.retries=0", "automl.llm.fallback=qmc")
        given = words(server, tmp_path, *more)
        assert cli.main(["automl", "run", *given]) == cli.DONE
        said = capsys.readouterr().out
        assert "proposed by: own 1, llm 2, qmc instead of llm 3" in said
        assert cli.main(["automl", "status", *given, "--json"]) == cli.DONE
        told = json.loads(capsys.readouterr().out)["progress"]
        assert told["proposed_by"] == {"own": 1, "llm": 2, "qmc instead of llm": 3}
        assert cli.main(["automl", "report", *given]) == cli.DONE
    page = (tmp_path / "automl" / "report.html").read_text(encoding="utf-8")
    facts = dict(re.findall(r"<dt>(.+?)</dt><dd>(.+?)</dd>", page))
    assert facts["proposed by"] == "own 1, llm 2, qmc instead of llm 3" and facts["proposed by a model"] == "2 of 6"
    assert "What the language model said" in page and "guess 1" in page and "<script>alert" not in page
    assert "Asked 11 times with 3531 tokens; 9 answers could not be taken, and 3 times there was none" in page


def test_reasons_and_ranges_are_told(tmp_path: Path, place: Pretended) -> None:
    def script(body: dict[str, Any]) -> Said:
        if len(body["messages"]) == 1:
            return says("ready")
        told = {"values": {LR: 1.5e-4, DECAY: len(server.asked) / 1000}, "why": "the rates below fail\x07"}
        return says(json.dumps(told | {"ranges": {LR: [1e-4, 2e-4]}}))

    with language_model(script) as server:
        given = words(server, tmp_path, "automl.algorithm=autoresearch", "automl.max_trials=6")
        assert cli.main(["automl", "run", *given]) == cli.DONE
        assert cli.main(["automl", "report", *given]) == cli.DONE
    notes = events(tmp_path, "proposed")
    assert notes[0] == {"why": "the rates below fail", "model": "small", "ranges": {LR: [1e-4, 2e-4]}}
    assert all(1e-4 <= values[LR] <= 2e-4 for values, *_ in trials(tmp_path)[3:])
    assert f"{LR} 0.0001 to 0.0002" in (tmp_path / "automl" / "report.html").read_text(encoding="utf-8")


def test_a_stop_ends_the_waiting(tmp_path: Path, place: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "PAUSE_S", 60.0)

    def script(body: dict[str, Any]) -> Said:
        if len(body["messages"]) == 1:
            return says("ready")
        (tmp_path / "automl" / STOP).touch()
        return fault(503)

    with language_model(script) as server:
        given = words(server, tmp_path, "automl.algorithm=llm", "automl.max_trials=3")
        assert cli.main(["automl", "run", *given]) == cli.DONE
    assert [source for _, source, *_ in trials(tmp_path)] == ["own"]


def test_the_key_is_in_no_file_and_in_no_message(
    tmp_path: Path, place: Pretended, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Though the address knows it, and repeats it wherever it can."""

    def script(body: dict[str, Any]) -> Said:
        if len(body["messages"]) == 1:
            return says("ready")
        count = len(server.asked)
        if count == 2:
            return fault(500, f"bad {KEY}")
        if count == 3:
            return says(json.dumps({"values": {LR: KEY, DECAY: 0.01, KEY: 1}, "why": KEY}))
        return says(json.dumps({"values": {LR: 1e-4 + count * 1e-6, DECAY: 0.01}, "why": f"because {KEY}"}))

    caplog.set_level(0)
    with language_model(script) as server:
        given = words(server, tmp_path, "automl.algorithm=llm", "automl.max_trials=4")
        assert cli.main(["automl", "run", *given]) == cli.DONE
        assert cli.main(["automl", "report", *given]) == cli.DONE
        assert cli.main(["automl", "status", *given, "--json"]) == cli.DONE
        assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
        assert all(KEY not in json.dumps(body["messages"][:2]) for body in server.asked)
    out = capfd.readouterr()
    assert KEY not in out.out + out.err + caplog.text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5 and not [path for path in files if KEY.encode() in path.read_bytes()]
    assert events(tmp_path, "proposed")[0]["why"] == "because ********"


def test_another_address_may_go_on_with_a_search(tmp_path: Path, place: Pretended) -> None:
    with language_model(guesses) as server:
        given = words(server, tmp_path, "automl.algorithm=llm", "automl.max_trials=3")
        assert cli.main(["automl", "run", *given]) == cli.DONE
    with language_model(guesses) as other:
        more = [*words(other, tmp_path, "automl.algorithm=llm", "automl.max_trials=4"), "automl.llm.model=large"]
        assert cli.main(["automl", "run", *more]) == cli.DONE
    assert [note.get("model") for _, _, note, *_ in trials(tmp_path)] == [None, "small", "small", "large"]


@pytest.mark.slow
def test_a_search_that_is_killed_again_and_again_asks_for_no_accepted_trial_twice(
    tmp_path: Path, place: Pretended
) -> None:
    """SIGKILL at any moment, also between an answer and its record: then the same question is asked once more."""

    def script(body: dict[str, Any]) -> Said:
        time.sleep(0.005)  # so that some kills fall into it
        return guesses(body)

    with language_model(script) as server:
        more = ("automl.algorithm=hybrid", "automl.max_trials=8")
        assert cli.main(["automl", "run", *words(server, tmp_path / "quiet", *more)]) == cli.DONE
        server.asked.clear()
        loud = words(server, tmp_path / "loud", *more)
        dice, kills, code = random.Random(3), 0, -1
        while code != cli.DONE and kills < 200:
            child = os.fork()
            if child == 0:
                os._exit(cli.main(["automl", "run", *loud]))
            time.sleep(dice.uniform(0.02, 0.2 + 0.1 * kills))  # a busy machine gets nowhere in less
            os.kill(child, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            kills += code != cli.DONE
    assert code == cli.DONE and kills >= 3
    assert trials(tmp_path / "loud") == trials(tmp_path / "quiet")
    known = [
        len(json.loads(body["messages"][1]["content"])["trials"]) for body in server.asked if len(body["messages"]) > 1
    ]
    assert known == sorted(known), "what is in the record is not asked for again"


@pytest.mark.slow
def test_real_trainings_with_a_language_model(tmp_path: Path) -> None:
    """In processes of their own, from the command line to the report."""
    data = small_data(tmp_path / "data")
    sizes = ("train.num_epochs=3", "train.iters_per_epoch=2", "automl.max_trials=4", "automl.algorithm=autoresearch")

    def script(body: dict[str, Any]) -> Said:
        if len(body["messages"]) == 1:
            return says("ready")
        told = json.loads(body["messages"][1]["content"])
        best = max((t for t in told["trials"] if "score" in t), key=lambda t: t["score"])
        values = {**best["values"], LR: best["values"][LR] / 2}
        return says(
            json.dumps({"values": values, "ranges": {LR: [values[LR] / 2, values[LR] * 2]}, "why": "half of it"})
        )

    with language_model(script) as server:
        address = (f"automl.llm.endpoint={server.address}", "automl.llm.model=small", f"automl.parameters=[{LR}]")
        given = small_words(data, tmp_path, *sizes, *address)
        run = [sys.executable, "-m", "oneformer", "automl"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        for verb in ("run", "verify", "report"):
            assert subprocess.run([*run, verb, *given], env=environment, check=False).returncode == cli.DONE
    found = trials(tmp_path)
    assert [source for _, source, *_ in found] == ["own", "qmc", "llm", "tpe"]
    assert found[2][0][LR] / 2 <= found[3][0][LR] <= found[2][0][LR] * 2 and "done" in {state for *_, state, _ in found}
