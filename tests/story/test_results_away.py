"""The story of `results_dir=s3://...`: a real S3 server on this machine, behind a line that breaks."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data.sources.servers import Server, in_front_of
from oneformer import cli
from oneformer.actions import mirror as mirrors
from oneformer.errors import UserError
from oneformer.jobs import create_job
from oneformer.jobs.links import linked
from oneformer.jobs.record import COMPLETE
from oneformer.runs.away import here
from oneformer.runs.encrypt import MAGIC
from oneformer.train.module import TrainingModule
from tiny import TinyDataset
from train.small import small_data, words

KEY, SECRET = "AKIAHUSHHUSHHUSH", "hush/very+secret+word"
BUCKET = "results-of-streets"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    return small_data(tmp_path_factory.mktemp("away"))


@pytest.fixture(scope="module")
def line() -> Iterator[Server]:
    """What stands before the S3 server."""
    moto = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    s3 = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    s3.start()
    with in_front_of(s3.get_host_and_port()[1]) as server:
        server.hits = lambda method, path: method == "PUT" and path.count("/") > 1
        yield server
    s3.stop()


class Bucket:
    """What lies in the bucket."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def names(self, prefix: str = "") -> set[str]:
        listed = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return {item["Key"].removeprefix(prefix) for item in listed}

    def read(self, name: str) -> bytes:
        return bytes(self.client.get_object(Bucket=BUCKET, Key=name)["Body"].read())

    def states(self, name: str) -> list[str]:
        return [json.loads(row)["status"] for row in self.read(name).decode().splitlines()]


