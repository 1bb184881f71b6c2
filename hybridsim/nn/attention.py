"""Softmax attention over keys and values, as one operator."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

from hybridsim.kernels.choice import HALVES, allowed, choose, note
from hybridsim.nn.library import is_batched, operator
from hybridsim.nn.precision import wide

QUERIES_AT_ONCE = 128  # queries whose scores are formed together where the softmax is our own


def _shape(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    window: int | None = None,
    sinks: Tensor | None = None,
    length: Tensor | None = None,
) -> Tensor:
    return query.new_empty(*query.shape[:3], value.shape[3])


@operator(
    "causal_attention(Tensor query, Tensor key, Tensor value, float scale,"
    " int? window=None, Tensor? sinks=None, Tensor? length=None) -> Tensor",
    _shape,
)
def causal_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    window: int | None = None,
    sinks: Tensor | None = None,
    length: Tensor | None = None,
) -> Tensor:
    """Return softmax(scale q k^T) v over the keys that each query may see.

    Args:
        query: [B, T, H, K]; the queries are the last T of the S tokens.
        key: [B, S, H_kv, K], each head shared by H / H_kv query heads.
        value: [B, S, H_kv, V].
        scale: factor on the scores.
        window: keys a query sees at most, itself included; None for all before it.
        sinks: [H], a further score of every query of a head, without a value; None for none.
        length: [1], for one query over a static cache, whose first `length` keys it sees; None
            where it sees the last key too.

    Returns:
        [B, T, H, V].
    """
    if query.shape[1] == 1:
        if window is not None:
            key, value, window = key[:, -window:], value[:, -window:], None
        kernel = choose("decode_attention", query, key, value, sinks)
        if kernel is not None:
            found: Tensor = kernel(
                query[:, 0], key, value, _length(key, length), scale, sinks=sinks
            )
            return found[:, None]
    key, value = key.to(query.dtype), value.to(query.dtype)  # from a cache in fp8
    if length is not None:
        return _step_attention(query, key, value, scale, sinks, length)
    plain = sinks is None and window is None
    if not (plain and query.shape[1] == key.shape[1]) and _flash_takes(query, key, value, sinks):
        return _flash_attention(query, key, value, scale, window, sinks)
    if sinks is None:
        return _torch_attention(query, key, value, scale, window)
    pieces, later = [], query.shape[1]
    for part in query.split(QUERIES_AT_ONCE, 1):
        later -= part.shape[1]
        visible = causal_mask(part.shape[1], key.shape[1], window, query.device, later)
        pieces.append(_sink_attention(part, key, value, scale, visible, sinks))
    return torch.cat(pieces, dim=1)


def _torch_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None
) -> Tensor:
    heads, new, seen = query.shape[2], query.shape[1], key.shape[1]
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    if heads != key.shape[1] and not query.is_cuda:
        key, value = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (key, value))
    square = new == seen and window is None
    causal, shared = square and new > 1, heads != key.shape[1]
    if query.is_cuda and window is None and 1 < new < seen and query.dtype in HALVES:
        note("causal_attention", "torch, aligned to the last key")
        bias: Tensor = causal_lower_right(new, seen)
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, scale=scale, enable_gqa=shared
        )
        return out.transpose(1, 2)
    mask = None if new == 1 or square else causal_mask(new, seen, window, query.device)
    if is_batched(query, key, value):  # torch's fused kernels have no rule for it everywhere
        if shared and key.shape[1] != heads:
            key, value = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (key, value))
        visible = causal_mask(new, seen, window, query.device)
        scores = wide(query @ key.mT * scale).masked_fill(~visible, -torch.inf)
        return (scores.softmax(-1).to(value.dtype) @ value).transpose(1, 2)
    with _fast_backends(query):
        if query.is_cuda:
            chosen = torch._fused_sdp_choice(
                query, key, value, mask, is_causal=causal, scale=scale, enable_gqa=shared
            )
            note("causal_attention", f"torch {SDPBackend(chosen).name.lower()}")
        out = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=causal,
            scale=scale,
            enable_gqa=shared,
        )
    return out.transpose(1, 2)


def _flash_takes(query: Tensor, key: Tensor, value: Tensor, sinks: Tensor | None) -> bool:
    """Whether flash attention has the sizes, and the gradients that are wanted."""
    width = query.shape[3]
    wanted = torch.is_grad_enabled() and sinks is not None
    sizes = width == value.shape[3] and width <= 256 and width % 8 == 0
    many = query.shape[1] > 1 and not wanted
    return (
        many and query.is_cuda and query.dtype in HALVES and sizes and allowed("causal_attention")
    )


def _flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    window: int | None,
    sinks: Tensor | None,
) -> Tensor:
    """Attend by torch's flash kernel itself, which also takes windows, and gives sums for sinks.

    The sink b of a head leaves 1 / (1 + exp(b - l)) of a query's output, where l is the logarithm
    of the sum of its exponentials.
    """
    note("causal_attention", "torch flash_attention" + ("" if window is None else ", window"))
    inputs = [x.contiguous() if x.stride(-1) != 1 else x for x in (query, key, value)]
    out, log_sum, *_ = torch.ops.aten._flash_attention_forward(
        *inputs,
        None,
        None,
        query.shape[1],
        key.shape[1],
        0.0,
        True,
        False,
        scale=scale,
        window_size_left=None if window is None else window - 1,
        window_size_right=None if window is None else 0,
    )
    if sinks is None:
        found: Tensor = out
        return found
    kept = (log_sum.mT - sinks.float()).sigmoid()  # [B, T, H]
    lessened: Tensor = (out * kept[..., None]).to(query.dtype)
    return lessened


def _fast_backends(query: Tensor) -> AbstractContextManager[None]:
    """Prefer cuDNN on CUDA: about twice as fast as flash on an H100, and it takes MLA's sizes."""
    if not query.is_cuda:
        return nullcontext()
    order = [
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.MATH,
    ]
    context: AbstractContextManager[None] = sdpa_kernel(order, set_priority=True)
    return context


