"""A real S3 server on this machine, behind a line that breaks: the same bytes, once, and no secret in any file."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data.sources.conftest import MakeFetcher, content
from data.sources.servers import Server, in_front_of
from oneformer import cli
from oneformer.data.sources import fetched
from oneformer.errors import DataError, WorkError
from oneformer.spec.load import load_spec
from tiny import TinyDataset
from train.small import SMALL

KEY, SECRET = "AKIAHUSHHUSHHUSH", "hush/very+secret+word"
BUCKET = "photos-of-streets"


@pytest.fixture(scope="module")
def line() -> Iterator[Server]:
    """What stands before the S3 server."""
    moto = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    s3 = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    s3.start()
    with in_front_of(s3.get_host_and_port()[1]) as server:
        # Objects of a bucket, not listings of one.
        server.hits = lambda method, path: method == "GET" and "list-type" not in path and path.count("/") > 1
        yield server
    s3.stop()


@pytest.fixture
def bucket(line: Server, packed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, bytes], None]]:
    """Puts objects into the bucket; `root/` holds a packed data set."""
    from botocore.session import Session

    for name in [n for n in os.environ if n.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", line.address)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    line.faults.clear()
    client = Session().create_client("s3")
    client.create_bucket(Bucket=BUCKET)

    def put(name: str, body: bytes) -> None:
        client.put_object(Bucket=BUCKET, Key=name, Body=body)

    for path in packed.iterdir():
        put(f"root/{path.name}", path.read_bytes())
    line.asked.clear()
    yield put
    client.close()


def fetched_objects(line: Server) -> list[str]:
    """The objects whose bytes were asked for."""
    return [path.partition("?")[0] for method, path, _ in line.asked if line.hits(method, path)]


FAULTS = ["500", "reset", "cut", "503", "short", "500", "cut"]


def test_training_from_s3_over_a_line_that_breaks(
    line: Server, bucket: Any, packed: Path, small: TinyDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    line.faults = list(FAULTS)
    cache = tmp_path / "cache"
    words = [
        *SMALL, f"results_dir={tmp_path}/results", f"dataset.sources.cache_dir={cache}", "train.num_epochs=1",
        "train.iters_per_epoch=1", "model.sem_seg_head.num_classes=4",
    ]  # fmt: skip
    root = f"s3://{BUCKET}/root"
    code = cli.main(["train", "--train-dataset", root, "--eval-dataset", root, *words])
    out, err = capsys.readouterr()
    assert code == cli.DONE, err
    assert line.faults == [], "every fault was met"
    # The bytes are those that were put there, each thing is kept once.
    kept = content(cache)
    folders = sorted((cache / "unpacked").iterdir())
    assert len(folders) == 2 and len(list((cache / "files").iterdir())) == 2
    unpacked = {name: body for folder in folders for name, body in content(folder).items()}
    expected = {f"set/photos/{n}": b for n, b in content(small.images).items()}
    assert unpacked == expected | {f"masks/{n}": b for n, b in content(small.panoptic).items()}
    files = {Path(n).name: b for n, b in kept.items() if n.startswith("files/")}
    assert files == {n: (packed / n).read_bytes() for n in ("annotations.json", "label_map.json")}
    assert not list((cache / "parts").iterdir())
    # The next run asks for no object.
    before = len(fetched_objects(line))
    assert before >= 4 + len(FAULTS)
    spec = load_spec(None, [*words, f"dataset.sources.train_datasets={root}"], action="train")
    assert fetched(spec, "train").dataset.train.images in {str(folder / "set/photos") for folder in folders}
    assert len(fetched_objects(line)) == before
    # What was written says where the data lies, and no secret.
    written = {str(p): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert root.encode() in written[str(tmp_path / "results/train/experiment.yaml")]
    for secret in (KEY, SECRET):
        assert not [name for name, body in written.items() if secret.encode() in body or secret in name]
        assert secret not in out + err
        assert not [r for r in caplog.records if r.name.startswith("oneformer") and secret in r.getMessage()]


def test_a_folder_of_single_objects_is_fetched_and_gone_on_with(
    line: Server, bucket: Callable[[str, bytes], None], fetcher: MakeFetcher, tmp_path: Path
) -> None:
    files = {f"deep/{i}.png": bytes([i]) * 2000 for i in range(12)}
    for name, body in files.items():
        bucket(f"single/{name}", body)
    line.asked.clear()
    line.faults = ["500", "cut", "reset"]
    with pytest.raises(WorkError, match="cannot be fetched"):
        fetcher(retries=0).local(f"s3://{BUCKET}/single/", key="key")
    assert not list((tmp_path / "cache" / "folders").iterdir())
    line.faults = ["short"]
    folder = fetcher().local(f"s3://{BUCKET}/single/", key="key")
    assert content(Path(folder)) == files
    asked = fetched_objects(line)
    line.asked.clear()
    assert fetcher().local(f"s3://{BUCKET}/single", key="key") == folder
    assert fetched_objects(line) == [] and len(asked) <= 12 + 4 + 12
    bucket("single/new.png", b"1")
    assert set(content(Path(fetcher().local(f"s3://{BUCKET}/single", key="key")))) == {*files, "new.png"}


def test_names_of_objects_that_lead_elsewhere_are_refused(
    bucket: Callable[[str, bytes], None], fetcher: MakeFetcher, tmp_path: Path
) -> None:
    bucket("evil/a.png", b"1")
    bucket("evil/../../../evil.png", b"1")
    with pytest.raises(DataError, match="leads out of its folder"):
        fetcher().local(f"s3://{BUCKET}/evil/", key="key")
    assert not list(tmp_path.rglob("evil.png"))


def test_what_is_not_there_and_what_may_not_be_read(
    line: Server, bucket: Any, fetcher: MakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="there is nothing at this address") as told:
        fetcher().local(f"s3://{BUCKET}/none.tar.gz", key="key")
    assert told.value.where == f"s3://{BUCKET}/none.tar.gz" and told.value.exit_code == 2
    line.faults = ["403"]
    with pytest.raises(DataError, match="access is denied") as told:
        fetcher().local(f"s3://{BUCKET}/root/label_map.json", key="key")
    assert "AWS_ACCESS_KEY_ID" in told.value.hint and SECRET not in told.value.message
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(DataError, match="[Cc]redentials"):
        fetcher().local(f"s3://{BUCKET}/root/label_map.json", key="key")


def test_a_server_that_never_delivers_is_given_up(line: Server, bucket: Any, fetcher: MakeFetcher) -> None:
    line.faults = ["short"] * 100
    with pytest.raises(WorkError, match=r"\(3 tries\)") as told:
        fetcher(retries=2).local(f"s3://{BUCKET}/root/images.tar.gz", key="key")
    assert told.value.exit_code == 1 and "\n" not in told.value.what
    line.faults.clear()


def test_bytes_that_changed_on_the_way_are_noticed(
    line: Server, bucket: Any, fetcher: MakeFetcher, tmp_path: Path
) -> None:
    """The store tells the MD5 of what it has; here a part of another file lies where the transfer goes on."""
    from oneformer.data.sources.address import Address
    from oneformer.data.sources.cache import Cache, digest_of
    from oneformer.data.sources.store import Store, version_of

    url = f"s3://{BUCKET}/root/images.tar.gz"
    version = version_of(Store.of(Address(url)).ask("info", Address(url).path))
    part = Cache(tmp_path / "cache").part(f"{digest_of(url)}.fetch")
    part.write_bytes(b"x" * 100)
    part.with_name(part.name + ".of").write_text(version)
    folder = fetcher().local(url, key="key")
    assert len(content(Path(folder))) == 4


def test_the_tag_of_what_is_encrypted_with_a_key_of_the_store_is_no_checksum(bucket: Any) -> None:
    from botocore.session import Session

    from oneformer.data.sources.address import Address
    from oneformer.data.sources.store import Store
    from oneformer.data.sources.transfer import Begun

    client = Session().create_client("s3")
    for name, more in (("plain", {}), ("locked", {"ServerSideEncryption": "aws:kms"})):
        client.put_object(Bucket=BUCKET, Key=name, Body=b"hello world", **more)
        address = Address(f"s3://{BUCKET}/{name}")
        with Store.of(address).file(address.path).open(Begun()) as reply:
            assert reply is not None
            assert reply.promise == ("" if more else "md5:5eb63bbbe01eeed093cb22bb8f5acdc3")
            assert b"".join(reply.blocks) == b"hello world"
    client.close()
