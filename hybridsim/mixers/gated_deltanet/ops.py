"""Gated DeltaNet as functions of tensors: the decay, the chunked form, and the choice of forms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hybridsim.kernels.choice import choose
from hybridsim.nn.delta_rule import (
    State,
    from_chunks,
    recurrent_delta_rule,
    scan_chunks,
    to_chunks,
    write_strength,
)
from hybridsim.nn.norm import l2_normalize
from hybridsim.nn.precision import wide
from hybridsim.steps import Step


def gated_delta_rule(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T HV V"],
    raw_decay: Float[Tensor, "B T HV"],
    raw_strength: Float[Tensor, "B T HV"],
    A_log: Float[Tensor, " HV"],
    dt_bias: Float[Tensor, " HV"],
    state: Float[Tensor, "B HV K V"],
    *,
    negative_eigenvalues: bool,
    chunk_size: int,
) -> tuple[Float[Tensor, "B T HV V"], Float[Tensor, "B HV K V"]]:
    """Return outputs and last state by the form, and the kernel, that suit the tokens.

    Args:
        q, k: queries and keys before their norms, each shared by HV / H value heads.
        v: values.
        raw_decay: what becomes the log decay -exp(A_log) softplus(raw_decay + dt_bias).
        raw_strength: what becomes a write strength, see `write_strength`.
        A_log, dt_bias: parameters of the decay.
        state: before the first token.
        negative_eigenvalues, chunk_size: the mixer's settings.
    """
    single = q.shape[1] == 1
    operation = "recurrent_gated_delta_rule" if single else "chunk_gated_delta_rule"
    kernel = choose(operation, q, A_log, key_dim=q.shape[-1], value_dim=v.shape[-1])
    if kernel is not None:
        inputs = (q, k, v, raw_decay, raw_strength, A_log, dt_bias, state)
        found: tuple[Tensor, Tensor] = kernel(*inputs, negative_eigenvalues)
        return found
    q, k, v = l2_normalize(wide(q)) * q.shape[-1] ** -0.5, l2_normalize(wide(k)), wide(v)
    q, k = (x.repeat_interleave(v.shape[2] // x.shape[2], dim=-2) for x in (q, k))
    g = -wide(A_log).exp() * F.softplus(wide(raw_decay) + wide(dt_bias))
    beta = write_strength(wide(raw_strength), negative_eigenvalues)
    if single:
        token = (q[:, 0], k[:, 0], v[:, 0], g[:, 0, :, None], beta[:, 0])
        out, state = recurrent_delta_rule(*token, state)
        return out[:, None], state
    return chunk_gated_delta_rule(q, k, v, g, beta, state, chunk_size)


def chunk_gated_delta_rule(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    g: Float[Tensor, "B T H"],
    beta: Float[Tensor, "B T H"],
    state: State,
    chunk_size: int,
) -> tuple[Float[Tensor, "B T H V"], State]:
    """Return outputs and last state of the delta rule with a decay per head, chunk by chunk."""
    tokens = q.shape[1]
    count, size = Step(tokens).chunks(chunk_size)
    q, k, v = (to_chunks(x, count, size) for x in (q, k, v))
    decay = to_chunks(g[..., None], count, size).cumsum(dim=-2)
    chunk_beta = to_chunks(beta[..., None], count, size).squeeze(-1)
    # The decay from j to i is one number a pair, so it multiplies the plain scores.
    future = torch.ones(size, size, dtype=torch.bool, device=q.device).triu(1)
    kept = (decay - decay.mT).masked_fill(future, -torch.inf).exp()
    out, state = scan_chunks(q, k, v, decay, chunk_beta, q @ k.mT * kept, k @ k.mT * kept, state)
    return from_chunks(out, tokens), state
