"""Linear attention as functions of tensors: features, reference, one step, chunked form.

With features phi of queries and keys and a state that starts at zero:

    S_t = S_{t-1} + phi(k_t) v_t^T,   z_t = z_{t-1} + phi(k_t)
    o_t = S_t^T phi(q_t) / (z_t . phi(q_t) + eps),   or the numerator alone

Source: arXiv 2006.16236, eqs. 18-20. z is the last column of the state here: what a value of 1 in
every token's value would leave there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hybridsim.kernels.choice import choose
from hybridsim.nn.delta_rule import from_chunks, to_chunks
from hybridsim.nn.linear_attention import scan_linear_chunks, write_and_read
from hybridsim.steps import Step

EPS = 1e-10  # beside the normaliser
State = Float[Tensor, "B H K W"]  # W is V, or V + 1 with the normaliser


def linear_attention(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    state: State,
    *,
    normalize: bool,
    chunk_size: int,
    like: Tensor,
) -> tuple[Float[Tensor, "B T H V"], State]:
    """Return outputs and last state by the form, and the kernel, that suit the tokens.

    Kernels take features and values in the dtype of `like`.
    """
    single = q.shape[1] == 1
    operation = "recurrent_simple_gla" if single else "chunk_simple_gla"
    width = v.shape[-1] + normalize  # the normalizer is a channel more
    padding = 0 if single else width % 2  # fla's gradient wants an even number of channels
    sizes = {"key_dim": q.shape[-1], "value_dim": width + padding, "gated": False}
    kernel = choose(operation, like, q, **sizes)
    if kernel is not None:
        values = with_normalizer(v) if normalize else v
        values, state = (F.pad(x, (0, padding)) if padding else x for x in (values, state))
        narrow = (x.to(like.dtype) for x in (q, k, values))
        out, state = (x[..., :width] for x in kernel(*narrow, None, None, state))
        return normalized(out.float()) if normalize else out, state.contiguous()
    if single:
        out, state = recurrent_linear_attention(q[:, 0], k[:, 0], v[:, 0], state, normalize)
        return out[:, None], state
    return chunk_linear_attention(q, k, v, state, normalize, chunk_size)


def draw_projection(num_features: int, head_dim: int, seed: int) -> Float[Tensor, "M K"]:
    """Return random features' directions: orthogonal in groups of K, with a Gaussian's norms.

    Source: orthogonal random features, arXiv 2009.14794, section 2.4. The same on every device:
    drawn in float64 on the CPU, and a QR decomposition is unique once R's diagonal is positive.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    groups = -(-num_features // head_dim)

    def normal() -> Tensor:
        shape = (groups, head_dim, head_dim)
        return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")

    basis, triangular = torch.linalg.qr(normal())
    signs = triangular.diagonal(dim1=-2, dim2=-1).sign()
    directions = (basis * signs[:, None]).mT.flatten(0, 1)
    norms = normal().norm(dim=-1).flatten()
    drawn: Tensor = directions * norms[:, None]
    return drawn[:num_features].float()


def random_features(
    x: Float[Tensor, "B T H K"], projection: Float[Tensor, "M K"]
) -> Float[Tensor, "B T H M"]:
    """Return exp(w_i . y - |y|^2 / 2) / sqrt(M) of y = x K^(-1/4), one feature for each row w_i.

    Products of such features of q and k are exp(q . k / sqrt(K)) on average. Source: arXiv
    2009.14794, lemma 1. No feature exceeds exp(|w_i|^2 / 2), which float32 holds up to K = 128.
    """
    scaled = x * x.shape[-1] ** -0.25
    exponent = scaled @ projection.mT - scaled.square().sum(-1, keepdim=True) / 2
    features: Tensor = exponent.exp() * projection.shape[0] ** -0.5
    return features


def with_normalizer(v: Float[Tensor, "*axes V"]) -> Float[Tensor, "*axes V+1"]:
    """Return values with a 1 after them, for the state to sum up features in its last column."""
    return torch.cat((v, torch.ones_like(v[..., :1])), dim=-1)


def normalized(out: Float[Tensor, "*axes W"]) -> Float[Tensor, "*axes W-1"]:
    """Return the numerators over the denominator in the last channel."""
    return out[..., :-1] / (out[..., -1:] + EPS)


def naive_linear_attention(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    state: State,
    normalize: bool,
) -> tuple[Float[Tensor, "B T H V"], State]:
    """Return outputs and last state from the matrix of attention weights; q, k are features.

    The reference that the other forms are tested against; quadratic.
    """
    weights = torch.einsum("bthk,brhk->bhtr", q, k).tril()
    out = torch.einsum("bhtr,brhv->bthv", weights, v)
    before = torch.einsum("bthk,bhkv->bthv", q, state)
    new_state = torch.einsum("brhk,brhv->bhkv", k, v)
    if not normalize:
        return out + before, state + new_state
    total = weights.sum(-1).mT[..., None] + before[..., -1:]
    sums = torch.cat((new_state, k.sum(1)[..., None]), dim=-1)
    return (out + before[..., :-1]) / (total + EPS), state + sums


def recurrent_linear_attention(
    q: Float[Tensor, "B H K"],
    k: Float[Tensor, "B H K"],
    v: Float[Tensor, "B H V"],
    state: State,
    normalize: bool,
) -> tuple[Float[Tensor, "B H V"], State]:
    """Return one token's output and the state after it."""
    if not normalize:
        return write_and_read(q, k, v, state)
    out, state = write_and_read(q, k, with_normalizer(v), state)
    return normalized(out), state


def chunk_linear_attention(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    state: State,
    normalize: bool,
    chunk_size: int,
) -> tuple[Float[Tensor, "B T H V"], State]:
    """Return outputs and last state, chunk by chunk."""
    tokens = q.shape[1]
    count, size = Step(tokens).chunks(chunk_size)
    values = with_normalizer(v) if normalize else v
    q, k, values = (to_chunks(x, count, size) for x in (q, k, values))
    kept = q.new_ones(1, 1, 1, 1, 1)
    out, state = scan_linear_chunks(q, k, values, (q @ k.mT).tril(), kept, state)
    out = from_chunks(out, tokens)
    return normalized(out) if normalize else out, state
