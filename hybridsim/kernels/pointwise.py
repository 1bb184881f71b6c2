"""Fused pointwise work: one pass over memory where plain torch makes several."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from hybridsim.kernels.activation import activate_gated

TILE = 4096  # numbers that one program normalises at once, where a row is no longer
GATES = ("silu", "sigmoid")


@triton.jit(do_not_specialize=["rows"])
def _norm_kernel(
    x, gate, residual, weight, out, total, rows, row_stride, gate_stride, eps,
    WIDTH: tl.constexpr, GROUPS: tl.constexpr, ROWS: tl.constexpr, PADDED: tl.constexpr,
    OFFSET: tl.constexpr, HAS_RESIDUAL: tl.constexpr, GATE: tl.constexpr, GATE_FIRST: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, PADDED)[None, :]
    inside = (row < rows)[:, None] & (channel < WIDTH)
    # A group is a row of its own, with its own part of the weight.
    token, first = (row // GROUPS)[:, None], (row % GROUPS)[:, None] * WIDTH
    value = tl.load(x + token * row_stride + first + channel, mask=inside, other=0.0)
    dense = row[:, None] * WIDTH + channel
    if HAS_RESIDUAL:
        added = tl.load(residual + dense, mask=inside, other=0.0).to(tl.float32)
        value = (value.to(tl.float32) + added).to(total.dtype.element_ty)
        tl.store(total + dense, value, mask=inside)
    value = value.to(tl.float32)
    if GATE != "none":
        factor = tl.load(gate + token * gate_stride + first + channel, mask=inside, other=0.0)
        factor = factor.to(tl.float32)
        factor = factor * tl.sigmoid(factor) if GATE == "silu" else tl.sigmoid(factor)
        if GATE_FIRST:
            value *= factor
    inverse = tl.rsqrt(tl.sum(value * value, 1) / WIDTH + eps)[:, None]
    scale = tl.load(weight + first + channel, mask=inside, other=0.0).to(tl.float32) + OFFSET
    value = value * inverse * scale
    if GATE != "none" and not GATE_FIRST:
        value *= factor
    tl.store(out + dense, value, mask=inside)


def _normalize(
    x: Tensor, weight: Tensor, eps: float, out: Tensor, *, offset: bool, groups: int = 1,
    residual: Tensor | None = None, total: Tensor | None = None,
    gate: Tensor | None = None, activation: str = "none", gate_first: bool = False,
) -> None:  # fmt: skip
    width = x.shape[-1] // groups
    x = x.reshape(-1, x.shape[-1])
    rows, padded = x.shape[0] * groups, triton.next_power_of_2(width)
    if gate is not None:
        gate = gate.reshape(x.shape)
        assert gate.stride(1) == 1, "a gate's channels must be contiguous"
    assert x.stride(1) == 1, "channels must be contiguous"
    assert weight.shape[0] == width * groups, "a weight a channel"
    # Few rows are spread over the device, many share programs.
    together = max(1, min(TILE // padded, triton.next_power_of_2(rows // 1024 + 1)))
    _norm_kernel[(triton.cdiv(rows, together),)](
        x, gate, residual, weight, out, total,
        rows, x.stride(0), 0 if gate is None else gate.stride(0), eps,
        WIDTH=width, GROUPS=groups, ROWS=together, PADDED=padded, OFFSET=int(offset),
        HAS_RESIDUAL=residual is not None, GATE=activation, GATE_FIRST=gate_first,
        num_warps=min(max(together * padded // 512, 1), 16),
    )  # fmt: skip


def rms_norm(
    x: Float[Tensor, "*axes D"],
    weight: Float[Tensor, " D"],
    eps: float,
    unit_offset: bool = False,
    residual: Float[Tensor, "*axes D"] | None = None,
    groups: int = 1,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return x / sqrt(mean(x^2) + eps) * weight; with a residual, of x + residual, and that sum.

    Source: arXiv 1910.07467. As nn.norm.RMSNorm; the sum is rounded before it is normalised, as
    the separate addition would round it.

    Args:
        x: [..., D], its last axis contiguous.
        weight: D numbers.
        eps: added to the mean square.
        unit_offset: multiply by 1 + weight.
        residual: added to x first.
        groups: equal parts of the channels, each with a mean square of its own.
    """
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if residual is None:
        _normalize(x, weight, eps, out, offset=unit_offset, groups=groups)
        return out
    total = torch.empty_like(out)
    _normalize(
        x, weight, eps, out, offset=unit_offset, groups=groups,
        residual=residual.contiguous(), total=total,
    )  # fmt: skip
    return out, total


def gated_rms_norm(
    x: Float[Tensor, "*axes D"],
    gate: Float[Tensor, "*axes D"],
    weight: Float[Tensor, " D"],
    eps: float,
    activation: str = "silu",
    *,
    gate_first: bool = False,
    groups: int = 1,
) -> Float[Tensor, "*axes D"]:
    """Return norm(x) act(gate), or norm(x act(gate)), in the gate's dtype.

    Args:
        x: what a recurrence gave, in any precision.
        gate: its gate, before the activation.
        weight: D numbers.
        eps: added to the mean square.
        activation: one of GATES.
        gate_first: gate before normalising, as Mamba-2 does.
        groups: equal parts of the channels, each with a mean square of its own.
    """
    assert activation in GATES, activation
    out = torch.empty(x.shape, dtype=gate.dtype, device=x.device)
    _normalize(
        x, weight, eps, out, offset=False, groups=groups,
        gate=gate, activation=activation, gate_first=gate_first,
    )  # fmt: skip
    return out


@triton.jit(do_not_specialize=["rows"])
def _gate_kernel(
    gate_up, out, rows, row_stride, scale,
    INNER: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, LIMIT: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (row < rows) & (column < INNER)
    at = gate_up + row * row_stride + column
    gate = tl.load(at, mask=inside, other=0.0).to(tl.float32) * scale
    up = tl.load(at + INNER, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * INNER + column, activate_gated(gate, up, "silu", LIMIT), mask=inside)


def silu_mul(
    gate_up: Float[Tensor, "*axes I2"], gate_scale: float = 1.0, limit: float | None = None
) -> Float[Tensor, "*axes I"]:
    """Return silu(gate_scale * gate) * up, where `gate_up` holds gate, then up.

    As nn.activation.gated with "silu": with a limit L, min(silu(.), L) * clip(up, -L, L).
    """
    rows = gate_up.reshape(-1, gate_up.shape[-1])
    assert rows.stride(1) == 1, "channels must be contiguous"
    inner = rows.shape[1] // 2
    out = torch.empty(*gate_up.shape[:-1], inner, dtype=gate_up.dtype, device=gate_up.device)
    columns = min(triton.next_power_of_2(inner), 1024)
    together = max(1, min(2048 // columns, rows.shape[0] // 256))
    together = triton.next_power_of_2(together)
    _gate_kernel[(triton.cdiv(rows.shape[0], together), triton.cdiv(inner, columns))](
        rows, out, rows.shape[0], rows.stride(0), gate_scale,
        INNER=inner, COLUMNS=columns, ROWS=together, LIMIT=limit, num_warps=4,
    )  # fmt: skip
    return out
