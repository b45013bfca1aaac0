"""Wrapper folders inside archives: the level that annotations mean is found, and said where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oneformer.data.sources.level import file_names, find_level, unwrapped
from oneformer.errors import DataError


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


@pytest.mark.parametrize("wrapper", ["", "images/", "set/train/images/"])
def test_the_folder_with_the_named_files_is_taken(wrapper: str, tmp_path: Path) -> None:
    root = tree(tmp_path, *(f"{wrapper}{i}.jpg" for i in range(3)), "readme.txt", "other/x.jpg")
    assert find_level(root, ["0.jpg", "1.jpg"]) == (root / wrapper)


def test_names_with_folders_and_names_without_an_ending_fit_too(tmp_path: Path) -> None:
    root = tree(tmp_path, "top/city/a.png", "top/city/b.png")
    assert find_level(root, ["city/a.png"]) == root / "top"
    assert find_level(root, ["city/a", "city/b"]) == root / "top"
    assert find_level(root, ["a", "b"]) == root / "top" / "city"


def test_the_folder_with_most_of_them_wins(tmp_path: Path) -> None:
    root = tree(tmp_path, "preview/1.jpg", "full/1.jpg", "full/2.jpg")
    assert find_level(root, ["1.jpg", "2.jpg"]) == root / "full"


def test_one_archive_may_hold_photos_and_masks_of_the_same_names(tmp_path: Path) -> None:
    root = tree(tmp_path, "images/1.png", "panoptic_masks/1.png")
    assert find_level(root, ["1.png"], hints=("image",)) == root / "images"
    assert find_level(root, ["1.png"], hints=("panoptic", "mask")) == root / "panoptic_masks"


def test_two_folders_that_fit_equally_are_told(tmp_path: Path) -> None:
    root = tree(tmp_path, "left/1.png", "right/1.png")
    with pytest.raises(DataError, match="several of its folders hold the files: left, right") as told:
        find_level(root, ["1.png"], key="dataset.train.images", told="s3://b/x.tar")
    assert told.value.where == "s3://b/x.tar" and "dataset.train.images" in told.value.hint


def test_without_a_fit_wrappers_are_taken_off(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/b/1.png", "a/b/2.png")
    assert find_level(root, ["none.png"]) == root / "a" / "b"
    assert find_level(root, []) == unwrapped(root) == root / "a" / "b"


def test_names_are_read_from_both_ends_of_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos are named at one end of a COCO file, masks at the other."""
    monkeypatch.setattr("oneformer.data.sources.level.WINDOW", 4000)
    content = {
        "images": [{"id": i, "file_name": f"ph\u00f6to {i}.jpg"} for i in range(2000)],
        "annotations": [{"image_id": i, "file_name": f"mask_{i}.png", "segments_info": []} for i in range(2000)],
    }
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(content))
    names = file_names(file)
    assert 8 < len(names) <= 32
    assert names[0] == "phöto 0.jpg" and names[-1] == "mask_1999.png"


def test_names_that_lead_elsewhere_and_files_that_are_none_give_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"images": [{"file_name": "/etc/a.jpg"}, {"file_name": "../a.jpg"}, {"file_name": 3}]}')
    assert file_names(file) == []
    file.write_text("")
    assert file_names(file) == file_names(tmp_path / "none.json") == []


def test_label_files_name_images_by_what_stands_before_their_ending(tmp_path: Path) -> None:
    assert file_names(tree(tmp_path, "city/a.png", "b.png", ".hidden")) == ["b", "city/a"]
