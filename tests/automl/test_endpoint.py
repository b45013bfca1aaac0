"""An address that is asked: patiently, within limits, and with a key that shows up nowhere."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

import pytest

from automl.language_model import Said, Server, fault, language_model, says
from oneformer import cli
from oneformer.automl import endpoint as room
from oneformer.automl.endpoint import Endpoint, Refusal, Silent, endpoint_of, pause
from oneformer.automl.prompt import greeting
from oneformer.errors import UserErrors
from oneformer.spec.llm import LlmSpec

KEY = "sk-very-secret-1234567890"


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOML_LLM_API_KEY", raising=False)


def endpoint(server: Server, **more: Any) -> Endpoint:
    return endpoint_of(LlmSpec(endpoint=server.address, model="small", **more), needed_for="llm")


def test_a_question_is_a_chat_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    with language_model(lambda _: says("yes")) as server:
        answer = endpoint(server, auth_variable="MY_KEY", temperature=0.5, max_tokens=9).ask(greeting())
        assert (answer.text, answer.tokens) == ("yes", 321) and answer.seconds > 0
        assert server.paths == ["/v1/chat/completions"]
        assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
        assert server.asked == [{"model": "small", "messages": greeting(), "temperature": 0.5, "max_tokens": 9}]
        endpoint(server, max_tokens=0).ask(greeting())
        assert "Authorization" not in server.headers[1] and set(server.asked[1]) == {"model", "messages"}


@pytest.mark.parametrize(
    ("said", "why", "wait"),
    [
        (fault(429, Retry_After="7"), "429", 7.0),
        (fault(503, Retry_After="soon"), "503", 0.0),
        (fault(500, "out of cards"), "500: out of cards", 0.0),
        (fault(529), "529", 0.0),
        (Said(b"<html>hello</html>"), "no chat completion", 0.0),
        (Said(b'{"choices": []}'), "no chat completion", 0.0),
        (Said(b'{"choices": [{"message": {"content": null}}]}'), "empty", 0.0),
        (Said(b"[" * 100_000), "no chat completion", 0.0),
        (says("  "), "empty", 0.0),
    ],
)
def test_what_may_pass_is_told_apart(said: Said, why: str, wait: float) -> None:
    with language_model(lambda _: said) as server, pytest.raises(Silent) as error:
        endpoint(server).ask(greeting())
    assert why in error.value.why and error.value.wait == wait


def test_a_date_to_wait_for_is_understood() -> None:
    later = fault(429, Retry_After=formatdate(time.time() + 50, usegmt=True))
    with language_model(lambda _: later) as server, pytest.raises(Silent) as error:
        endpoint(server).ask(greeting())
    assert 45 < error.value.wait <= 51


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (fault(401, "who are you"), r"401: who are you \(no key was sent: \$AUTOML_LLM_API_KEY is not set\)"),
        (fault(404, "no such model"), "404: no such model"),
        (fault(400), "400$"),
        (Said(b"", 302, (("Location", "http://127.0.0.1:9/elsewhere"),)), "leads on to"),
    ],
)
def test_what_will_not_pass_is_no_reason_to_ask_again(said: Said, why: str) -> None:
    with language_model(lambda _: said) as server, pytest.raises(Refusal, match=why):
        endpoint(server).ask(greeting())
    assert len(server.asked) == 1


@pytest.mark.parametrize("slow", [{"hang_s": 5.0}, {"drip_s": 0.05}])
def test_a_server_that_hangs_or_drips_is_left(slow: dict[str, float]) -> None:
    begun = time.monotonic()
    with language_model(lambda _: says("yes" * 100, **slow)) as server, pytest.raises(Silent, match="within 0.3 s"):
        endpoint(server, timeout_s=0.3).ask(greeting())
    assert time.monotonic() - begun < 3


def test_an_answer_without_an_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST", 1000)
    with language_model(lambda _: says("yes" * 1000)) as server, pytest.raises(Silent, match="longer"):
        endpoint(server).ask(greeting())


def test_an_address_where_nobody_is_may_come_back() -> None:
    with language_model(lambda _: says("yes")) as server:
        gone = endpoint(server)
    with pytest.raises(Silent, match="refused"):
        gone.ask(greeting())


def test_the_key_is_in_no_fault_and_no_description(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOML_LLM_API_KEY", KEY)
    for said in (fault(401, f"the key {KEY} is\x1b[2J wrong"), fault(500, f"for {KEY}")):
        with language_model(lambda _, said=said: said) as server:
            asked = endpoint(server)
            with pytest.raises((Refusal, Silent)) as error:
                asked.ask(greeting())
        assert KEY not in f"{error.value!r}{error.value}{asked!r}" and "********" in str(error.value)
        assert "\x1b" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "automl.llm.endpoint is empty"),
        (("automl.llm.endpoint=http://127.0.0.1:1/v1",), "automl.llm.model is empty"),
        (("automl.llm.endpoint=ftp://host/v1", "automl.llm.model=m"), "no http or https address"),
        (("automl.llm.endpoint=http://[::1/v1", "automl.llm.model=m"), "this is no address"),
        (("automl.llm.endpoint=https://me:word@host/v1", "automl.llm.model=m"), "no login and no query"),
        (("automl.llm.endpoint=https://host/v1?key=word", "automl.llm.model=m"), "no login and no query"),
        (("automl.llm.endpoint=http://host/v1", "automl.llm.model=m"), "would travel unencrypted"),
    ],
)
def test_a_wrong_address_is_told_before_anything_runs(
    words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUTOML_LLM_API_KEY", KEY)
    assert cli.main(["automl", "plan", "preset=nano", "automl.algorithm=llm", *words]) == cli.WRONG_REQUEST
    told = capsys.readouterr().err
    assert message in told and "word@" not in told and "key=word" not in told and KEY not in told


def test_a_key_that_no_header_may_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOML_LLM_API_KEY", "one\ntwo")
    with pytest.raises(UserErrors, match="holds no key") as error:
        endpoint_of(LlmSpec(endpoint="https://host/v1", model="m"), needed_for="llm")
    assert "two" not in error.value.message


def test_pauses_get_longer_and_are_what_the_address_wants() -> None:
    assert [pause(n, 0.0) for n in (1, 2, 3)] == [2.0, 4.0, 8.0]
    assert pause(1, 60.0) == 60.0 and pause(20, 0.0) == 300.0


def test_the_plan_says_how_many_trials_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("automl.llm.endpoint=http://127.0.0.1:9/v1", "automl.llm.model=small", "automl.max_trials=9")
    assert cli.main(["automl", "plan", "preset=nano", "automl.algorithm=hybrid", *words]) == cli.DONE
    assert "small at http://127.0.0.1:9/v1 for at most 4 trials" in capsys.readouterr().out
