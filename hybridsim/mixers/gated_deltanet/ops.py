"""Gated DeltaNet as functions of tensors: the chunked form."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hybridsim.nn.delta_rule import State, from_chunks, scan_chunks, to_chunks
from hybridsim.steps import Step


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
