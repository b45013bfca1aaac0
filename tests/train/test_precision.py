"""Every spelling of a precision means what it says."""

from __future__ import annotations

import pytest
import torch

from oneformer.errors import UserError
from oneformer.train.precision import bf16_is_fast, lightning_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("fp32", "32-true"), (32, "32-true"), ("32", "32-true"), ("bf16", "bf16-mixed"), ("bf16-mixed", "bf16-mixed")],
)
def test_spellings(name: str | int, meant: str) -> None:
    assert lightning_precision(name, CPU) == meant


def test_auto_is_bf16_only_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "amx_bf16": False})
    assert lightning_precision("auto", CPU) == "32-true"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "amx_bf16": True})
    assert lightning_precision("auto", CPU) == "bf16-mixed"


def test_a_processor_that_tells_nothing_has_no_fast_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not bf16_is_fast(CPU)


@pytest.mark.parametrize("name", ["fp16", "16-mixed"])
def test_fp16_is_refused_on_a_cpu(name: str) -> None:
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        lightning_precision(name, CPU)
