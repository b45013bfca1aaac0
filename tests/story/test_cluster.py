"""Predictions by the workers of a Ray cluster: each photo once, whatever ends; as one process would have written them."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from oneformer import cli
from oneformer.actions import cluster
from oneformer.actions.cluster import AHEAD, TRIES, Chunk, Worker, _Run, workers
from oneformer.errors import SpecError, UserError, WorkError
from oneformer.spec.load import load_spec
from ray_cluster import ray_cluster
from story.tiny_model import write_tiny_checkpoint


class ActorGone(Exception):
    pass


class TaskFailed(Exception):
    cause = None


class Pretended:
    """Ray's calls with workers that do a chunk when their answer is asked for, or are gone by then."""

    exceptions = SimpleNamespace(RayActorError=ActorGone, RayTaskError=TaskFailed)

    def __init__(self, work: Any, *, count: int = 3, seed: int = 0) -> None:
        self.work, self.random = work, random.Random(seed)
        self.asked: list[tuple[int, Chunk]] = []
        self.most: Counter[int] = Counter()
        self.open: dict[object, tuple[int, Chunk]] = {}
        self.count = count
        self.started: list[Any] = []
        self.killed: list[Any] = []

    def start(self) -> Any:
        number = len(self.started)
        self.started.append(SimpleNamespace(do=SimpleNamespace(remote=lambda chunk: self._ask(number, chunk))))
        return self.started[-1]

    def _ask(self, number: int, chunk: Chunk) -> object:
        reference = object()
        self.open[reference] = number, chunk
        self.asked.append((number, chunk))
        self.most[number] = max(self.most[number], sum(n == number for n, _ in self.open.values()))
        return reference

    def wait(self, references: list[object], **_: Any) -> tuple[list[object], list[object]]:
        chosen = self.random.choice(references)
        return [chosen], [r for r in references if r is not chosen]

    def get(self, reference: object) -> Any:
        return self.work(*self.open.pop(reference))

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)


def chunks(count: int) -> list[Chunk]:
    return [Chunk(n, (f"{n}a.jpg", f"{n}b.jpg"), {}) for n in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_every_chunk_is_done_once_whatever_workers_are_lost(seed: int) -> None:
    lucky = random.Random(seed)
    counted: Counter[int] = Counter()
    losses: Counter[int] = Counter()

    def work(_: int, chunk: Chunk) -> dict[str, Any]:
        if lucky.random() < 0.3 and losses[chunk.number] < TRIES - 1:
            losses[chunk.number] += 1
            raise ActorGone("killed")
        counted[chunk.number] += 1
        return {"number": chunk.number, "images": 2}

    ray = Pretended(work, seed=seed)
    run = _Run(ray, ray.start, ray.count, chunks(50))
    run.run()
    assert counted == Counter(range(50)) and sum(losses.values()) > 0
    assert max(ray.most.values()) == AHEAD  # nobody is handed more than that at a time
    assert len(ray.started) > ray.count and ray.killed == run.actors and len(ray.killed) == ray.count


def test_a_chunk_that_ends_every_worker_is_told_with_its_photos() -> None:
    def work(_: int, chunk: Chunk) -> dict[str, Any]:
        if chunk.number == 7:
            raise ActorGone("the worker died")
        return {"number": chunk.number, "images": 2}

    ray = Pretended(work)
    with pytest.raises(WorkError, match=f"{TRIES} workers ended over one chunk") as caught:
        _Run(ray, ray.start, ray.count, chunks(10)).run()
    assert "7a.jpg to 7b.jpg" in caught.value.message


def test_a_worker_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "LATE_S", 0.0)
    ray = Pretended(lambda number, chunk: {"number": chunk.number, "images": 2})
    ray.wait = lambda references, **_: ([r for r in references if ray.open[r][0] != 0][:1], [])  # type: ignore[method-assign]
    _Run(ray, ray.start, ray.count, chunks(12)).run()
    assert {chunk.number for number, chunk in ray.asked if number != 0} == set(range(12))


