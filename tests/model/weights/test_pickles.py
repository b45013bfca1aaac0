"""Pickled weight files of others: the same tensors as torch and numpy read, their objects never made."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.weights.foreign import omega, with_omega
from oneformer.errors import CheckpointError
from oneformer.model.weights.load import read_state_dict
from oneformer.model.weights.omega import MOST, plain_settings
from oneformer.model.weights.pickles import Stand, in_memory, read_pickled

TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_torch_files_give_the_tensors_that_torch_reads(tmp_path: Path, dtype: torch.dtype) -> None:
    base = torch.arange(24).to(dtype).reshape(4, 6)
    content = OrderedDict(
        whole=base,
        turned=base.t(),
        part=base[1:3, 2:5],
        scalar=base[0, 1],
        empty=base[:0],
        learned=torch.nn.Parameter(base.clone(), requires_grad=dtype.is_floating_point),
    )
    torch.save(content, tmp_path / "x.pth")
    want = torch.load(tmp_path / "x.pth", weights_only=True)
    got = in_memory(read_pickled(tmp_path / "x.pth"), tmp_path)
    assert got.keys() == want.keys()
    for name in want:
        assert got[name].dtype == want[name].dtype
        assert got[name].shape == want[name].shape
        assert torch.equal(got[name], want[name].detach())


def test_files_of_old_torch_are_read_by_torch_itself(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.arange(3.0)}}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert read_state_dict(tmp_path / "old.pth")["w"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["<f4", "<f8", "<f2", "<i8", "|u1", "|b1"])
def test_pickled_arrays_give_the_tensors_that_numpy_reads(tmp_path: Path, protocol: int, kind: str) -> None:
    base = np.arange(12).reshape(3, 4).astype(kind)
    arrays = {"c": base, "f": np.asfortranarray(base), "one": base[:, :1].copy(), "none": base[:0]}
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}, protocol=protocol))
    got = read_state_dict(path)
    for name, array in arrays.items():
        assert torch.equal(got[name], torch.from_numpy(np.ascontiguousarray(array))), name


def test_arrays_that_python_2_wrote_are_read(tmp_path: Path) -> None:
    """Its strings are bytes: raw values and keys alike."""
    raw = np.array([1.5, -2.0], "<f4").tobytes()
    text = b"".join(
        [
            b"\x80\x02}U\x05modelq\x01}U\x01wq\x02",
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R",
            b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U",
            bytes([len(raw)]),
            raw,
            b"tbss.",
        ]
    )
    (tmp_path / "x.pkl").write_bytes(text)
    assert read_state_dict(tmp_path / "x.pkl")["w"].tolist() == [1.5, -2.0]


def test_objects_of_known_programs_are_kept_as_what_they_were_given_and_never_made(tmp_path: Path) -> None:
    def save() -> None:
        settings = omega({"model": {"depths": [2, 6], "name": "swin", "scale": None}})
        torch.save({"hyper_parameters": settings, "w": torch.ones(2)}, tmp_path / "x.pth")

    with_omega(save)
    content = read_pickled(tmp_path / "x.pth")
    assert isinstance(content["hyper_parameters"], Stand)
    assert content["hyper_parameters"].of == "omegaconf.DictConfig"
    assert plain_settings(content["hyper_parameters"]) == {"model": {"depths": [2, 6], "name": "swin", "scale": None}}
    assert read_state_dict(tmp_path / "x.pth")["w"].tolist() == [1, 1]


def test_settings_that_nest_without_end_are_given_up() -> None:
    deep: Any = 1
    for _ in range(40):
        deep = [deep, deep]  # 2**40 values in 40 lists
    assert plain_settings(deep) is None
    assert plain_settings(list(range(MOST))) is None


@pytest.mark.parametrize(
    "value", [np.array([1], ">f4"), np.array(["a"], object), np.array([1j]), np.array(["text"])], ids=str
)
def test_arrays_that_hold_no_plain_numbers_are_refused(tmp_path: Path, value: np.ndarray) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"model": {"w": value}}, protocol=2))
    with pytest.raises(CheckpointError, match="no numbers read here"):
        read_state_dict(path)
