"""What may be written where files lie, and that no secret of an address is ever shown."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from oneformer.actions.plan import Plan
from oneformer.data.sources.address import Address, is_archive, is_remote, parsed
from oneformer.data.sources.transfer import in_words
from oneformer.errors import SpecError, UserError, without_secrets
from oneformer.runs.log import set_up_logging
from oneformer.runs.secrets import masked

SUM = "ab" * 32


@pytest.mark.parametrize("text", ["a/b.json", "/a/b", "a b/c#1.json", "C:/data", "file", ""])
def test_paths_stay_paths(text: str) -> None:
    assert parsed(text, key="key") == Path(text)
    assert not is_remote(text)


@pytest.mark.parametrize(
    ("text", "path"),
    [("file:///a/b%20c.json", "/a/b c.json"), ("file://localhost/a", "/a"), ("FILE:///a/b", "/a/b")],
)
def test_file_addresses_are_paths(text: str, path: str) -> None:
    assert parsed(text, key="key") == Path(path)
    assert not is_remote(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("s3://bucket/a/images.tar.gz", "images.tar.gz"),
        ("https://host/a/b.zip?sig=1", "b.zip"),
        ("http://host:8080/x%20y.tar", "x y.tar"),
        ("hf://datasets/user/set@main/data.zip", "data.zip"),
        ("gs://bucket/a/", "a"),
        ("az://container/a", "a"),
    ],
)
def test_addresses_have_a_name(text: str, name: str) -> None:
    address = parsed(text, key="key")
    assert isinstance(address, Address)
    assert address.name == name
    assert is_remote(text)


def test_a_checksum_may_stand_behind_an_address() -> None:
    assert parsed(f"s3://bucket/a#sha256={SUM.upper()}", key="key") == Address("s3://bucket/a", SUM)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ftp://host/a", "addresses of the kind ftp:// cannot be fetched"),
        ("ngc://a/b", "cannot be fetched"),
        ("file://host/a", "no file of this machine"),
        ("https://user:word@host/a", "holds a login"),
        ("s3://key:word@bucket/a", "holds a login"),
        ("https://us@er:wo@rd@host/a", "holds a login"),
        ("s3:///a", "names nothing"),
        ("https://", "names nothing"),
        ("https://[::1/a", "is no address"),
        ("s3://bucket/a#md5=12", "is no checksum"),
    ],
)
def test_other_addresses_are_refused_without_their_secrets(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as told:
        parsed(text, key="dataset.train.images")
    assert told.value.where == "dataset.train.images" and told.value.hint
    assert "word" not in told.value.message + told.value.what


@pytest.mark.parametrize(
    ("name", "yes"),
    [("a.tar.gz", True), ("A.TGZ", True), ("a.tar", True), ("a.zip", True), ("a.json", False), ("a.gz", False)],
)
def test_archives_are_known_by_their_ending(name: str, yes: bool) -> None:
    assert is_archive(name) == yes


SECRETS = {
    "https://host/a.zip?X-Amz-Signature=hush&X-Amz-Credential=hush": "https://host/a.zip?********",
    "s3://key:hush@bucket/a": "s3://********@bucket/a",
    "see https://h/a?sig=hush: it failed, or (https://h/b?sig=hush)": "see https://h/a?********: it failed, or (https://h/b?********)",
    "https://h/a?x=1#sha256=12": "https://h/a?********#sha256=12",
    "what? nothing": "what? nothing",
    "hf://datasets/u/s@main/a": "hf://datasets/u/s@main/a",
}


@pytest.mark.parametrize("text", SECRETS)
def test_logins_and_queries_are_masked_everywhere(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = SECRETS[text]
    assert without_secrets(text) == told
    assert masked({"dataset": {"images": [text]}}) == {"dataset": {"images": [told]}}
    assert "hush" not in UserError(text, where=text, hint=text).message
    plan = Plan({"images": text}, [text], [text])
    assert "hush" not in plan.table() + str(plan.to_dict())
    logger = logging.getLogger("oneformer")
    before = list(logger.handlers), logger.level, logger.propagate
    try:
        set_up_logging()
        logger.info("fetching %s", text)
    finally:
        logger.handlers, logger.level, logger.propagate = before[0], before[1], before[2]
    assert f"fetching {told}" in capsys.readouterr().err


def test_errors_of_libraries_are_told_in_one_line_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very+secret/word")
    monkeypatch.setenv("HF_TOKEN", "hf_abcdef")
    said = in_words(ValueError("\nbad very+secret/word and hf_abcdef at https://h/a?sig=1\nmore"))
    assert said == "bad ******** and ******** at https://h/a?********"
    assert in_words(TimeoutError()) == "TimeoutError"
    assert len(in_words(ValueError("x" * 1000))) < 250