def test_the_users_faults_arrive_as_such() -> None:
    ray = Pretended(lambda *_: {"fault": ["no weights", "a.pth", ""], "failed": False})
    with pytest.raises(UserError, match="no weights") as caught:
        _Run(ray, ray.start, ray.count, chunks(3)).run()
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("words", "there", "found"),
    [
        ((), {"CPU": 8.0}, ({"num_cpus": 1}, 8)),
        (("inference.threads=4",), {"CPU": 9.0}, ({"num_cpus": 4}, 2)),
        (("inference.num_gpus=3",), {"CPU": 8.0}, ({"num_cpus": 1}, 3)),
        ((), {"CPU": 64.0, "GPU": 8.0}, ({"num_gpus": 1, "num_cpus": 1}, 8)),
        (
            ("inference.num_gpus=4", "inference.num_nodes=2"),
            {"CPU": 64.0, "GPU": 8.0},
            ({"num_gpus": 1, "num_cpus": 1}, 8),
        ),
        (("inference.accelerator=cpu",), {"CPU": 2.0, "GPU": 8.0}, ({"num_cpus": 1}, 2)),
        (("inference.accelerator=gpu",), {"CPU": 8.0}, "1 GPUs are asked for, the cluster has room for 0"),
        (("inference.num_gpus=9",), {"CPU": 8.0}, "9 workers of 1 processors are asked for"),
    ],
)
def test_there_are_as_many_workers_as_there_is_room_for(words: Any, there: Any, found: Any) -> None:
    spec = load_spec(None, list(words), action="inference")
    if isinstance(found, str):
        with pytest.raises(SpecError, match=found):
            workers(spec, there)
    else:
        assert workers(spec, there) == found


def photos(folder: Path, count: int) -> Path:
    """Small photos; one of them cannot be read."""
    folder.mkdir()
    for number in range(count):
        colour = np.random.default_rng(number).integers(0, 255, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(colour).resize((64, 48), Image.Resampling.NEAREST).save(folder / f"photo_{number:05d}.png")
    (folder / "photo_00002.png").write_bytes(b"no image")
    return folder


class Answer:
    """A chunk that a worker is asked for."""

    def __init__(self, worker: Worker, chunk: Chunk) -> None:
        self.worker, self.chunk = worker, chunk


class Here:
    """Ray with one worker, in this process."""

    exceptions = Pretended.exceptions

    def __init__(self, stop_after: int = 10**9) -> None:
        self.stop_after, self.answers = stop_after, 0

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}

    def remote(self, **_: Any) -> Any:
        def made(kind: type[Worker]) -> Any:
            def start(*given: Any) -> Any:
                worker = kind(*given)
                return SimpleNamespace(do=SimpleNamespace(remote=lambda chunk: Answer(worker, chunk)))

            return SimpleNamespace(remote=start)

        return made

    def wait(self, references: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return references[:1], references[1:]

    def get(self, reference: Any) -> Any:
        self.answers += 1
        if self.answers > self.stop_after:
            raise KeyboardInterrupt
        return reference.worker.do(reference.chunk)

    def kill(self, _: Any) -> None:
        pass


def without_times(folder: Path) -> dict[str, Any]:
    found = {}
    for name in ("predictions.json", "panoptic.json", "instances.json"):
        told = json.loads((folder / name).read_text())
        if name == "predictions.json":
            for image in told["images"]:
                image.pop("seconds")
        found[name] = told
    return found


def words_of(tmp_path: Path, images: Path) -> list[str]:
    checkpoint = tmp_path / "model.pth"
    if not checkpoint.exists():
        write_tiny_checkpoint(checkpoint)
    return [
        f"inference.checkpoint={checkpoint}", f"inference.images_dir={images}", "inference.mode=all",
        "inference.accelerator=cpu", "inference.batch_size=4", "inference.overlay=false",
    ]  # fmt: skip


def test_a_cluster_writes_what_one_process_does_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(tmp_path, photos(tmp_path / "photos", 15))
    monkeypatch.setattr(cluster, "CHUNK", 4)
    ray = Here(stop_after=2)
    monkeypatch.setattr(cluster, "connected", lambda _: ray)
    on = ["inference", "--cluster", "auto", *words, f"results_dir={tmp_path / 'cluster'}"]
    assert cli.main(on) == cli.INTERRUPTED
    folder = tmp_path / "cluster" / "inference"
    assert len(list((folder / "parts").glob("0*.json"))) == 2 and not (folder / "predictions.json").exists()
    ray.stop_after, ray.answers = 10**9, 0
    assert cli.main(on) == cli.FAILED  # one of the photos is none
    assert ray.answers == 2  # of four chunks, two were done
    assert "1 of 15 images could not be read" in capsys.readouterr().err
    assert cli.main(["inference", *words, f"results_dir={tmp_path / 'alone'}"]) == cli.FAILED
    assert without_times(folder) == without_times(tmp_path / "alone" / "inference")
    for path in (tmp_path / "alone" / "inference").glob("*/*.png"):
        assert path.read_bytes() == (folder / path.parent.name / path.name).read_bytes()
    assert not (folder / "parts").exists()


def test_chunks_of_another_request_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*words_of(tmp_path, photos(tmp_path / "photos", 15)), f"results_dir={tmp_path}"]
    monkeypatch.setattr(cluster, "CHUNK", 4)
    ray = Here(stop_after=2)
    monkeypatch.setattr(cluster, "connected", lambda _: ray)
    assert cli.main(["inference", "--cluster", "auto", *words]) == cli.INTERRUPTED
    ray.stop_after, ray.answers = 10**9, 0
    assert cli.main(["inference", "--cluster", "auto", *words, "inference.mode=semantic"]) == cli.FAILED
    assert ray.answers == 4


