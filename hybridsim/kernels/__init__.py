"""Our own Triton kernels, as plain functions of tensors, for what no library brings near its limit.

Only forward passes: training differentiates the references. Every kernel takes bfloat16 or float32
and accumulates in float32. Where a cache is read, `length` is a tensor of one int32 on the device,
so that a captured CUDA graph stays valid while a sequence grows.

Importing this package imports no Triton; the first use of a kernel does.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridsim.kernels.absorbed import absorb as absorb
    from hybridsim.kernels.absorbed import latent_values as latent_values
    from hybridsim.kernels.decode import block_attention as block_attention
    from hybridsim.kernels.decode import decode_attention as decode_attention
    from hybridsim.kernels.experts import moe_small as moe_small
    from hybridsim.kernels.greedy import likeliest as likeliest
    from hybridsim.kernels.indexer import index_scores as index_scores
    from hybridsim.kernels.kda import kda_step as kda_step
    from hybridsim.kernels.latent import latent_decode_attention as latent_decode_attention
    from hybridsim.kernels.latent import selected_attention as selected_attention
    from hybridsim.kernels.pointwise import gated_rms_norm as gated_rms_norm
    from hybridsim.kernels.pointwise import rms_norm as rms_norm
    from hybridsim.kernels.pointwise import silu_mul as silu_mul
    from hybridsim.kernels.products import added_linear as added_linear
    from hybridsim.kernels.products import linears as linears
    from hybridsim.kernels.products import normed_linears as normed_linears
    from hybridsim.kernels.quantize import quantize_rows as quantize_rows
    from hybridsim.kernels.router import route_beside as route_beside
    from hybridsim.kernels.short_conv import short_conv_step as short_conv_step

_MODULES = {
    "decode_attention": "decode",
    "latent_decode_attention": "latent",
    "selected_attention": "latent",
    "block_attention": "decode",
    "index_scores": "indexer",
    "moe_small": "experts",
    "selective_scan": "scan",
    "route": "router",
    "route_beside": "router",
    "kda_step": "kda",
    "absorb": "absorbed",
    "latent_values": "absorbed",
    "sum_of_rows": "rows",
    "rotate": "rotary",
    "rms_norm": "pointwise",
    "gated_rms_norm": "pointwise",
    "silu_mul": "pointwise",
    "linears": "products",
    "normed_linears": "products",
    "added_linear": "products",
    "short_conv_step": "short_conv",
    "quantize_rows": "quantize",
    "likeliest": "greedy",
}


def available() -> bool:
    """Return whether Triton can be imported here."""
    return find_spec("triton") is not None


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