def _step_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float, sinks: Tensor | None, length: Tensor
) -> Tensor:
    """Attend from one query to the first `length` keys."""
    visible = visible_tokens(1, key.shape[1], length, query.device)
    if sinks is None:  # without a sink as with one that nothing is given to
        sinks = torch.full((query.shape[2],), -torch.inf, device=query.device)
    return _sink_attention(query, key, value, scale, visible, sinks)


def _sink_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float, visible: Tensor, sinks: Tensor
) -> Tensor:
    """Attend to the visible keys, [T, S], and to the sinks; the softmax in float32.

    torch's own attention gives no sum of exponentials that autograd follows, for the sinks to join.
    """
    heads = key.shape[2]
    grouped = query.unflatten(2, (heads, -1)).permute(0, 2, 3, 1, 4)  # [B, H_kv, group, T, K]
    key, value = key.transpose(1, 2), value.transpose(1, 2)  # [B, H_kv, S, K]
    scores = wide(grouped.flatten(2, 3) @ key.mT).unflatten(2, grouped.shape[2:4]) * scale
    scores = scores.masked_fill(~visible, -torch.inf)
    column = wide(sinks).view(heads, -1, 1, 1).expand(*scores.shape[:-1], 1)
    weights = torch.cat((scores, column), dim=-1).softmax(dim=-1)[..., :-1].to(value.dtype)
    out: Tensor = (weights.flatten(2, 3) @ value).unflatten(2, grouped.shape[2:4])
    return out.permute(0, 3, 1, 2, 4).flatten(2, 3)


def _length(key: Tensor, length: Tensor | None) -> Tensor:
    """Return how many keys one query sees, on the device."""
    if length is not None:
        return length
    return torch.full((1,), key.shape[1], dtype=torch.int32, device=key.device)


def latent_attention(
    query: Tensor, latents: Tensor, value_dim: int, scale: float, length: Tensor | None
) -> Tensor:
    """Return one query's attention over latents that are keys and values at once.

    Args:
        query: [B, 1, H, W], absorbed: against latents.
        latents: [B, S, W]; the first `value_dim` channels are the values.
        value_dim: R.
        scale: factor on the scores.
        length: as in `causal_attention`.

    Returns:
        [B, 1, H, R].
    """
    kernel = choose("latent_decode_attention", query, latents)
    if kernel is not None:
        found: Tensor = kernel(query[:, 0], latents, _length(latents, length), scale, value_dim)
        return found[:, None]
    keys = latents[..., None, :]
    out: Tensor = causal_attention(query, keys, keys[..., :value_dim], scale, length=length)
    return out


def visible_tokens(new: int, seen: int, length: Tensor | None, device: torch.device) -> Tensor:
    """Return [T, S], true where a query may see the key; see `causal_attention` for `length`."""
    if length is None:
        return causal_mask(new, seen, None, device)
    return (torch.arange(seen, device=device) < length)[None]


def causal_mask(
    new: int, seen: int, window: int | None, device: torch.device, later: int = 0
) -> Tensor:
    """Return [T, S], true where the query may see the key.

    The queries are T of the S tokens, with `later` tokens after them.
    """
    query = torch.arange(seen - new, seen, device=device)[:, None] - later
    key = torch.arange(seen, device=device)[None]
    visible = key <= query
    return visible if window is None else visible & (key > query - window)
