"""The selective scan as functions of tensors: reference sum, one step, chunked form, operator.

Per channel d and state s, with step size dt > 0 and A < 0:

    h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t,  y_t = sum_s C_t h_t

Source: Mamba, arXiv 2312.00752, eq. 2, with A discretised by zero-order hold (eq. 4) and B, as in
the authors' code, by Euler's rule.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hybridsim.kernels.choice import choose
from hybridsim.nn.library import operator
from hybridsim.steps import Step

Rates = Float[Tensor, "D S"]
State = Float[Tensor, "B D S"]


def naive_selective_scan(
    x: Float[Tensor, "B T D"],
    dt: Float[Tensor, "B T D"],
    a: Rates,
    b: Float[Tensor, "B T S"],
    c: Float[Tensor, "B T S"],
    state: State,
) -> tuple[Float[Tensor, "B T D"], State]:
    """Return outputs and last state as sums over all earlier tokens, without a recurrence.

        h_t = exp(A sum_{u <= t} dt_u) h_0 + sum_{r <= t} exp(A sum_{r < u <= t} dt_u) dt_r B_r x_r

    The reference that the other forms are tested against; quadratic.
    """
    time = dt.cumsum(dim=1)
    elapsed = time[:, :, None] - time[:, None]  # [B, T, R, D], from r to t
    future = torch.ones(elapsed.shape[1:3], dtype=torch.bool, device=x.device).triu(1)
    decay = (elapsed[..., None] * a).masked_fill(future[..., None, None], -torch.inf).exp()
    states = torch.einsum("btrds,brd,brs->btds", decay, dt * x, b)
    states = states + (time[..., None] * a).exp() * state[:, None]
    return torch.einsum("btds,bts->btd", states, c), states[:, -1]


def recurrent_selective_scan(
    x: Float[Tensor, "*axes D"],
    dt: Float[Tensor, "*axes D"],
    a: Rates,
    b: Float[Tensor, "*axes S"],
    c: Float[Tensor, "*axes S"],
    state: Float[Tensor, "*axes D S"],
) -> tuple[Float[Tensor, "*axes D"], Float[Tensor, "*axes D S"]]:
    """Return one token's output and the state after it."""
    state = _write(x, dt, a, b, state)
    return (state * c[..., None, :]).sum(-1), state


def _write(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, state: Tensor) -> Tensor:
    """Return the state after one token."""
    written = (dt * x)[..., None] * b[..., None, :]
    return torch.addcmul(written, (dt[..., None] * a).exp(), state)


def chunk_selective_scan(
    x: Float[Tensor, "B T D"],
    dt: Float[Tensor, "B T D"],
    a: Rates,
    b: Float[Tensor, "B T S"],
    c: Float[Tensor, "B T S"],
    state: State,
    chunk_size: int,
) -> tuple[Float[Tensor, "B T D"], State]:
    """Return outputs and last state, all chunks side by side.

    Decays differ by channel and state, so nothing becomes a matrix product; what shrinks is the
    number of steps, from T to 2 C + T / C: one run for the states between chunks, one from them.
    """
    tokens = x.shape[1]
    count, size = Step(tokens).chunks(chunk_size)
    # A padded token has step size 0: it decays nothing and writes nothing.
    x, dt, b, c = (_to_chunks(value, count, size) for value in (x, dt, b, c))
    states, outputs = _starting_states(x, dt, a, b, state), []
    for i in range(size):
        token = (x[:, :, i], dt[:, :, i], a, b[:, :, i], c[:, :, i])
        out, states = recurrent_selective_scan(*token, states)
        outputs.append(out)
    return torch.stack(outputs, dim=2).flatten(1, 2)[:, :tokens], states[:, -1]


def _starting_states(
    x: Float[Tensor, "B N C D"],
    dt: Float[Tensor, "B N C D"],
    a: Rates,
    b: Float[Tensor, "B N C S"],
    state: State,
) -> Float[Tensor, "B N D S"]:
    """Return the state before each chunk.

    A chunk adds what it would leave from a zero state, and decays what it is given by exp(A times
    its summed step sizes): one exponent, never above zero.
    """
    count, size = x.shape[1:3]
    starts = [state]
    if count > 1:
        own = state.new_zeros(state.shape[0], count - 1, *state.shape[1:])
        for i in range(size):
            own = _write(x[:, :-1, i], dt[:, :-1, i], a, b[:, :-1, i], own)
        kept = (dt[:, :-1].sum(dim=2)[..., None] * a).exp()
        for n in range(count - 1):
            starts.append(torch.addcmul(own[:, n], kept[:, n], starts[-1]))
    return torch.stack(starts, dim=1)


def _to_chunks(x: Float[Tensor, "B T X"], count: int, size: int) -> Float[Tensor, "B N C X"]:
    """Return x cut into `count` chunks of `size` tokens, zeros after its end."""
    batch, tokens, width = x.shape
    if tokens < count * size:
        x = torch.cat((x, x.new_zeros(batch, count * size - tokens, width)), dim=1)
    return x.reshape(batch, count, size, width)


def _shape(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor, chunk_size: int
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(state)


@operator(
    "selective_scan(Tensor x, Tensor dt, Tensor a, Tensor b, Tensor c, Tensor state,"
    " int chunk_size) -> (Tensor, Tensor)",
    _shape,
)
def selective_scan(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor, chunk_size: int
) -> tuple[Tensor, Tensor]:
    """Return outputs and last state by the form that suits the number of tokens.

    Args:
        x: [B, T, D].
        dt: [B, T, D], step sizes.
        a: [D, S], rates.
        b: [B, T, S].
        c: [B, T, S].
        state: [B, D, S], before the first token.
        chunk_size: tokens of a chunk of the parallel form.

    Returns:
        [B, T, D] and [B, D, S].
    """
    kernel = choose("selective_scan", x, dt, a, b, c, state)
    if kernel is not None:
        found: tuple[Tensor, Tensor] = kernel(x, dt, a, b, c, state)
        return found
    if x.shape[1] == 1:
        out, state = recurrent_selective_scan(x[:, 0], dt[:, 0], a, b[:, 0], c[:, 0], state)
        return out[:, None], state
    return chunk_selective_scan(x, dt, a, b, c, state, chunk_size)
