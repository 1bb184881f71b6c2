"""The recurrence of Mamba-2 as functions of tensors: reference, one step, chunked form.

Per head with rate a < 0, and with B and C shared by the heads of a group:

    S_t = exp(dt_t a) S_{t-1} + dt_t B_t x_t^T,  y_t = S_t^T C_t

Source: Mamba-2, arXiv 2405.21060, eq. 1 with A a scalar times the identity; the time step dt is
that of Mamba, arXiv 2312.00752, section 3.2.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hybridsim.kernels.choice import choose
from hybridsim.nn.delta_rule import from_chunks, to_chunks
from hybridsim.nn.linear_attention import scan_linear_chunks, write_and_read
from hybridsim.steps import Step

State = Float[Tensor, "B H S P"]


def state_space(
    x: Float[Tensor, "B T H P"],
    dt: Float[Tensor, "B T H"],
    rate: Float[Tensor, H],
    b: Float[Tensor, "B T G S"],
    c: Float[Tensor, "B T G S"],
    state: State,
    *,
    chunk_size: int,
    like: Tensor,
) -> tuple[Float[Tensor, "B T H P"], State]:
    """Return outputs and last state by the form, and the kernel, that suit the tokens.

    As linear attention: queries C, keys B, values dt x, log decays dt a. Kernels take them in the
    dtype of `like`, but for the decays.
    """
    single, heads = x.shape[1] == 1, x.shape[2]
    operation = "recurrent_simple_gla" if single else "chunk_simple_gla"
    sizes = {"key_dim": b.shape[-1], "value_dim": x.shape[-1], "gated": True}
    kernel = choose(operation, like, x, **sizes)
    if kernel is not None:
        q, k = (_per_head(each.to(like.dtype), 2, heads) for each in (c, b))
        v = (x * dt[..., None]).to(like.dtype)
        found: tuple[Tensor, Tensor] = kernel(q, k, v, dt * rate, None, state)
        return found
    if single:
        out, state = recurrent_ssd(x[:, 0], dt[:, 0], rate, b[:, 0], c[:, 0], state)
        return out[:, None], state
    return chunk_ssd(x, dt, rate, b, c, state, chunk_size)


def naive_ssd(
    x: Float[Tensor, "B T H P"],
    dt: Float[Tensor, "B T H"],
    rate: Float[Tensor, H],
    b: Float[Tensor, "B T G S"],
    c: Float[Tensor, "B T G S"],
    state: State,
) -> tuple[Float[Tensor, "B T H P"], State]:
    """Return outputs and last state as sums over all earlier tokens, without a recurrence.

        y_t = e(0, t) S_0^T C_t + sum_{r <= t} e(r, t) (C_t . B_r) dt_r x_r
        e(r, t) = exp(a (dt_{r+1} + ... + dt_t))

    The reference that the other forms are tested against; quadratic.
    """
    b, c = _per_head(b, 2, x.shape[2]), _per_head(c, 2, x.shape[2])
    grown = (rate * dt).cumsum(dim=1)  # [B, T, H]
    between = grown[:, :, None] - grown[:, None]  # [B, T, T, H], from the second to the first
    future = torch.ones(between.shape[1:3], dtype=torch.bool, device=x.device).triu(1)
    between = between.masked_fill(future[..., None], -torch.inf).exp().permute(0, 3, 1, 2)
    scores = torch.einsum("bths,brhs->bhtr", c, b) * between
    written = x * dt[..., None]
    before = torch.einsum("bths,bhsp,bth->bthp", c, state, grown.exp())
    out = torch.einsum("bhtr,brhp->bthp", scores, written) + before
    new_state = torch.einsum("brhs,brhp,bhr->bhsp", b, written, between[:, :, -1])
    return out, state * grown[:, -1, :, None, None].exp() + new_state


def recurrent_ssd(
    x: Float[Tensor, "B H P"],
    dt: Float[Tensor, "B H"],
    rate: Float[Tensor, H],
    b: Float[Tensor, "B G S"],
    c: Float[Tensor, "B G S"],
    state: State,
) -> tuple[Float[Tensor, "B H P"], State]:
    """Return one token's output and the state after it: one write and one read of the state."""
    b, c = _per_head(b, 1, x.shape[1]), _per_head(c, 1, x.shape[1])
    return write_and_read(c, b, x * dt[..., None], state * (rate * dt).exp()[..., None, None])


def chunk_ssd(
    x: Float[Tensor, "B T H P"],
    dt: Float[Tensor, "B T H"],
    rate: Float[Tensor, H],
    b: Float[Tensor, "B T G S"],
    c: Float[Tensor, "B T G S"],
    state: State,
    chunk_size: int,
) -> tuple[Float[Tensor, "B T H P"], State]:
    """Return outputs and last state, chunk by chunk (arXiv 2405.21060, section 6)."""
    tokens, heads = x.shape[1], x.shape[2]
    count, size = Step(tokens).chunks(chunk_size)
    written = to_chunks(x * dt[..., None], count, size)
    b, c = (to_chunks(each, count, size) for each in (b, c))
    # The zeros after the last token write nothing and do not decay.
    decay = to_chunks((rate * dt)[..., None], count, size).cumsum(dim=-2)
    future = torch.ones(size, size, dtype=torch.bool, device=x.device).triu(1)
    kept = (decay - decay.mT).masked_fill(future, -torch.inf).exp()
    # A group's scores are formed once; the decay makes them the head's own.
    scores = _per_head(c @ b.mT, 1, heads) * kept
    last = decay[..., -1:, :]
    from_start = _per_head(c, 1, heads) * decay.exp()
    to_end = _per_head(b, 1, heads) * (last - decay).exp()
    out, state = scan_linear_chunks(from_start, to_end, written, scores, last.exp(), state)
    return from_chunks(out, tokens), state


def _per_head(of_groups: Tensor, axis: int, num_heads: int) -> Tensor:
    """Return what the heads of each group share, once for each head."""
    return of_groups.repeat_interleave(num_heads // of_groups.shape[axis], dim=axis)
