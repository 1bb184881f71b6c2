"""Linear attention without the delta rule: one step of it, and the scan over chunks.

Per head and token, with log decay g <= 0 (0 where nothing decays):

    S_t = Diag(exp(g_t)) S_{t-1} + k_t v_t^T,    o_t = S_t^T q_t

Source: arXiv 2006.16236, eqs. 18-20, without decay; arXiv 2312.06635, eq. 3, with one per channel.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hybridsim.nn.delta_rule import State


def write_and_read(
    q: Float[Tensor, "B H K"],
    k: Float[Tensor, "B H K"],
    v: Float[Tensor, "B H V"],
    state: State,
) -> tuple[Float[Tensor, "B H V"], State]:
    """Return one token's output and the state after it, from a state that has decayed already."""
    state = state + k[..., None] @ v[..., None, :]
    return (q[..., None, :] @ state).squeeze(-2), state


def scan_linear_chunks(
    q_from_start: Float[Tensor, "B H N C K"],
    k_to_end: Float[Tensor, "B H N C K"],
    v: Float[Tensor, "B H N C V"],
    scores: Float[Tensor, "B H N C C"],
    kept: Float[Tensor, "#B #H #N #K 1"],
    state: State,
) -> tuple[Float[Tensor, "B H N C V"], State]:
    """Return outputs and last state from the chunks' own scores.

    Args:
        q_from_start: queries, times the decay from the chunk's start up to each.
        k_to_end: keys, times the decay from each to the chunk's end.
        v: values.
        scores: q_i . k_j times the decay from j to i; zero for j > i.
        kept: the decay over a whole chunk.
        state: before the first chunk.
    """
    kept = kept.expand(-1, -1, q_from_start.shape[2], -1, -1)
    outputs = []
    for n in range(q_from_start.shape[2]):
        outputs.append(q_from_start[:, :, n] @ state + scores[:, :, n] @ v[:, :, n])
        state = state * kept[:, :, n] + k_to_end[:, :, n].mT @ v[:, :, n]
    return torch.stack(outputs, dim=2), state
