"""Claims about which files are images, in which order, and under which names their results are saved."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneformer.errors import DataError
from oneformer.predict.files import distinct_names, find_images, image_ids, natural


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def test_images_come_in_natural_order_and_other_files_are_counted(tmp_path: Path) -> None:
    fill(tmp_path, "i10.png", "i9.PNG", "sub/i1.jpg", "notes.txt", ".hidden.png", ".git/x.png")
    found = find_images(tmp_path)
    assert found.files == ("i9.PNG", "i10.png", "sub/i1.jpg")
    assert found.others == ("notes.txt",)


def test_sub_folders_can_be_left_out(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "sub/b.png")
    assert find_images(tmp_path, recursive=False).files == ("a.png",)


def test_a_single_file_is_taken_as_it_is(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "b.png")
    found = find_images(tmp_path / "b.png")
    assert (found.root, found.files) == (tmp_path, ("b.png",))


def test_the_results_of_an_earlier_run_are_not_taken_for_images(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "results/inference/overlays/a.jpg")
    assert find_images(tmp_path, exclude=tmp_path / "results" / "inference").files == ("a.png",)


def test_a_folder_linked_into_itself_is_walked_once(tmp_path: Path) -> None:
    fill(tmp_path, "sub/a.png")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    assert find_images(tmp_path).files == ("sub/a.png",)


def test_an_empty_folder_and_a_missing_one_are_errors_that_say_what_was_found(tmp_path: Path) -> None:
    fill(tmp_path, "notes.txt")
    with pytest.raises(DataError, match=r"notes\.txt") as empty:
        find_images(tmp_path)
    assert empty.value.exit_code == 2
    with pytest.raises(DataError, match="does not exist"):
        find_images(tmp_path / "photos")


def test_a_stem_of_its_own_is_kept_and_shared_ones_become_distinct() -> None:
    names = distinct_names(["a.png", "a.jpg", "sub/a.png", "b.png", "sub/c.png"])
    assert names == {"a.png": "a_png", "a.jpg": "a_jpg", "sub/a.png": "sub_a_png", "b.png": "b", "sub/c.png": "c"}


PARTS = st.text(alphabet="aAb_./", min_size=1, max_size=6).filter(lambda s: s.strip("./") and not s.startswith("/"))


@given(st.lists(PARTS.map(lambda s: s.strip("/") + ".png"), unique=True, max_size=12))
def test_names_are_always_distinct_whatever_the_case(files: list[str]) -> None:
    names = distinct_names(files)
    assert list(names) == files
    assert len({n.casefold() for n in names.values()}) == len(files)
    assert all("/" not in n for n in names.values())
    assert distinct_names(files) == names


def test_numbers_in_names_are_the_image_ids_when_all_names_are_numbers() -> None:
    assert image_ids(["000000000139", "000000000285"]) == [139, 285]
    assert image_ids(["000139", "b"]) == [1, 2]
    assert image_ids(["01", "1"]) == [1, 2]


def test_natural_order_compares_numbers_as_numbers() -> None:
    assert sorted(["a10", "a9", "A8", "b1"], key=natural) == ["A8", "a9", "a10", "b1"]
