"""The gated delta rule: the recurrence that defines it, one step of it, and the scan over chunks.

Per head and token, with log decay g <= 0 and write strength beta:

    S_t = Diag(exp(g_t)) S_{t-1} + beta_t k_t (v_t - S~^T k_t)^T,  S~ = Diag(exp(g_t)) S_{t-1}
    o_t = S_t^T q_t

which is (I - beta_t k_t k_t^T) Diag(exp(g_t)) S_{t-1} + beta_t k_t v_t^T. Source: Gated DeltaNet,
arXiv 2412.06464, eq. 10 (g one number a head); Kimi Linear, arXiv 2510.26692, eq. 1 (g per
channel).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

State = Float[Tensor, "B H K V"]


def write_strength(
    raw: Float[Tensor, "B T H"], negative_eigenvalues: bool
) -> Float[Tensor, "B T H"]:
    """Return beta = sigmoid(raw), or 2 sigmoid(raw).

    I - beta k k^T has the eigenvalue 1 - beta along a unit k: in (0, 1), or in (-1, 1), where a
    token may turn what it finds around. Source: Grazzi et al., arXiv 2411.12537.
    """
    strength = raw.sigmoid()
    return 2 * strength if negative_eigenvalues else strength


def naive_delta_rule(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    g: Float[Tensor, "B T H G"],
    beta: Float[Tensor, "B T H"],
    state: State,
) -> tuple[Float[Tensor, "B T H V"], State]:
    """Return outputs and last state as the equation has them, matrix by matrix; G is 1 or K.

    The reference that the other forms are tested against; slow.
    """
    identity = torch.eye(k.shape[-1], dtype=k.dtype, device=k.device)
    outputs = []
    for t in range(q.shape[1]):
        strength = beta[:, t, :, None, None]
        forget = identity - strength * torch.einsum("bhk,bhl->bhkl", k[:, t], k[:, t])
        decayed = g[:, t, :, :, None].exp() * state
        write = strength * torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        state = torch.einsum("bhkl,bhlv->bhkv", forget, decayed) + write
        outputs.append(torch.einsum("bhkv,bhk->bhv", state, q[:, t]))
    return torch.stack(outputs, dim=1), state


def recurrent_delta_rule(
    q: Float[Tensor, "B H K"],
    k: Float[Tensor, "B H K"],
    v: Float[Tensor, "B H V"],
    g: Float[Tensor, "B H G"],
    beta: Float[Tensor, "B H"],
    state: State,
) -> tuple[Float[Tensor, "B H V"], State]:
    """Return one token's output and the state after it: two reads of the state and one write."""
    state = state * g.exp()[..., None]
    known = (k[..., None, :] @ state).squeeze(-2)  # [B, H, V]
    change = beta[..., None] * (v - known)
    state = state + k[..., None] @ change[..., None, :]
    return (q[..., None, :] @ state).squeeze(-2), state


def to_chunks(x: Float[Tensor, "B T H X"], count: int, size: int) -> Float[Tensor, "B H N C X"]:
    """Return x cut into `count` chunks of `size` tokens, zeros after its end."""
    batch, tokens, heads, width = x.shape
    if tokens < count * size:
        x = torch.cat((x, x.new_zeros(batch, count * size - tokens, heads, width)), dim=1)
    return x.reshape(batch, count, size, heads, width).permute(0, 3, 1, 2, 4)


def from_chunks(x: Float[Tensor, "B H N C X"], tokens: int) -> Float[Tensor, "B T H X"]:
    """Return the first `tokens` tokens of the chunks."""
    batch, heads, count, size, width = x.shape
    return x.permute(0, 2, 3, 1, 4).reshape(batch, count * size, heads, width)[:, :tokens]


def scan_chunks(
    q: Float[Tensor, "B H N C K"],
    k: Float[Tensor, "B H N C K"],
    v: Float[Tensor, "B H N C V"],
    decay: Float[Tensor, "B H N C G"],
    beta: Float[Tensor, "B H N C"],
    scores_qk: Float[Tensor, "B H N C C"],
    scores_kk: Float[Tensor, "B H N C C"],
    state: State,
) -> tuple[Float[Tensor, "B H N C V"], State]:
    """Return outputs and last state from the chunks' own scores.

    Within a chunk the changes Delta of all tokens solve a triangular system,

        (I + tril(beta * scores_kk, -1)) Delta = beta (V - (K * exp(decay)) S),

    solved once for both terms on the right, before S is known (UT transform, arXiv 2406.06484).

    Args:
        q: queries, scaled; k, v: keys and values.
        decay: log decay from the chunk's start up to each token, its own included.
        beta: write strengths.
        scores_qk: q_i . k_j times the decay from j to i; zero for j > i.
        scores_kk: the same for keys.
        state: before the first chunk.
    """
    value_dim = v.shape[-1]
    grown = decay.exp()
    system = torch.tril(beta[..., None] * scores_kk, -1)
    right = torch.cat((v, k * grown), dim=-1) * beta[..., None]
    solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    new_values, reads = solved[..., :value_dim], solved[..., value_dim:]
    last = decay[..., -1:, :]
    q_from_start, k_to_end = q * grown, k * (last - decay).exp()
    kept = last.squeeze(-2).exp()[..., None]  # [B, H, N, G, 1]
    outputs = []
    for n in range(q.shape[2]):
        change = new_values[:, :, n] - reads[:, :, n] @ state
        outputs.append(q_from_start[:, :, n] @ state + scores_qk[:, :, n] @ change)
        state = state * kept[:, :, n] + k_to_end[:, :, n].mT @ change
    return torch.stack(outputs, dim=2), state
