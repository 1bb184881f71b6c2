"""Calls of flash-linear-attention (fla-core 0.6), with the arguments that our mixers have.

Layouts are [B, T, H, K] and states [B, H, K, V] in float32. `chunk_*` take any number of tokens and
are differentiable; `recurrent_*` take one token, and where fla can, write the state in place.
"""

from __future__ import annotations

import torch
from torch import Tensor

SAFE_BOUND = -5.0  # fla's faster products for bounded decays hold down to it


def chunk_kda(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    raw_decay: Tensor,
    raw_strength: Tensor,
    A_log: Tensor,
    dt_bias: Tensor,
    state: Tensor,
    lower_bound: float | None,
    negative_eigenvalues: bool,
) -> tuple[Tensor, Tensor]:
    """Kimi Delta Attention; norms, decays and write strengths are computed inside."""
    from fla.ops.kda import chunk_kda as kernel

    out, state = kernel(
        q,
        k,
        v,
        raw_decay,
        raw_strength,
        A_log=A_log.float(),
        dt_bias=dt_bias.float(),
        initial_state=state,
        output_final_state=True,
        use_qk_l2norm_in_kernel=True,
        use_gate_in_kernel=True,
        use_beta_sigmoid_in_kernel=True,
        allow_neg_eigval=negative_eigenvalues,
        safe_gate=lower_bound is not None and SAFE_BOUND <= lower_bound < 0,
        lower_bound=lower_bound,
    )
    return out, state


def recurrent_kda(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    raw_decay: Tensor,
    raw_strength: Tensor,
    A_log: Tensor,
    dt_bias: Tensor,
    state: Tensor,
    lower_bound: float | None,
    negative_eigenvalues: bool,
) -> tuple[Tensor, Tensor]:
    """One token of Kimi Delta Attention; the state is updated in place."""
    from fla.ops.kda.fused_recurrent import fused_recurrent_kda_fwd

    out, state = fused_recurrent_kda_fwd(
        q=q.contiguous(),
        k=k.contiguous(),
        v=v.contiguous(),
        g=raw_decay.contiguous(),
        beta=raw_strength.contiguous(),
        A_log=A_log.float(),
        dt_bias=dt_bias.float(),
        initial_state=state,
        inplace_final_state=True,
        use_qk_l2norm_in_kernel=True,
        use_gate_in_kernel=True,
        use_beta_sigmoid_in_kernel=True,
        allow_neg_eigval=negative_eigenvalues,
        lower_bound=lower_bound,
        out=torch.empty_like(v, memory_format=torch.contiguous_format),
    )
    return out, state


def chunk_gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    raw_decay: Tensor,
    raw_strength: Tensor,
    A_log: Tensor,
    dt_bias: Tensor,
    state: Tensor,
    negative_eigenvalues: bool,
) -> tuple[Tensor, Tensor]:
    """Gated DeltaNet; norms, decays and write strengths are computed inside."""
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule as kernel

    out, state = kernel(
        q,
        k,
        v,
        raw_decay,
        raw_strength,
        A_log=A_log.float(),
        dt_bias=dt_bias.float(),
        initial_state=state,
        output_final_state=True,
        use_qk_l2norm_in_kernel=True,
        use_gate_in_kernel=True,
        use_beta_sigmoid_in_kernel=True,
        allow_neg_eigval=negative_eigenvalues,
    )
    return out, state


def recurrent_gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    raw_decay: Tensor,
    raw_strength: Tensor,
    A_log: Tensor,
    dt_bias: Tensor,
    state: Tensor,
    negative_eigenvalues: bool,
) -> tuple[Tensor, Tensor]:
    """One token of Gated DeltaNet."""
    from fla.ops.gated_delta_rule import fused_recurrent_gated_delta_rule as kernel

    out, state = kernel(
        q,
        k,
        v,
        raw_decay,
        beta=raw_strength,
        A_log=A_log.float(),
        dt_bias=dt_bias.float(),
        initial_state=state,
        output_final_state=True,
        use_qk_l2norm_in_kernel=True,
        use_gate_in_kernel=True,
        use_beta_sigmoid_in_kernel=True,
        allow_neg_eigval=negative_eigenvalues,
    )
    return out, state


def chunk_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The delta rule with nothing that decays; q is scaled already, q and k normalised."""
    from fla.ops.delta_rule import chunk_delta_rule as kernel

    out, state = kernel(q, k, v, beta, scale=1.0, initial_state=state, output_final_state=True)
    return out, state


def recurrent_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One token of the delta rule."""
    from fla.ops.delta_rule import fused_recurrent_delta_rule as kernel

    out, state = kernel(q, k, v, beta, scale=1.0, initial_state=state, output_final_state=True)
    return out, state


def chunk_gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Gated linear attention with log decays [B, T, H, K]; q is scaled already."""
    from fla.ops.gla import chunk_gla as kernel

    out, state = kernel(q, k, v, g, scale=1.0, initial_state=state, output_final_state=True)
    return out, state


def recurrent_gla(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One token of gated linear attention."""
    from fla.ops.gla import fused_recurrent_gla as kernel

    out, state = kernel(q, k, v, gk=g, scale=1.0, initial_state=state, output_final_state=True)
    return out, state


def chunk_simple_gla(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, head_decay: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Linear attention, log decays g [B, T, H], head_decay [H] or none; q is scaled already."""
    from fla.ops.simple_gla import chunk_simple_gla as kernel

    out, state = kernel(
        q, k, v, g, head_decay, scale=1.0, initial_state=state, output_final_state=True
    )
    return out, state


def recurrent_simple_gla(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, head_decay: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One token of `chunk_simple_gla`."""
    from fla.ops.simple_gla import fused_recurrent_simple_gla as kernel

    out, state = kernel(
        q, k, v, g, head_decay, scale=1.0, initial_state=state, output_final_state=True
    )
    return out, state


def short_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, past: Tensor | None, activation: str
) -> Tensor:
    """A causal depthwise convolution and SiLU or nothing, after columns past [B, W - 1, C]."""
    from fla.modules.causal_conv1d import causal_conv1d

    before = None
    if past is not None:  # fla wants W columns, channels first; the oldest meets no weight
        before = past.new_zeros(x.shape[0], x.shape[2], weight.shape[1])
        before[..., 1:] = past.mT
    out: Tensor = causal_conv1d(
        x, weight, bias, initial_state=before, activation="silu" if activation == "silu" else None
    )[0]
    return out


def gated_rms_norm(
    x: Tensor,
    gate: Tensor,
    weight: Tensor,
    eps: float,
    activation: str,
    *,
    gate_first: bool,
    groups: int,
) -> Tensor:
    """RMS norm of x in one group, times the activation of the gate, both [..., D]."""
    assert groups == 1
    assert not gate_first
    from fla.modules.norm.fused_norm_gate import rms_norm_gated

    out: Tensor = rms_norm_gated(x, gate, weight, None, activation=activation, eps=eps)
    return out