def test_without_ray_it_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    words = words_of(tmp_path, photos(tmp_path / "photos", 3))
    assert cli.main(["inference", "--cluster", "auto", *words, f"results_dir={tmp_path}"]) == cli.WRONG_REQUEST
    assert 'pip install "oneformer[ray]"' in capsys.readouterr().err


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two processors on this machine."""
    with ray_cluster(monkeypatch) as module:
        yield module


@pytest.mark.slow
def test_five_thousand_photos_with_a_worker_killed_again_and_again(
    ray: Any, tmp_path: Path, record_property: Any
) -> None:
    """Each photo has exactly one result, and it is the one that a single process writes."""
    images = photos(tmp_path / "photos", 5000)
    words = [*words_of(tmp_path, images), "inference.mode=semantic", "inference.threads=1"]
    folder, killed = tmp_path / "cluster" / "inference", []

    def killer() -> None:
        for share in (0.2, 0.5, 0.8):
            while len(list((folder / "parts").glob("0*.json"))) < share * 5000 / 32:
                time.sleep(0.05)
            victims = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _is_worker(p)]
            os.kill(victims[0], signal.SIGKILL)
            killed.append(victims[0])

    thread = threading.Thread(target=killer, daemon=True)
    thread.start()
    began = time.monotonic()
    assert cli.main(["inference", "--cluster", "auto", *words, f"results_dir={tmp_path / 'cluster'}"]) == cli.FAILED
    together = time.monotonic() - began
    thread.join(5)
    assert len(set(killed)) == 3
    began = time.monotonic()
    assert cli.main(["inference", *words, f"results_dir={tmp_path / 'alone'}"]) == cli.FAILED
    alone = time.monotonic() - began
    told = json.loads((folder / "predictions.json").read_text())
    expected = json.loads((tmp_path / "alone" / "inference" / "predictions.json").read_text())
    for index in (told, expected):
        for image in index["images"]:
            image.pop("seconds")
    assert told == expected and len(told["images"]) == 4999
    assert len({image["file"] for image in told["images"]}) == 4999
    for path in (tmp_path / "alone" / "inference" / "semantic").iterdir():
        assert path.read_bytes() == (folder / "semantic" / path.name).read_bytes()
    figures = f"{5000 / together:.1f} images/s on two workers, three of them killed; {5000 / alone:.1f} alone"
    record_property("throughput", figures)
    print(figures)


def _is_worker(entry: Path) -> bool:
    try:
        return b"ray::Worker" in (entry / "cmdline").read_bytes()
    except OSError:
        return False
