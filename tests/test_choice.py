"""Which implementation runs where: on CPUs and on the meta device always the reference."""

from __future__ import annotations

import pytest
import torch

from hybridsim import build_model
from hybridsim.kernels import choice


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("operation", choice.TABLE)
def test_there_is_no_kernel_off_the_gpu(operation: str, device: str) -> None:
    x = torch.empty(2, 4, 2, 64, dtype=torch.bfloat16, device=device)
    sizes = {"key_dim": 64, "value_dim": 64, "slots": 8, "activation": "silu", "groups": 1}
    found = choice.choose(
        operation, x, gate_first=False, num_experts=8, rows=2, dtypes={x.dtype}, **sizes
    )
    assert found is None


def test_the_report_says_what_ran() -> None:
    choice.clear_report()
    model = build_model("kimi_linear_tiny", device="cpu")
    with torch.no_grad():
        model(torch.zeros(1, 5, dtype=torch.long))
    report = choice.report()
    assert report["chunk_kda"] == choice.REFERENCE
    assert "recurrent_kda" not in report
    choice.clear_report()
    assert choice.report() == {}


def test_an_old_fla_is_none() -> None:
    numbers = choice._version_numbers
    assert numbers("0.5.1") < choice.FLA_SINCE <= numbers("0.6.0") < numbers("1.0")
    assert numbers("unknown") < choice.FLA_SINCE


def test_forcing_ends_where_it_began() -> None:
    assert choice.allowed("chunk_kda")
    with choice.forcing("reference", "chunk_kda"):
        assert not choice.allowed("chunk_kda")
        assert choice.allowed("chunk_gla")
        with choice.forcing("reference"):
            assert not choice.allowed("chunk_gla")
    assert choice.allowed("chunk_kda")


def test_every_candidate_is_a_function_of_its_module() -> None:
    pytest.importorskip("triton")
    for candidates in choice.TABLE.values():
        for candidate in candidates:
            assert callable(candidate.load())
