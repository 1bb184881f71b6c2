"""Build a model from a spec."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hybridsim.errors import HybridsimError, unknown
from hybridsim.graph import ModelGraph, build_graph
from hybridsim.model.model import HybridLM
from hybridsim.spec.load import load_spec
from hybridsim.spec.schema import ModelSpec

TORCH_DTYPES = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
_DEFAULT_DTYPES = {"cpu": "fp32", "cuda": "bf16", "meta": "bf16"}


def build_model(
    spec: ModelSpec | ModelGraph | str | Path | Mapping[str, Any],
    device: str = "meta",
    *,
    dtype: str | None = None,
    seed: int = 0,
) -> HybridLM:
    """Return the model of a spec, initialised at random on a real device.

    Args:
        spec: a spec, its graph, or what `load_spec` takes.
        device: "meta" (shapes only, any size at once), "cpu" or "cuda".
        dtype: "fp64", "fp32", "bf16" or "fp16"; by default fp32 on a CPU, else bf16. Decay
            parameters of linear attention are in fp32 whatever it is.
        seed: of the initial weights.

    Raises:
        SpecError: the spec is not valid, or the dtype unknown.
        HybridsimError: the device is unknown or absent.
    """
    model = empty_model(spec, device, dtype=dtype)
    if not device.startswith("meta"):
        initialize(model, seed)
    return model


def empty_model(
    spec: ModelSpec | ModelGraph | str | Path | Mapping[str, Any],
    device: str = "meta",
    *,
    dtype: str | None = None,
) -> HybridLM:
    """Return the model of a spec with weights that are not set; arguments as in `build_model`."""
    graph = _graph(spec)
    kind = device.partition(":")[0]
    if kind not in _DEFAULT_DTYPES:
        raise unknown("device", device, _DEFAULT_DTYPES, "device")
    if kind == "cuda" and not torch.cuda.is_available():
        raise HybridsimError(f"device={device}: torch sees no CUDA device here")
    dtype = dtype or _DEFAULT_DTYPES[kind]
    if dtype not in TORCH_DTYPES:
        raise unknown("dtype", dtype, TORCH_DTYPES, "dtype")
    with new_tensors(device, dtype):
        return HybridLM(graph)


@contextmanager
def new_tensors(device: str, dtype: str) -> Iterator[None]:
    """Make modules inside with their weights on a device and in a dtype of TORCH_DTYPES."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(TORCH_DTYPES[dtype])
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def _graph(spec: ModelSpec | ModelGraph | str | Path | Mapping[str, Any]) -> ModelGraph:
    if isinstance(spec, ModelGraph):
        return spec
    return build_graph(spec if isinstance(spec, ModelSpec) else load_spec(spec))


@torch.no_grad()
def initialize(model: nn.Module, seed: int) -> None:
    """Set the weights at random: normal with deviation 1 / sqrt(inputs), decays as their papers do.

    Decay rates exp(A_log) are uniform in 1..16 and the softplus of dt_bias log-uniform in
    0.001..0.1 (Mamba-2, arXiv 2405.21060), so that heads remember from tens to thousands of tokens;
    rates per channel and state are 1, 2, .. S (Mamba, arXiv 2312.00752, section 3.6). Biases start
    at zero.
    """
    generator = torch.Generator(device=next(model.parameters()).device).manual_seed(seed)
    for name, parameter in model.named_parameters():
        last = name.rpartition(".")[2]
        if last == "A_log" and parameter.dim() == 2:
            rates = torch.arange(1, parameter.shape[1] + 1, device=parameter.device)
            parameter.copy_(rates.log().expand_as(parameter))
        elif last == "A_log":
            parameter.uniform_(1, 16, generator=generator).log_()
        elif last == "dt_bias":
            low, high = math.log(0.001), math.log(0.1)
            step = parameter.uniform_(low, high, generator=generator).exp()
            parameter.copy_(step + torch.log(-torch.expm1(-step)))
        elif last.endswith("bias"):
            parameter.zero_()
        elif name.startswith("embed."):
            parameter.normal_(0, 0.02, generator=generator)
        elif parameter.dim() == 3 or parameter.dim() == 2:  # stacked experts, [E, inputs, outputs]
            parameter.normal_(0, parameter.shape[1] ** -0.5, generator=generator)
