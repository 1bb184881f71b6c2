"""Into how many parts attention over a long cache is cut, and what its kernels are given."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hybridsim import kernels
from hybridsim.mixers.linear_attention import ops

MULTIPROCESSORS = 132
LATENT = {"token_bytes": 2 * 576, "outputs": 32 * 512}
HEADS = {"token_bytes": 2 * 256, "outputs": 4 * 128}

# sequences or key heads, tokens, programs of a multiprocessor, bytes and outputs, parts
CUTS = {
    "one short cache: all parts that are worth their way": (1, 1024, 1, LATENT, 8),
    "one cache fills the device": (1, 32_768, 1, LATENT, 132),
    "one very long cache": (1, 1_048_576, 1, LATENT, 132),
    "eight key heads": (8, 131_072, 2, HEADS, 33),
    "sequences that fill the device alone": (256, 8192, 2, HEADS, 1),
    "many sequences: two parts each, and few partial outputs": (64, 4096, 1, LATENT, 2),
    "four parts each, in one wave": (32, 32_768, 1, LATENT, 4),
}


@pytest.mark.skipif(not kernels.available(), reason="Triton is not installed")
@pytest.mark.parametrize("case", CUTS.values(), ids=CUTS)
def test_parts(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hybridsim.kernels import parts

    rows, capacity, together, sizes, wanted = case
    monkeypatch.setattr(parts, "programs_at_once", lambda device, count: MULTIPROCESSORS * count)
    assert parts.count_parts(rows, capacity, torch.device("cuda"), together, **sizes) == wanted


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("width", [7, 8])
def test_kernels_of_linear_attention_get_even_values(
    width: int, normalize: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(operation: str, *tensors: Tensor, **sizes: Any) -> Any:
        assert operation == "chunk_simple_gla"
        assert sizes["value_dim"] % 2 == 0
        return kernel

    def kernel(q: Tensor, k: Tensor, v: Tensor, g: None, decay: None, state: Tensor) -> Any:
        assert v.shape[-1] == state.shape[-1]
        assert v.shape[-1] % 2 == 0
        return ops.naive_linear_attention(q, k, v, state, False)

    q, k = torch.rand(2, 9, 3, 4), torch.rand(2, 9, 3, 4)
    v, state = torch.randn(2, 9, 3, width), torch.rand(2, 3, 4, width + normalize)
    given: dict[str, Any] = {"normalize": normalize, "chunk_size": 16, "like": q}
    wanted = ops.linear_attention(q, k, v, state, **given)
    monkeypatch.setattr(ops, "choose", chosen)
    for got, expected in zip(ops.linear_attention(q, k, v, state, **given), wanted, strict=True):
        torch.testing.assert_close(got, expected)
