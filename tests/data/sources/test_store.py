"""Servers of Google's, Azure's and Hugging Face's storage, behind lines that break: the same bytes, and no secret told."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.sources.conftest import MakeFetcher, content
from data.sources.stores import Shop, azure, google, hub
from oneformer import cli
from oneformer.data.sources.store import kept, promised
from oneformer.errors import DataError, WorkError
from tiny import TinyDataset

FAULTS = ["500", "reset", "cut", "503", "short"]


@pytest.fixture(scope="module", params=[google, azure, hub], ids=["gs", "az", "hf"])
def opened(request: pytest.FixtureRequest, packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A store with a packed data set in `root/`."""
    with request.param(tmp_path_factory.mktemp("shop")) as made:
        for path in packed.iterdir():
            made.put(f"root/{path.name}", path.read_bytes())
        yield made


@pytest.fixture
def shop(opened: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The same, with the login in the environment and nothing asked yet."""
    for name in [n for n in os.environ if n.startswith(("AZURE_", "GOOGLE_", "GCSFS_", "FSSPEC_", "HF_"))]:
        monkeypatch.delenv(name)
    opened.login(monkeypatch)
    opened.line.faults.clear()
    opened.line.asked.clear()
    return opened


def objects(shop: Shop) -> list[str]:
    """The objects whose bytes were asked for."""
    return [path for method, path, _ in shop.line.asked if shop.line.hits(method, path)]


def test_a_check_of_data_that_comes_over_a_line_that_breaks(
    shop: Shop, packed: Path, small: TinyDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    shop.line.faults = list(FAULTS)
    cache = tmp_path / "cache"
    words = [f"results_dir={tmp_path}/results", f"dataset.sources.cache_dir={cache}"]
    root = f"{shop.root}/root"
    code = cli.main(["dataset", "check", "--train-dataset", root, *words])
    out, err = capsys.readouterr()
    assert code == cli.DONE, err
    assert shop.line.faults == [], "every fault was met"
    unpacked = {name: body for folder in (cache / "unpacked").iterdir() for name, body in content(folder).items()}
    expected = {f"set/photos/{n}": b for n, b in content(small.images).items()}
    assert unpacked == expected | {f"masks/{n}": b for n, b in content(small.panoptic).items()}
    files = {Path(n).name: b for n, b in content(cache / "files").items()}
    assert files == {n: (packed / n).read_bytes() for n in ("annotations.json", "label_map.json")}
    assert not list((cache / "parts").iterdir())
    # The next run asks for no object.
    before = len(objects(shop))
    assert cli.main(["dataset", "check", "--train-dataset", root, *words]) == cli.DONE
    assert len(objects(shop)) == before
    told = out + err + "".join(capsys.readouterr())
    assert "Traceback" not in told
    written = {str(p): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert any(name.startswith(str(tmp_path / "results/dataset")) for name in written)
    for secret in shop.secrets:
        assert not [name for name, body in written.items() if secret.encode() in body or secret in name]
        assert secret not in told
        assert not [r for r in caplog.records if r.name.startswith("oneformer") and secret in r.getMessage()]


def test_a_folder_of_single_objects_is_fetched_and_gone_on_with(
    shop: Shop, fetcher: MakeFetcher, tmp_path: Path
) -> None:
    files = {f"deep/{i}.png": bytes([i]) * 2000 for i in range(12)}
    for name, body in files.items():
        shop.put(f"single/{name}", body)
    shop.line.faults = ["short"] * 40
    with pytest.raises(WorkError, match="cannot be fetched"):
        fetcher(retries=0).local(f"{shop.root}/single/", key="key")
    assert not list((tmp_path / "cache" / "folders").iterdir())
    shop.line.faults = ["500", "cut", "reset"]
    folder = fetcher().local(f"{shop.root}/single/", key="key")
    assert content(Path(folder)) == files
    shop.line.asked.clear()
    assert fetcher().local(f"{shop.root}/single", key="key") == folder
    assert objects(shop) == []
    shop.put("single/deep/0.png", b"another")
    changed = fetcher().local(f"{shop.root}/single", key="key")
    assert content(Path(changed)) == files | {"deep/0.png": b"another"}


def test_a_transfer_that_was_cut_short_goes_on_where_it_ended(shop: Shop, fetcher: MakeFetcher, tmp_path: Path) -> None:
    from oneformer.data.sources.address import Address
    from oneformer.data.sources.cache import Cache, digest_of
    from oneformer.data.sources.store import Store, version_of

    body = bytes(range(256)) * 40
    shop.put("long.bin", body)
    address = Address(f"{shop.root}/long.bin")
    version = version_of(Store.of(address).ask("info", address.path))
    part = Cache(tmp_path / "cache").part(f"{digest_of(address.url)}.fetch")
    for begun, asked in ((body[:4000], 1), (b"x" * 4000, 2)):  # the second is of no such file: the checksum tells
        part.write_bytes(begun)
        part.with_name(part.name + ".of").write_text(version)
        shop.line.asked.clear()
        found = Path(fetcher().local(address.url, key="key"))
        assert found.read_bytes() == body
        assert len(objects(shop)) == asked
        assert next(span for method, path, span in shop.line.asked if shop.line.hits(method, path)) in (
            "bytes=4000-10239",
            "",
        )
        found.unlink()


def test_what_is_not_there_and_what_may_not_be_read(
    shop: Shop, fetcher: MakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="there is nothing at this address") as told:
        fetcher().local(f"{shop.root}/none.tar.gz", key="key")
    assert told.value.where == f"{shop.root}/none.tar.gz" and told.value.exit_code == 2
    before = len(objects(shop))
    shop.line.faults = ["403"]
    with pytest.raises(DataError, match="access is denied") as told:
        fetcher().local(f"{shop.root}/root/label_map.json", key="key")
    assert "environment" in told.value.hint and not any(secret in told.value.message for secret in shop.secrets)
    assert len(objects(shop)) == before + 1, "what was refused is not asked again"
    for name in shop.variables:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_TOKEN_PATH", "/nonexistent")
    with pytest.raises(DataError) as told:
        fetcher().local(f"{shop.root}/root/label_map.json", key="key")
    assert "environment" in told.value.hint and "\n" not in told.value.what


def test_a_server_that_never_delivers_is_given_up(shop: Shop, fetcher: MakeFetcher) -> None:
    shop.line.faults = ["short"] * 200
    with pytest.raises(WorkError, match=r"\(3 tries\)") as told:
        fetcher(retries=2).local(f"{shop.root}/root/images.tar.gz", key="key")
    assert told.value.exit_code == 1 and "\n" not in told.value.what


def test_a_key_file_that_is_not_there_is_told(fetcher: MakeFetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gcsfs")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    with pytest.raises(DataError, match="names /nowhere/key.json, which is no file"):
        fetcher().local("gs://streets/a.zip", key="key")


@pytest.mark.parametrize("facts", [
    {"md5Hash": "XrY7u+Ae7tCTyyK7j1rNww=="},
    {"content_settings": {"content_md5": bytearray.fromhex("5eb63bbbe01eeed093cb22bb8f5acdc3")}},
    {"lfs": {"sha256": "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"}, "blob_id": "0"},
    {"blob_id": "95d09f2b10159347eece71399a7e2e907ea3df4f"},
])  # fmt: skip
def test_each_store_has_a_checksum_of_its_own(facts: dict[str, object], tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"hello world")
    assert kept(file, promised(facts))
    file.write_bytes(b"hello World")
    assert not kept(file, promised(facts))
    assert promised({}) == "" and kept(file, "")
