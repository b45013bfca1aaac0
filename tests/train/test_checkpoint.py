"""Checkpoint files are whole or not there, and hold plain content only."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from oneformer.errors import CheckpointError, WorkError
from oneformer.train.checkpoint import (
    BEST,
    LATEST,
    checkpoint_name,
    find_checkpoints,
    plain,
    prune,
    publish,
    read_training_state,
    remove_partial,
    write_checkpoint,
)


def test_names_are_padded_and_found_in_the_order_of_their_steps(tmp_path: Path) -> None:
    assert checkpoint_name(3, 42) == "model_epoch_003_step_00042.pth"
    for epoch, step in [(1, 200), (0, 100), (10, 100_000), (2, 300)]:
        (tmp_path / checkpoint_name(epoch, step)).touch()
    (tmp_path / "model_epoch_x_step_y.pth").touch()
    assert [p.name[6:15] for p in find_checkpoints(tmp_path)] == ["epoch_000", "epoch_001", "epoch_002", "epoch_010"]


def test_content_is_made_plain_and_loads_without_running_code(tmp_path: Path) -> None:
    content = {"a": np.float64(0.5), "b": (1, [torch.nn.Parameter(torch.ones(2))]), "c": {1: None, "d": True}}
    write_checkpoint(content, tmp_path / "x.pth")
    loaded = torch.load(tmp_path / "x.pth", weights_only=True)
    assert (loaded["a"], loaded["c"]) == (0.5, {1: None, "d": True})
    assert type(loaded["a"]) is float
    assert type(loaded["b"][1][0]) is torch.Tensor


def test_an_object_in_a_checkpoint_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match=r"checkpoint\['path'\] is a PosixPath"):
        plain({"path": Path("/somewhere")})


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x.pth"
    write_checkpoint({"step": 1}, target)

    def full(content: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(WorkError, match="No space left") as error:
        write_checkpoint({"step": 2}, target)
    assert "MiB are free" in error.value.hint
    assert torch.load(target, weights_only=True) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


def test_latest_is_a_relative_link_and_best_a_file_that_outlives_pruning(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        path = tmp_path / checkpoint_name(0, step)
        write_checkpoint({"step": step}, path)
        publish(path, LATEST, as_link=True)
        if step == 1:
            publish(path, BEST, as_link=False)
    prune(path, 1)
    assert (tmp_path / LATEST).readlink() == Path(checkpoint_name(0, 3))
    assert [p.name for p in find_checkpoints(tmp_path)] == [checkpoint_name(0, 3)]
    assert not (tmp_path / BEST).is_symlink()
    assert torch.load(tmp_path / BEST, weights_only=True) == {"step": 1}


def test_without_links_the_content_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("links are not supported")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    path = tmp_path / checkpoint_name(0, 1)
    write_checkpoint({"step": 1}, path)
    publish(path, LATEST, as_link=True)
    assert not (tmp_path / LATEST).is_symlink()
    assert torch.load(tmp_path / LATEST, weights_only=True) == {"step": 1}


@pytest.mark.parametrize(("keep", "left"), [(-1, 5), (0, 1), (1, 1), (3, 3), (9, 5)])
def test_as_many_checkpoints_are_kept_as_asked_for(tmp_path: Path, keep: int, left: int) -> None:
    for step in range(5):
        (tmp_path / checkpoint_name(0, step)).touch()
    prune(tmp_path / checkpoint_name(0, 4), keep)
    assert [p.name for p in find_checkpoints(tmp_path)] == [checkpoint_name(0, s) for s in range(5)][-left:]


def test_half_written_files_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".model_epoch_000_step_00001.pth.part").touch()
    remove_partial(tmp_path)
    assert not list(tmp_path.iterdir())


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("ran",)


def test_bad_files_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 not a whole file")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    torch.save({"state_dict": {}}, tmp_path / "weights.pth")
    for name, message in [
        ("none.pth", "no such checkpoint"),
        ("cut.pth", "broken or cut short"),
        ("evil.pth", "could run code"),
        ("weights.pth", "holds no training state"),
    ]:
        with pytest.raises(CheckpointError, match=message) as error:
            read_training_state(tmp_path / name)
        assert name in error.value.where
    assert "ran" not in capsys.readouterr().out
