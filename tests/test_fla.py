"""Operators and mixers against flash-linear-attention's kernels and layers, on a GPU.

`python tests/fla_matrix.py` prints the errors that are held here.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from fla_layers import LAYERS, layer_errors
from fla_ops import BF16, BOUNDS, FP32, LENGTHS, OPS, gradient_error, op_errors

from hybridsim.kernels.choice import gated_gradients_are_wrong

# fla warns about what it will change and what it was not compiled for.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]


# One process compiles the kernels of an operator (`--dist loadgroup`).
OPERATORS = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in OPS]
)
GATED = ("gated_deltanet", "mamba2")
DTYPES = pytest.mark.parametrize("dtype", [FP32, BF16], ids=["fp32", "bf16"])


@pytest.fixture(autouse=True)
def _fla() -> None:
    # fla-core has the kernels, flash-linear-attention the layers.
    if find_spec("fla") is None or find_spec("fla.layers") is None:
        pytest.skip("flash-linear-attention is not installed")
    torch.use_deterministic_algorithms(False)


def hold(errors: dict[str, float], bound: float) -> None:
    assert errors, "nothing was compared"
    beyond = {what: f"{value:.1e}" for what, value in errors.items() if not value <= bound}
    assert not beyond, f"beyond {bound}: {beyond}"


@DTYPES
@pytest.mark.parametrize("tokens", LENGTHS)
@OPERATORS
def test_operators_are_flas(name: str, tokens: int, dtype: torch.dtype) -> None:
    hold(op_errors(name, dtype, tokens), BOUNDS[dtype])


@pytest.mark.parametrize("tokens", LENGTHS)
@OPERATORS
def test_gradients_are_flas(name: str, tokens: int) -> None:
    if name in GATED and gated_gradients_are_wrong():
        pytest.skip("fla refuses this gradient: Triton miscompiles it on Hopper (fla issue 640)")
    hold({"gradient": gradient_error(name, tokens)}, BOUNDS[FP32])


@DTYPES
@pytest.mark.parametrize("implementation", ["reference", "fla"])
@pytest.mark.parametrize("name", LAYERS)
def test_mixers_are_flas_layers(name: str, implementation: str, dtype: torch.dtype) -> None:
    hold(layer_errors(name, dtype, implementation), BOUNDS[dtype])
