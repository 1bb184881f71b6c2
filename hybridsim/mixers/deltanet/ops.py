"""DeltaNet as functions of tensors: the delta rule with nothing that decays.

    S_t = (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T,   o_t = S_t^T q_t

Source: arXiv 2406.06484, sections 2.2 (recurrence) and 3 (chunked form). The gated delta rule with
g = 0, see nn/delta_rule.py.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hybridsim.kernels.choice import choose
from hybridsim.nn.delta_rule import (
    State,
    from_chunks,
    recurrent_delta_rule,
    scan_chunks,
    to_chunks,
)
from hybridsim.steps import Step


def deltanet(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    beta: Float[Tensor, "B T H"],
    state: State,
    *,
    chunk_size: int,
    like: Tensor,
) -> tuple[Float[Tensor, "B T H V"], State]:
    """Return outputs and last state by the form, and the kernel, that suit the tokens.

    Kernels take their inputs in the dtype of `like`.
    """
    single = q.shape[1] == 1
    operation = "recurrent_delta_rule" if single else "chunk_delta_rule"
    kernel = choose(operation, like, q, key_dim=q.shape[-1], value_dim=v.shape[-1])
    if kernel is not None:
        narrow = (x.to(like.dtype) for x in (q, k, v))
        found: tuple[Tensor, Tensor] = kernel(*narrow, beta, state)
        return found
    if single:
        out, state = recurrent_deltanet(q[:, 0], k[:, 0], v[:, 0], beta[:, 0], state)
        return out[:, None], state
    return chunk_deltanet(q, k, v, beta, state, chunk_size)


def recurrent_deltanet(
    q: Float[Tensor, "B H K"],
    k: Float[Tensor, "B H K"],
    v: Float[Tensor, "B H V"],
    beta: Float[Tensor, "B H"],
    state: State,
) -> tuple[Float[Tensor, "B H V"], State]:
    """Return one token's output and the state after it."""
    return recurrent_delta_rule(q, k, v, torch.zeros_like(beta)[..., None], beta, state)


def chunk_deltanet(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    beta: Float[Tensor, "B T H"],
    state: State,
    chunk_size: int,
) -> tuple[Float[Tensor, "B T H V"], State]:
    """Return outputs and last state, chunk by chunk."""
    tokens = q.shape[1]
    count, size = Step(tokens).chunks(chunk_size)
    q, k, v = (to_chunks(x, count, size) for x in (q, k, v))
    chunk_beta = to_chunks(beta[..., None], count, size)
    no_decay = torch.zeros_like(chunk_beta)
    scores_qk, scores_kk = (q @ k.mT).tril(), k @ k.mT
    out, state = scan_chunks(q, k, v, no_decay, chunk_beta.squeeze(-1), scores_qk, scores_kk, state)
    return from_chunks(out, tokens), state
