"""Softmax attention, windowed, selected and by blocks, against plain masked attention."""

from __future__ import annotations

import pytest
import torch
from closeness import assert_close
from torch import Tensor

from hybridsim.mixers.block_sparse.ops import block_attention, block_scores, select_blocks
from hybridsim.mixers.sparse_mla import ops
from hybridsim.mixers.sparse_mla.ops import (
    index_scores,
    select_by_key,
    select_tokens,
    selected_attention,
)
from hybridsim.nn.attention import QUERIES_AT_ONCE, causal_attention
from hybridsim.nn.quantize import dequantize, quantize


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def masked_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, visible: Tensor, sinks: Tensor | None = None
) -> Tensor:
    """Return attention with a mask [B or 1, T, H or 1, S], head by head and query by query."""
    group = q.shape[2] // k.shape[2]
    out = q.new_zeros(*q.shape[:3], v.shape[3])
    visible = visible.expand(q.shape[0], q.shape[1], q.shape[2], k.shape[1])
    for b in range(q.shape[0]):
        for t in range(q.shape[1]):
            for h in range(q.shape[2]):
                seen = visible[b, t, h]
                scores = k[b, seen, h // group] @ q[b, t, h] * scale
                total = scores.exp().sum()
                if sinks is not None:
                    total = total + sinks[h].exp()
                out[b, t, h] = scores.exp() @ v[b, seen, h // group] / total
    return out


def causal(new: int, seen: int) -> Tensor:
    query = torch.arange(seen - new, seen)[:, None]
    return (torch.arange(seen)[None] <= query)[None, :, None]


def in_window(new: int, seen: int, window: int | None) -> Tensor:
    if window is None:
        return causal(new, seen)
    position = torch.arange(seen - new, seen)[None, :, None, None]
    return causal(new, seen) & (torch.arange(seen) > position - window)


@pytest.mark.parametrize("sinks", [None, torch.tensor([2.0, -1.0, 0.0, 9.0]).double()])
@pytest.mark.parametrize("window", [None, 1, 5])
@pytest.mark.parametrize(("new", "seen"), [(1, 1), (7, 7), (1, 12), (5, 12)])
def test_causal_attention(new: int, seen: int, window: int | None, sinks: Tensor | None) -> None:
    q, k, v = normal(2, new, 4, 8), normal(2, seen, 2, 8), normal(2, seen, 2, 6)
    wanted = masked_attention(q, k, v, 0.3, in_window(new, seen, window), sinks)
    assert_close("out", causal_attention(q, k, v, 0.3, window, sinks), wanted, 1e-12)


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("with_sinks", [False, True])
def test_causal_attention_gradients(window: int | None, with_sinks: bool) -> None:
    tensors = [normal(1, 9, 4, 8), normal(1, 9, 2, 8), normal(1, 9, 2, 8)]
    tensors += [normal(4)] if with_sinks else []
    visible, gradients = in_window(9, 9, window), []
    for form in (
        lambda q, k, v, sinks=None: causal_attention(q, k, v, 0.3, window, sinks),
        lambda q, k, v, sinks=None: masked_attention(q, k, v, 0.3, visible, sinks),
    ):
        leaves = [x.clone().requires_grad_() for x in tensors]
        form(*leaves).square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for name, got, wanted in zip(["q", "k", "v", "sinks"], *gradients, strict=False):
        assert_close(f"d{name}", got, wanted, 1e-10)


@pytest.mark.parametrize("window", [None, 40])
def test_sinks_over_several_blocks_of_queries(window: int | None) -> None:
    # A sink far below every score changes nothing: then torch's own attention is the reference.
    new, seen = 2 * QUERIES_AT_ONCE + 9, 3 * QUERIES_AT_ONCE
    q, k, v = normal(1, new, 4, 8), normal(1, seen, 2, 8), normal(1, seen, 2, 6)
    wanted = causal_attention(q, k, v, 0.3, window)
    sinks = torch.full((4,), -1e4, dtype=torch.float64)
    assert_close("out", causal_attention(q, k, v, 0.3, window, sinks), wanted, 1e-12)


def test_a_sink_is_one_more_key_without_a_value() -> None:
    # All scores are zero, the sink's too: every query spreads its weight over one key more.
    q, k, v = torch.zeros(2, 7, 4, 8).double(), normal(2, 7, 2, 8), normal(2, 7, 2, 6)
    got = causal_attention(q, k, v, 0.3, None, torch.zeros(4, dtype=torch.float64))
    keys = torch.arange(2, 9)[:, None, None]
    assert_close("out", got, v.cumsum(1).repeat_interleave(2, 2) / keys, 1e-12)


def test_the_softmax_of_half_precision_is_taken_in_float32() -> None:
    q, k, v = (normal(1, 300, h, 32) for h in (4, 2, 2))
    sinks = normal(4)
    wanted = causal_attention(q, k, v, 0.2, 64, sinks)
    halves = [x.bfloat16() for x in (q, k, v)]
    got = causal_attention(*halves, 0.2, 64, sinks.float())
    assert got.dtype == torch.bfloat16
    assert_close("out", got.double(), wanted, 2e-2)


def test_index_scores_follow_the_equation() -> None:
    q, k, w = normal(2, 5, 3, 8), normal(2, 9, 8), normal(2, 5, 3)
    got = index_scores(q, k, w)
    for t in range(5):
        for s in range(9):
            if s > t + 4:
                assert (got[:, t, s] == -torch.inf).all()
                continue
            wanted = (w[:, t] * torch.einsum("bhk,bk->bh", q[:, t], k[:, s]).relu()).sum(-1)
            torch.testing.assert_close(got[:, t, s], wanted)


def test_equal_scores_choose_the_earlier_token() -> None:
    scores = torch.tensor([[[0.0, 1.0, 0.0, 0.0, -torch.inf]]])
    assert sorted(select_tokens(scores, 3)[0, 0].tolist()) == [0, 1, 2]
    assert sorted(select_tokens(scores, 5)[0, 0].tolist()) == [-1, 0, 1, 2, 3]


@pytest.mark.parametrize("topk", [1, 7, 40])
def test_selection_by_key_is_selection_by_sort(topk: int) -> None:
    # Many scores are equal, some are zeros of either sign, some tokens are not visible.
    scores = torch.randint(-3, 4, (3, 25, 40)).float() * 0.37
    scores[:, :, ::7] *= -0.0
    scores = scores.masked_fill(~causal(25, 40)[:, :, 0], -torch.inf)
    wanted = select_tokens(scores, topk).sort(-1).values
    assert torch.equal(select_by_key(scores, topk).sort(-1).values, wanted)


def test_a_gpu_selects_under_vmap_what_it_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.randint(-3, 4, (2, 3, 25, 40)).float()
    wanted = torch.stack([select_tokens(x, 7).sort(-1).values for x in scores])
    monkeypatch.setattr(ops, "on_gpu", lambda tensor: True)
    # Without a batching rule in torch 2.11, which is the oldest that we run on:
    monkeypatch.delattr(ops, "select_by_key")
    found = torch.func.vmap(lambda x: select_tokens(x, 7))(scores)
    assert torch.equal(found.sort(-1).values, wanted)


@pytest.mark.parametrize("new", [1, 70])
def test_selected_attention(new: int) -> None:
    seen = 80
    q, latents = normal(2, new, 3, 10), normal(2, seen, 10)
    scores = normal(2, new, seen).masked_fill(~causal(new, seen)[:, :, 0], -torch.inf)
    tokens = select_tokens(scores, 16)
    visible = torch.zeros(2, new, seen + 1, dtype=torch.bool)
    visible.scatter_(2, tokens.where(tokens >= 0, torch.tensor(seen)), True)
    wanted = masked_attention(
        q, latents[:, :, None], latents[:, :, None, :6], 0.3, visible[:, :, None, :seen]
    )
    assert_close("out", selected_attention(q, latents, tokens, 6, 0.3), wanted, 1e-12)


@pytest.mark.parametrize(("new", "past"), [(1, 70), (70, 0), (13, 60)])
def test_block_attention(new: int, past: int) -> None:
    seen, size, top = new + past, 8, 3
    q, k, v = normal(2, new, 4, 8), normal(2, seen, 2, 8), normal(2, seen, 2, 8)
    index_q, index_k = normal(2, new, 2, 8), normal(2, seen, 8)
    scores = block_scores(index_q, index_k, size)
    blocks = select_blocks(scores, past, size, top, 1)
    visible = torch.zeros(2, new, 4, seen, dtype=torch.bool)
    for b in range(2):
        for t in range(new):
            for h in range(4):
                visible[b, t, h] = _chosen(index_q[b, t, h // 2], index_k[b], past + t, size, top)
    wanted = masked_attention(q, k, v, 0.3, visible)
    assert_close("out", block_attention(q, k, v, blocks, size, 0.3), wanted, 1e-12)


def _chosen(query: Tensor, keys: Tensor, position: int, size: int, top: int) -> Tensor:
    """Return the visible keys of the best blocks, the query's own first, one block at a time."""
    own = position // size
    best = [(keys[b * size : (b + 1) * size] @ query).max().item() for b in range(own)]
    others = sorted(range(own), key=lambda b: -best[b])[: top - 1]
    chosen = torch.zeros(keys.shape[0], dtype=torch.bool)
    for block in [own, *others]:
        chosen[block * size : (block + 1) * size] = True
    chosen[position + 1 :] = False
    return chosen


def test_fp8_keys_are_close_and_keep_their_scale() -> None:
    keys = torch.randn(2, 5, 200) * torch.tensor([1e-3, 1.0, 50.0, 1e3, 0.0])[None, :, None]
    rounded, scales = quantize(keys)
    assert rounded.element_size() == 1
    assert scales.shape == (2, 5, 2)
    assert scales.dtype == torch.float32
    back = dequantize(rounded, scales)
    # e4m3 has three bits of mantissa: at most 1/16 of a normal number's own size.
    assert ((back - keys).abs() <= keys.abs() / 16 + scales.amax(-1, keepdim=True) / 64).all()
    assert (back[:, 4] == 0).all()