@pytest.fixture
def bucket(line: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    from botocore.session import Session

    for name in [n for n in os.environ if n.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", line.address)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("oneformer.data.sources.transfer.PAUSE", 0.001)
    monkeypatch.setattr(mirrors, "STATUS_S", 0.05)
    monkeypatch.setattr(mirrors, "ALL_S", 0.2)
    line.faults.clear()
    client = Session().create_client("s3")
    client.create_bucket(Bucket=BUCKET)
    line.asked.clear()
    yield Bucket(client)
    line.faults.clear()
    for name in Bucket(client).names():
        client.delete_object(Bucket=BUCKET, Key=name)
    client.close()


def address(name: str) -> str:
    return f"s3://{BUCKET}/{name}"


def train(data: TinyDataset, name: str, *more: str) -> int:
    short = ("train.iters_per_epoch=1", "train.num_epochs=2", "train.keep_checkpoints=1")
    return cli.main(["train", *words(data, Path("x"), *short), f"results_dir={address(name)}", *more])


def sent(line: Server) -> list[str]:
    """The objects that were written, in their order."""
    return [path.partition("?")[0].split("/", 2)[2] for method, path, _ in line.asked if line.hits(method, path)]


def test_a_training_lies_in_the_bucket_as_in_its_folder_and_no_secret_with_it(
    data: TinyDataset, bucket: Bucket, line: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line.faults = ["500", "reset", "503", "reset"]
    assert train(data, "night") == cli.DONE
    out, err = capsys.readouterr()
    assert line.faults == [], "every fault was met"
    folder = here(address("night/train"))
    mine = {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}
    assert {n: bucket.read(f"night/train/{n}") for n in mine} == mine
    assert bucket.names("night/train/") == {*mine, ".results.json"}
    assert {"oneformer_model_latest.pth", "oneformer_model_best.pth", "metrics.csv", "experiment.yaml"} < set(mine)
    assert bucket.states("night/train/status.json")[-1] == "SUCCESS"
    assert f"results_dir: {address('night')}" in mine["experiment.yaml"].decode()
    for place in (*mine.values(), bucket.read("night/train/.results.json"), (out + err).encode()):
        assert KEY.encode() not in place and SECRET.encode() not in place
    # A checkpoint that stands there under two names has travelled once.
    assert not Path("s3:").exists()


def test_every_command_takes_the_weights_from_the_bucket_and_leaves_its_results_there(
    data: TinyDataset, bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from two_layers import two_layers

    assert train(data, "chain") == cli.DONE
    shutil.rmtree(tmp_path / "cache")  # another machine
    best = address("chain/train/oneformer_model_best.pth")
    common = [*words(data, Path("x")), f"results_dir={address('chain')}"]
    assert cli.main(["evaluate", *common, f"evaluate.checkpoint={best}"]) == cli.DONE, capsys.readouterr().err
    assert {"metrics.json", "report.html", "experiment.yaml", "status.json"} <= bucket.names("chain/evaluate/")
    assert f"checkpoint: {best}" in bucket.read("chain/evaluate/experiment.yaml").decode()
    assert not (here(address("chain/train")) / "model_epoch_001_step_00002.pth").exists(), "only what is needed comes"
    shown = [f"inference.checkpoint={best}", f"inference.images_dir={data.images}"]
    assert cli.main(["inference", *common, *shown]) == cli.DONE
    assert {"predictions.json", "overlays/000000.jpg"} & bucket.names("chain/inference/")
    with two_layers():
        made = [f"export.checkpoint={best}", "export.input_height=64", "export.input_width=96", "export.on_cpu=true"]
        code = cli.main(["export", *common, *made])
    assert code == cli.DONE, capsys.readouterr().err
    assert {"model.onnx", "model.json", "parity.json"} <= bucket.names("chain/export/")
    none = address("chain/train/none.pth")
    assert cli.main(["evaluate", *common, f"evaluate.checkpoint={none}"]) == cli.WRONG_REQUEST
    err = capsys.readouterr().err
    assert "there is no such file at this address" in err and "oneformer_model_best.pth" in err
    assert cli.main(["evaluate", "--dry-run", *common, f"evaluate.checkpoint={best}"]) == cli.WRONG_REQUEST
    assert "a dry run fetches nothing" in capsys.readouterr().err


def test_status_lines_are_there_while_it_runs(
    data: TinyDataset, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    seen: list[list[str]] = []
    step = TrainingModule.training_step

    def watched(self: TrainingModule, *args: Any) -> Any:
        until = time.monotonic() + 20
        while not seen and time.monotonic() < until:
            time.sleep(0.02)
            if "status.json" in bucket.names("watched/train/"):
                seen.append(bucket.states("watched/train/status.json"))
        return step(self, *args)

    monkeypatch.setattr(TrainingModule, "training_step", watched)
    assert train(data, "watched") == cli.DONE
    assert seen and seen[0] == ["STARTED"]


def test_an_interrupt_ends_with_an_upload_and_another_machine_goes_on(
    data: TinyDataset, bucket: Bucket, line: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    step = TrainingModule.training_step

    def interrupted(self: TrainingModule, *args: Any) -> Any:
        if self.trainer.global_step == 1:
            raise KeyboardInterrupt
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", interrupted)
        assert train(data, "stopped") == cli.INTERRUPTED
    assert bucket.states("stopped/train/status.json")[-1] == "FAILURE"
    assert "model_epoch_000_step_00001.pth" in bucket.names("stopped/train/")
    shutil.rmtree(here(address("stopped/train")))
    assert train(data, "stopped") == cli.WRONG_REQUEST, "it is another training, and nothing says what to do"
    shutil.rmtree(here(address("stopped/train")))
    assert train(data, "stopped", "train.resume_training_checkpoint_path=auto") == cli.DONE
    states = bucket.states("stopped/train/status.json")
    assert states[0] == "STARTED" and states[-1] == "SUCCESS" and "FAILURE" in states
    # What was pruned here is gone there.
    assert "model_epoch_000_step_00001.pth" not in bucket.names("stopped/train/")
    assert "model_epoch_001_step_00002.pth" in bucket.names("stopped/train/")
    latest = here(address("stopped/train")) / "oneformer_model_latest.pth"
    assert latest.is_symlink()
    # A start that changes nothing sends no weights.
    line.asked.clear()
    assert train(data, "stopped", "train.resume_training_checkpoint_path=auto") == cli.DONE
    assert sent(line) and not [name for name in sent(line) if name.endswith(".pth")]


@pytest.mark.slow
def test_of_two_processes_the_first_uploads_and_a_key_encrypts_what_it_does(
    data: TinyDataset, bucket: Bucket, line: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEFORMER_ENCRYPTION_KEY", "a long walk by the sea")
    assert train(data, "two", "train.num_gpus=2") == cli.DONE
    best = bucket.read("two/train/oneformer_model_best.pth")
    assert best.startswith(MAGIC) and bucket.states("two/train/status.json")[-1] == "SUCCESS"
    assert sent(line).count("two/train/model_epoch_001_step_00002.pth") <= 1
    shutil.rmtree(here(address("two/train")))
    again = ("train.num_gpus=2", "train.resume_training_checkpoint_path=auto", "train.stop_at_epoch=2")
    assert train(data, "two", *again) == cli.DONE


def test_what_a_killed_run_has_not_uploaded_the_next_one_does(bucket: Bucket, line: Server, tmp_path: Path) -> None:
    from oneformer.actions.mirror import Mirror
    from oneformer.data.sources.address import Address
    from oneformer.data.sources.transfer import Limits

    place = Address(address("killed/train"))
    folder = here(place.url)
    first = Mirror(place, folder, Limits(2, quiet=True))
    first.bring()
    (folder / "a.bin").write_bytes(b"a" * 100)
    (folder / "inputs").mkdir()
    (folder / "inputs" / "photo.png").write_bytes(b"never")
    (folder / ".hidden").write_bytes(b"never")
    first.push()
    (folder / "b.bin").write_bytes(b"b" * 100)
    (folder / "a.bin").write_bytes(b"changed")
    line.asked.clear()
    again = Mirror(place, folder, Limits(2, quiet=True))
    again.bring()
    again.push()
    assert [name.rpartition("/")[2] for name in sent(line)] == ["a.bin", "b.bin", ".results.json"]
    assert bucket.names("killed/train/") == {"a.bin", "b.bin", ".results.json"}
    line.asked.clear()
    again.push()
    assert sent(line) == []
    # One that somebody has changed there comes back, and one that was damaged there is refused.
    bucket.client.put_object(Bucket=BUCKET, Key="killed/train/b.bin", Body=b"theirs")
    Mirror(place, folder, Limits(2, quiet=True)).bring()
    assert (folder / "b.bin").read_bytes() == b"theirs"


def test_large_files_travel_in_parts_and_are_compared(
    bucket: Bucket, line: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oneformer.data.sources import upload
    from oneformer.data.sources.address import Address
    from oneformer.data.sources.store import Store
    from oneformer.data.sources.transfer import Unreachable

    monkeypatch.setattr(upload, "PART", 5 << 20)
    file = tmp_path / "large.bin"
    file.write_bytes(os.urandom(11 << 20))
    store = Store.of(Address(address("large")))
    line.faults = ["500", "reset"]
    version = upload.put(store, file, f"{BUCKET}/large/large.bin", retries=4)
    assert line.faults == [] and version.endswith("-3")
    assert bucket.read("large/large.bin") == file.read_bytes()
    other = tmp_path / "other.bin"
    other.write_bytes(b"x" * (11 << 20))
    monkeypatch.setattr(upload, "version_of", lambda facts: f"{'0' * 32}-3")
    with pytest.raises(Unreachable, match="other bytes"):
        upload.put(store, other, f"{BUCKET}/large/other.bin", retries=1)


@pytest.mark.parametrize("code", ["403", "500"])
def test_a_bucket_that_cannot_be_reached_is_told_before_anything_is_computed(
    data: TinyDataset, bucket: Bucket, line: Server, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], code: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(line, "hits", lambda method, path: True)
    line.faults = [code] * 50
    assert train(data, "denied", "dataset.sources.retries=1") == (2 if code == "403" else 1)
    err = capsys.readouterr().err
    assert f"s3://{BUCKET}/denied/train: the results cannot be fetched" in err and SECRET not in err


def test_results_that_cannot_be_uploaded_are_kept_and_told(
    data: TinyDataset, bucket: Bucket, line: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    line.faults = ["403"] * 10000
    assert train(data, "refused") == cli.WRONG_REQUEST
    err = capsys.readouterr().err
    folder = here(address("refused/train"))
    assert "the results cannot be uploaded: access is denied" in err and f"they are kept in {folder}" in err
    assert (folder / "oneformer_model_best.pth").is_file()
    line.faults = []
    assert train(data, "refused", "train.resume_training_checkpoint_path=auto") == cli.DONE
    assert "oneformer_model_best.pth" in bucket.names("refused/train/")


def test_jobs_take_data_and_weights_from_the_bucket_and_lie_there_under_their_names(
    data: TinyDataset, bucket: Bucket, line: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes of their own, started by the queue; what they read and what they write meets faults."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for file in data.folder.rglob("*.*"):
        bucket.client.put_object(Bucket=BUCKET, Key=f"data/{file.relative_to(data.folder)}", Body=file.read_bytes())
    given = [word.replace(str(data.folder), address("data")) for word in words(data, Path("x"))]
    given += [f"results_dir={address('jobs')}", "train.iters_per_epoch=1", "train.num_epochs=1"]
    monkeypatch.setattr(line, "hits", lambda method, path: path.count("/") > 1)
    line.faults = ["500", "reset", "short", "503"] * 2
    first = create_job("train", None, given, jobs=tmp_path / "jobs")
    score = create_job("evaluate", None, [*given, "evaluate.accelerator=cpu"], jobs=tmp_path / "jobs", parent=first.id)
    assert [job.wait(120) for job in (first, score)] == [COMPLETE] * 2, first.log + score.log
    assert line.faults == [], "every fault was met"
    best = first.results / "train" / "oneformer_model_best.pth"
    assert score.record.inferred["evaluate.checkpoint"]["value"] == str(best)
    for job, action in ((first, "train"), (score, "evaluate")):
        mine = {p.name: p.read_bytes() for p in (job.results / action).iterdir() if not p.name.startswith(".")}
        assert {n: bucket.read(f"jobs/{job.id}/{action}/{n}") for n in mine} == mine
    weights = address(f"jobs/{first.id}/train/{best.name}")
    links = {"train.pretrained_model": {"link": weights, "destination_path": "start/from.pth"}}
    for wishes in ({"ptm": weights}, {"infer": links}):
        more = create_job("train", None, given, jobs=tmp_path / "jobs", **wishes)
        assert more.wait(120) == COMPLETE, more.log
    assert (more.folder / "inputs" / "start" / "from.pth").read_bytes() == best.read_bytes()
    for file in (tmp_path / "jobs").rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file


def test_a_link_into_the_bucket_brings_a_file_or_what_an_archive_holds(bucket: Bucket, tmp_path: Path) -> None:
    packed = tmp_path / "photos.tar.gz"
    (tmp_path / "a.png").write_bytes(b"photo")
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(tmp_path / "a.png", "a.png")
    bucket.client.put_object(Bucket=BUCKET, Key="in/photos.tar.gz", Body=packed.read_bytes())
    bucket.client.put_object(Bucket=BUCKET, Key="in/map.json", Body=b"[]")
    job = tmp_path / "job"
    photos = linked({"link": address("in/photos.tar.gz")}, job, "dataset.train.images")
    assert photos == job / "inputs" / "photos" and (photos / "a.png").read_bytes() == b"photo"
    assert linked({"link": address("in/map.json")}, job, "dataset.label_map") == job / "inputs" / "map.json"
    with pytest.raises(UserError, match="nothing") as caught:
        linked({"link": address("in/none.json")}, job, "dataset.label_map")
    assert caught.value.where == "dataset.label_map"


def test_the_results_of_a_search_are_refused_when_its_job_is_submitted(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the results of automl cannot be kept in an object store"):
        create_job("train", None, [f"results_dir={address('x')}", "automl_policy=on"], jobs=tmp_path / "jobs")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["train", "results_dir=https://host/x"], "results cannot be kept at https:// addresses"),
        (["train", "results_dir=s3://me:word@host/x"], "holds a login"),
        (["train", "results_dir=s3://bucket/x?versionId=3"], "neither a checksum nor a query"),
        (["export", "results_dir=s3://bucket/x", "export.onnx_file=s3://bucket/y.onnx"], "cannot be written to an address"),
        (["automl", "run", "results_dir=s3://bucket/x"], "the results of automl cannot be kept in an object store"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_words(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cli.main(given) == cli.WRONG_REQUEST
    err = capsys.readouterr().err
    assert said in err and "word@" not in err
    assert not list(tmp_path.iterdir())


def test_a_dry_run_names_the_address_and_asks_nobody(
    data: TinyDataset, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cli.main(["train", "--dry-run", *words(data, Path("x")), "results_dir=s3://nowhere/x"]) == cli.DONE
    assert "would write  s3://nowhere/x/train/metrics.csv" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
