"""A limit on disk space: what it holds, what it refuses, and that a search finds the same below it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from automl.pretended import Pretended, Running
from automl.test_controller import search, study
from oneformer import cli
from oneformer.automl import commands, controller, retention
from oneformer.automl.ledger import Ledger
from oneformer.automl.page import page
from oneformer.automl.retention import MIB, checkpoint_bytes, making_room, used
from oneformer.automl.trial import Rung, Trial
from oneformer.errors import SpecError
from oneformer.spec.load import load_spec
from tiny import write_tiny_dataset
from train.small import small_spec, train_small


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "POLL_S", 0.0)


def test_a_checkpoint_is_not_larger_than_was_told_and_not_much_smaller(tmp_path: Path) -> None:
    data = write_tiny_dataset(tmp_path / "data", images=6, size=(48, 64))
    words = ("train.num_epochs=1", "train.iters_per_epoch=1", "train.ema.enabled=true")
    told = checkpoint_bytes(small_spec(data, tmp_path, *words))
    train_small(data, tmp_path, *words)
    (size,) = {p.stat().st_size for p in (tmp_path / "train").glob("*.pth")}
    assert 0.7 * told < size <= told
    plain = checkpoint_bytes(small_spec(data, tmp_path))
    assert 0.7 < plain / told * 4 / 3 < 1.3, "without averages a quarter less"


def resting(number: int, epoch: int, score: float) -> Trial:
    return Trial(number, {}, "random", state="paused", rungs={epoch: Rung(epoch, score, 1.0, number + 1)})


def test_the_least_promising_make_room_first() -> None:
    trials = [resting(0, 3, 9.0), resting(1, 1, 1.0), resting(2, 1, 5.0), resting(3, 1, 3.0), resting(4, 3, 8.0)]
    sizes = {t.id: 10 for t in trials}

    def gone(room: int, keep: set[int]) -> list[int]:
        found = making_room(trials, sizes, keep=keep, ranks=lambda rungs: [r.score for r in rungs], room=room)
        return [t.id for t in found]

    assert gone(50, set()) == [] and gone(49, set()) == [1]
    assert gone(30, {0}) == [1, 3] and gone(0, {0, 2}) == [1, 3, 4]
    trials.append(Trial(5, {}, "random"))  # put back before its first rung: it is the next to go on
    sizes[5] = 10
    assert gone(10, {0})[-1] == 5


def test_two_names_of_one_file_count_once(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"x" * 100)
    (tmp_path / "b.pth").hardlink_to(tmp_path / "a.pth")
    assert sorted(used([tmp_path / "a.pth", tmp_path / "b.pth", tmp_path / "gone.pth"]).values()) == [0, 100]


FILE = 10_000


def limited(found: Path, monkeypatch: pytest.MonkeyPatch, limit: int, *words: str) -> tuple[list, list[int], list]:
    """A search with checkpoints of 10 kB and a limit in bytes: its trials, the bytes on disk at each look, its events."""
    monkeypatch.setattr(retention, "MIB", 1)
    monkeypatch.setattr(controller, "MIB", 1)
    monkeypatch.setattr(controller, "checkpoint_bytes", lambda spec: FILE)
    made = study(found, f"automl.max_disk_mib={limit}", *words)
    bytes_there: list[int] = []
    place = Pretended(padding=FILE - 20)
    place.look = lambda: bytes_there.append(sum(used(sorted(made.folder.glob("trials/**/*.pth"))).values()))
    _, trials = search(made, place)
    with Ledger(made.folder, read_only=True) as ledger:
        return trials, bytes_there, [(what, number) for _, what, number, _ in ledger.events()]


@pytest.mark.parametrize("words", [
    ("automl.max_trials=15",), ("automl.max_trials=9", "automl.max_concurrent=2"),
    ("automl.algorithm=hyperband",), ("automl.algorithm=random", "automl.max_trials=6"),
    ("automl.max_trials=9", "automl.finalists=2"),
])  # fmt: skip
def test_a_search_below_a_limit_stays_below_it_and_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    free, there, _ = limited(tmp_path / "free", monkeypatch, 0, *words)
    made = study(tmp_path, *words)
    schedule = made.brain().schedule
    monkeypatch.setattr(retention, "checkpoint_bytes", lambda spec: FILE)
    need = retention.need_of(made.spec, schedule.expected(), whole_only=len(schedule.rungs) == 1)
    assert max(there) <= need.peak
    trials, there, events = limited(tmp_path / "least", monkeypatch, need.least, *words)
    assert trials == free and max(there) <= need.least <= need.peak
    waits = "automl.algorithm=random" not in words
    again = [a for a, b in pairwise(events) if a[0] == "checkpoint dropped" and b[0] == "leased"]
    assert bool(again) == waits, "something has made room just before another began"


class Counted(Pretended):
    """A place that counts the epochs that are trained there, from the state that a training finds."""

    trained = 0

    def start(self, folder: Path, epoch: int) -> Running:
        begun = super().start(folder, epoch)
        there = [int(path.name.split("_")[2]) + 1 for path in folder.glob("train/model_epoch_*.pth")]
        self.trained += begun.epoch - max(there, default=0)
        return begun


@pytest.mark.parametrize("words", [("automl.max_trials=15",), ("automl.algorithm=hyperband",)])
def test_epochs_that_are_trained_once_more_are_counted_and_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    for room in (retention, controller, commands):
        monkeypatch.setattr(room, "MIB", 1)
    monkeypatch.setattr(controller, "checkpoint_bytes", lambda spec: FILE)
    monkeypatch.setattr(retention, "checkpoint_bytes", lambda spec: FILE)
    free = commands.plan(study(tmp_path, *words).spec)
    made = study(tmp_path / "least", f"automl.max_disk_mib={free.need.least}", *words)
    planned, trained = commands.plan(made.spec).to_dict()["epochs"], 0
    assert free.to_dict()["epochs"]["repeated_at_most"] == 0 < planned["repeated_at_most"]
    for _ in range(100):
        place = Counted(padding=FILE - 20, stop_after=3)
        try:
            search(made, place)
        except KeyboardInterrupt:
            continue
        finally:
            trained += place.trained
        break
    told = commands.status(made.spec)
    progress = told.to_dict()["progress"]
    assert progress["epochs"] == trained == commands.plan(made.spec).done_epochs
    assert trained - progress["epochs_repeated"] <= free.expected.most < planned["at_most"]
    assert 0 < progress["epochs_repeated"] <= planned["repeated_at_most"]
    assert f"{trained} of about" in told.table() and f"{progress['epochs_repeated']} of them once more" in told.table()
    with Ledger(made.folder, read_only=True) as ledger:
        assert f"{progress['epochs_repeated']} of them once more" in page(made, told.brain, ledger)
        assert told.brain.curve(list(ledger.trials.values()))[-1][0] <= trained


def test_a_population_keeps_whom_others_go_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("automl.algorithm=pbt", "automl.max_trials=10", "automl.min_epochs=3")
    free, _, _ = limited(tmp_path / "free", monkeypatch, 0, *words)
    made = study(tmp_path, *words)
    monkeypatch.setattr(retention, "checkpoint_bytes", lambda spec: FILE)
    need = retention.need_of(made.spec, made.brain().schedule.expected(), whole_only=False)
    trials, there, _ = limited(tmp_path / "least", monkeypatch, need.least, *words)
    assert trials == free and max(there) <= need.least


def test_a_limit_that_cannot_hold_is_refused_with_the_one_that_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["preset=swin_t", f"results_dir={tmp_path}", "automl.max_trials=9"]
    for verb in ("plan", "run"):
        assert cli.main(["automl", verb, *words, "automl.max_disk_mib=700"]) == cli.WRONG_REQUEST
        said = capsys.readouterr().err
        assert "the search needs" in said and "the limit is 700 MiB" in said and "hint: automl.max_disk_mib=" in said
        assert not (tmp_path / "automl").exists()
    least = int(said.partition("hint: automl.max_disk_mib=")[2].partition(",")[0])
    assert cli.main(["automl", "plan", *words, f"automl.max_disk_mib={least}"]) == cli.DONE
    assert f"at most {least} MiB of checkpoints as asked" in capsys.readouterr().out
    assert cli.main(["automl", "plan", *words, f"automl.max_disk_mib={least - 1}"]) == cli.WRONG_REQUEST
    spec = load_spec(None, [*words, "automl.combine=pareto", "automl.max_disk_mib=1",
                            "automl.objectives={PQ: {direction: maximize}, size_mib: {direction: minimize}}"], action="automl run")  # fmt: skip
    need = retention.need_of(spec, study(tmp_path / "x").brain().schedule.expected(), whole_only=False)
    with pytest.raises(SpecError, match="cannot do without"):
        retention.check(spec.automl, need)
    assert need.least == need.peak and need.file > 100 * MIB, "every trial may be one of the front"
